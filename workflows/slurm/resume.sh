# Run a command to its end. Slurm tells this shell alone that time runs out (--signal=B:USR1@120) and
# sends SIGTERM where it preempts or requeues the job. Either is passed on; the command then stops in
# order, and the job goes back into the queue, to go on where it stopped.
to_the_end() {
    local before code command asked ever_asked=""
    before=$(run_state)
    "$@" &
    command=$!
    trap 'asked=1; ever_asked=1; kill -USR1 "$command" 2>/dev/null || true' USR1 TERM
    while :; do # a signal ends `wait`, but not the command
        asked="" code=0
        wait "$command" || code=$?
        [ -n "$asked" ] || break
    done
    trap - USR1 TERM
    if [ "$code" -ne 0 ] && was_interrupted "$code" "$before" "$ever_asked"; then
        # Slurm refuses where it is what took the job back, and will start it again itself.
        scontrol requeue "$SLURM_JOB_ID" || true
    fi
    return "$code"
}

# Whether a command that failed had stopped in order: it says so (75), a stop signal came before it
# listened (138, 143), or its run does, where torchrun's exit code tells nothing.
was_interrupted() {
    case $1 in 75 | 138 | 143) return 0 ;; esac
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
