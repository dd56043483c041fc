#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make bench-gpu`: what a VRAM budget costs on a real GPU.
#
#   tests/gpu/bench.sh [OUTDIR]     default: docs/measurements
#
# Takes the same figures (probe_context's times, the start of a process, PyTorch) from the driver alone
# and under `softslice run --vram`, in turn, BENCH_ROUNDS (3) times, and writes
# OUTDIR/<date>-<gpu>-bench.md with the raw rows beside it. Exits 77 with a reason where there is no GPU.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=${1:-docs/measurements}
bin=build/gpu
vram=${BENCH_VRAM:-32GiB}
mkdir -p $bin "$out" || exit 1

for f in build/softslice build/libsoftslice.so; do
    [ -e $f ] || { echo "skipped: $f is not built"; exit 77; }
done
cuda=${CUDA_HOME:-$(dirname "$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")}
if command -v "${CC:=cc}" >/dev/null && [ -e "$cuda/include/cuda.h" ]; then
    "$CC" -std=gnu11 -D_GNU_SOURCE -O2 -I"$cuda/include" -o $bin/probe_context \
        tests/gpu/probe_context.c tests/gpu/probe.c -ldl -lpthread || exit 1
fi
[ -x $bin/probe_context ] || { echo "skipped: no C compiler, and no prebuilt $bin/probe_context"; exit 77; }
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 2>/dev/null) ||
    { echo "skipped: nvidia-smi sees no GPU"; exit 77; }
slug=$(date -u +%Y-%m-%d)-$(echo "$gpu" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')-bench
mkdir -p "$out/$slug" || exit 1

starts() { # the start and end of a process that never touches CUDA, with the given environment
    local begin end n=200
    begin=$(date +%s%N)
    for _ in $(seq $n); do env "$@" /bin/true; done
    end=$(date +%s%N)
    printf 'bench\tprocess start\t%d us\n' $(((end - begin) / n / 1000))
}

have_torch=0
python3 -c 'import torch' 2>/dev/null && have_torch=1
: >"$out/$slug/native.tsv"
: >"$out/$slug/softslice.tsv"
for round in $(seq "${BENCH_ROUNDS:-3}"); do
    echo "round $round"
    {
        $bin/probe_context
        starts SOFTSLICE_UNUSED=1
        [ $have_torch = 1 ] && python3 tests/gpu/torch_bench.py
    } >>"$out/$slug/native.tsv"
    {
        build/softslice run --vram "$vram" -- $bin/probe_context
        starts LD_PRELOAD="$PWD/build/libsoftslice.so" SOFTSLICE_VRAM="$vram"
        [ $have_torch = 1 ] && build/softslice run --vram "$vram" -- python3 tests/gpu/torch_bench.py
    } >>"$out/$slug/softslice.tsv"
done
{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    uname -srm
    getconf GNU_LIBC_VERSION
    echo "budget $vram, softslice $(build/softslice version 2>/dev/null | head -n 1)"
} >"$out/$slug/machine.txt"
python3 tests/gpu/bench_page.py "$out/$slug/native.tsv" "$out/$slug/softslice.tsv" \
    "$out/$slug/machine.txt" >"$out/$slug.md" || exit 1
cat "$out/$slug.md"
