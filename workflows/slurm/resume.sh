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
        if is_stuck; then
            echo "Error: this job was put back $most_in_vain times without getting any further, so" \
                "its time limit does not suffice for one checkpoint or unit; give it more time" \
                "(--time), then submit again" >&2
        else
            requeue
        fi
    fi
    return "$code"
}

# How often a job is put back although it got no further.
most_in_vain=3

# Whether it was put back so often since it last got further. What is kept for the next time is how
# often, and how far which job was: one that is submitted again has another id.
is_stuck() {
    local file=${requeues:-${run:+$run/requeues}} far count="" before=""
    far=$(progress)
    if [ -z "$file" ] || [ -z "$far" ]; then return 1; fi
    file=$file${SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID} far="job-$SLURM_JOB_ID-$far"
    [ ! -e "$file" ] || read -r count before < "$file" || true
    [ "$before" = "$far" ] || count=0
    [ "$count" -lt "$most_in_vain" ] || return 0
    mkdir -p "${file%/*}"
    echo "$((count + 1)) $far" > "$file"
    return 1
}

# How far a job is: a run's last step, or the marks and tars in a local output; else nothing.
progress() {
    if [ -n "${run:-}" ]; then
        run_state | sed -n 's/.*"step": *\([0-9]*\).*/step-\1/p' | grep . || echo no-step
    elif [ -d "${output:-}" ]; then
        echo "files-$(find "$output" -name '*.tar' -o -path '*/done/*.json' | wc -l)"
    fi
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
