# Run a command to its end. Slurm tells this shell alone that time runs out (--signal=B:USR1@120):
# that is passed on, the command stops in order, and the job goes back into the queue, to go on
# where it stopped. SIGTERM is passed on, too, but the job is left to whoever sent it: Slurm, which
# starts what it preempted or requeued again, or somebody who cancelled it.
to_the_end() {
    local before code command signal="" last=""
    before=$(run_state)
    "$@" &
    command=$!
    trap 'last=USR1; kill -USR1 "$command" 2>/dev/null || true' USR1
    trap 'last=TERM; kill -USR1 "$command" 2>/dev/null || true' TERM
    while :; do # a signal ends `wait`, but not the command
        last="" code=0
        wait "$command" || code=$?
        [ -n "$last" ] || break
        signal=$last
    done
    trap - USR1 TERM
    if [ "$code" -ne 0 ] && [ "$signal" != TERM ] && was_interrupted "$code" "$before" "$signal"; then
        requeue
    fi
    return "$code"
}

requeue() {
    # By its own id the last task of an array would name the whole.
    local job=$SLURM_JOB_ID
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    scontrol requeue "$job"
}

# Whether a command that failed had stopped in order: it says so (75), the signal came before it
# listened (138), or its run does, where torchrun's exit code tells nothing.
was_interrupted() {
    case $1 in 75 | 138) return 0 ;; esac
    [ -n "${run:-}" ] || return 1
    if [ "$(run_state)" = "$2" ]; then
        [ -n "$3" ] # nothing was begun yet when the signal came
    else
        run_state | grep -q '"interrupted"'
    fi
}

run_state() {
    [ -z "${run:-}" ] || cat "$run/state.json" 2>/dev/null || true
}
