# Become srun, which starts a training stage in as many processes on each of the job's nodes.
on_all_nodes() {
    local first=localhost
    if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
        first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    fi
    # srun does not take this from the job by itself.
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    # A node need not know itself by Slurm's name for it, so the first is told to be the meeting
    # place, by torchrun's environment. And torchrun would have each process compute with one thread,
    # so each is given its share of the node's cores.
    exec srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 bash -c \
        'export PET_RDZV_CONF="is_host=$((SLURM_NODEID == 0))"
        cores=$(nproc)
        share=$((cores > @@processes ? cores / @@processes : 1))
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$share}"
        exec "$@"' on-node \
        @@container torchrun \
        --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node=@@processes \
        --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \
        --rdzv-endpoint="$first:$((20000 + SLURM_JOB_ID % 10000))" \
        --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout=120 \
        -m milan_pipeline "$@"
}
