#!/bin/sh
# The demo: the real commands, one after the other, each shown before it runs. Run it again, and each
# says "nothing to do". `sh workflows/demo/run.sh FOLDER 2000 600` takes fewer scenes, and learns less.
set -eu
out=${1:-demo}
train=${2:-8000}
test=${3:-2400}
demo=workflows/demo
config="--config demo"  # workflows/recipes/demo.yaml

# Keeping freed memory instead of returning it makes small-model steps on a CPU 15-20% faster.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000

# A CPU that computes in bfloat16 trains in it, almost twice as fast.
precision=""
if grep -qs avx512_bf16 /proc/cpuinfo; then precision="--precision bf16"; fi

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

run python -m workflows.demo.scenes "$out/scenes" --train "$train" --test "$test"

run milan-pipeline pack-images "$out/scenes/train" "$out/images/train" $config
run milan-pipeline pack-images "$out/scenes/test" "$out/images/test" $config
run milan-pipeline extract-targets --images "$out/images/train" --out "$out/targets.zarr" $config
run milan-pipeline pack-targets --targets "$out/targets.zarr" --out "$out/target-shards"
run milan-pipeline pretrain --images "$out/images/train" --targets "$out/target-shards" \
    --out "$out/run" $config $precision

# A scene's object is sought in all of it: --crop-pct 1.
probe() {
    name=$1
    shift
    run milan-pipeline probe --train "$out/images/train" --val "$out/images/test" \
        --crop-pct 1 --out "$out/probe/$name" $precision "$@"
}
probe random --encoder "$out/run" --random-init
probe student --encoder "$out/run"
probe teacher --encoder "open_clip:local-dir:$demo/teacher"

run python -m workflows.demo.report "$out"
