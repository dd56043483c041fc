#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every probe of the real driver and gathers what they print.
#
#   tests/gpu/probe.sh [OUTDIR]      default: build/gpu/out
#
# Writes OUTDIR/probe.tsv (probe, key, value), OUTDIR/machine.txt and OUTDIR/log.txt. Builds what is
# not built yet into build/gpu; where no compiler is found, a carried build/gpu is used as it is.
# PROBE_LIBCUDA and PROBE_LIBNVML name other driver files: the probes that need no GPU (elf,
# identity, lock) then say what those files are like, on any machine.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=${1:-build/gpu/out}
bin=build/gpu
cuda=${CUDA_HOME:-}
[ -n "$cuda" ] || cuda=$(dirname "$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")
probes="elf identity lock refusal memory context capture nvml kill"
mkdir -p "$bin" "$out" || exit 1
out=$(cd "$out" && pwd) # the counter writes from wherever the program runs
: >"$out/probe.tsv"
: >"$out/log.txt"

say() { echo "== $*" | tee -a "$out/log.txt"; }

build() { # build TARGET SOURCE... -- COMMAND...: runs COMMAND when TARGET is older than a source
    local target=$1 stale=0
    shift
    [ -e "$target" ] || stale=1
    while [ "$1" != -- ]; do
        [ "$1" -nt "$target" ] && stale=1
        shift
    done
    shift
    [ "$stale" = 1 ] || return 0
    "$@" >>"$out/log.txt" 2>&1 || say "cannot build $target"
}

cc=${CC:-$(command -v gcc || command -v cc || command -v clang)}
cflags="-std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -I$cuda/include"
if [ -n "$cc" ]; then
    for p in $probes; do
        src="tests/gpu/probe_$p.c"
        [ "$p" = lock ] || src="$src tests/gpu/probe.c"
        # shellcheck disable=SC2086
        build "$bin/probe_$p" $src tests/gpu/probe.h -- \
            "$cc" $cflags -o "$bin/probe_$p" $src -ldl -lpthread
    done
    # shellcheck disable=SC2086
    build "$bin/libprobe-calls.so" tests/gpu/calls.c -- \
        "$cc" $cflags -fPIC -shared -o "$bin/libprobe-calls.so" tests/gpu/calls.c -ldl
else
    say "no C compiler: using $bin as it was carried"
fi
if [ -x "$cuda/bin/nvcc" ]; then
    for kind in shared static; do
        build "$bin/runtime-$kind" tests/gpu/runtime.cu -- \
            "$cuda/bin/nvcc" -O2 -cudart $kind -arch=all-major \
            -o "$bin/runtime-$kind" tests/gpu/runtime.cu
    done
else
    say "no nvcc: the runtime programs are those that were carried, if any"
fi

{
    date -u +%Y-%m-%dT%H:%MZ
    uname -srm
    nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,compute_mode,mig.mode.current \
        --format=csv || echo "no nvidia-smi"
    nvidia-smi | head -n 20
    cat /proc/driver/nvidia/version 2>/dev/null
    getconf GNU_LIBC_VERSION
    "${cc:-cc}" --version 2>/dev/null | head -n 1
    "$cuda/bin/nvcc" --version 2>/dev/null | tail -n 2
} >"$out/machine.txt" 2>>"$out/log.txt"

run() { # run NAME SECONDS COMMAND...: rows to probe.tsv, the rest to the log
    local name=$1 limit=$2 begin=$SECONDS rc
    shift 2
    say "$name"
    timeout -k 5 "$limit" "$@" >>"$out/probe.tsv" 2>>"$out/log.txt"
    rc=$?
    printf 'driver\t%s\texit %d after %d s\n' "$name" "$rc" $((SECONDS - begin)) >>"$out/probe.tsv"
    say "$name: exit $rc after $((SECONDS - begin)) s"
}

for p in $probes; do
    limit=60
    [ "$p" = memory ] && limit=120
    run "$p" $limit "$bin/probe_$p"
done

# Which driver functions do runtime programs look up and call? Rows come from the preloaded counter.
calls() { # calls NAME COMMAND...
    local name=$1
    shift
    say "calls of $name"
    PROBE_CALLS_NAME=$name PROBE_CALLS_OUT=$out/probe.tsv LD_PRELOAD=$PWD/$bin/libprobe-calls.so \
        timeout -k 5 90 "$@" >>"$out/log.txt" 2>&1
    printf 'driver\tcalls.%s\texit %d\n' "$name" $? >>"$out/probe.tsv"
}
if [ -e "$bin/libprobe-calls.so" ]; then
    for kind in shared static; do
        for what in set malloc launch async info properties reset; do
            [ -x "$bin/runtime-$kind" ] && calls "runtime-$kind.$what" "$bin/runtime-$kind" "$what"
        done
    done
    if python3 -c 'import torch' 2>>"$out/log.txt"; then
        calls torch python3 tests/gpu/torch_matmul.py
        PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True \
            calls torch-expandable python3 tests/gpu/torch_matmul.py
    fi
    command -v nvidia-smi >/dev/null && calls nvidia-smi nvidia-smi
fi
wc -l "$out/probe.tsv" | tee -a "$out/log.txt"
