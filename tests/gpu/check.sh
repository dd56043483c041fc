#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make check-gpu`: the budget and the real frameworks on a machine with a GPU.
#
#   tests/gpu/check.sh [NAME...]     default: every check
#
# Uses build/softslice and build/libsoftslice.so as they are built (a machine without a compiler can be
# given build/). CHECK_BUDGET_MIB (8192) is the budget. CHECK_DRIVER=DIR takes libcuda.so.1 and
# libnvidia-ml.so.1 from DIR, the simulated GPU's for one: then what needs NVIDIA's own is skipped.
# Prints PASS, FAIL or SKIP with a reason for each, and the count last. Exits 1 when one failed, 77
# when none could be run.
set -u
cd "$(dirname "$0")/../.." || exit 1
mib=${CHECK_BUDGET_MIB:-8192}
bytes=$((mib << 20))
bin=build/gpu
log=$bin/check.log
passed=0 failed=0 skipped=0
mkdir -p $bin || exit 1
: >$log
[ -n "${CHECK_DRIVER:-}" ] && export LD_LIBRARY_PATH=$CHECK_DRIVER${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

pass() { passed=$((passed + 1)); echo "PASS $1${2:+: $2}"; }
fail() { failed=$((failed + 1)); echo "FAIL $1: $2"; }
skip() { skipped=$((skipped + 1)); echo "SKIP $1: $2"; }
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ] || exit 1
    [ $passed -gt 0 ] || exit 77
    exit 0
}

# Each program of a check: its output goes to the log, its last line becomes the reason.
attempt() { # attempt NAME SECONDS COMMAND...
    local name=$1 limit=$2 rc
    shift 2
    { echo "== $name: $*"; timeout -k 5 "$limit" "$@" >$bin/out.txt 2>&1; } >>$log 2>&1
    rc=$?
    cat $bin/out.txt >>$log
    last=$(grep -v '^$' $bin/out.txt | tail -n 1 | tr '\t' ' ' | cut -c1-200)
    case $rc in
    0) pass "$name" "$last" ;;
    77) skip "$name" "${last:-no reason given}" ;;
    124 | 137) fail "$name" "still running after $limit s" ;;
    *) fail "$name" "exit $rc: $last" ;;
    esac
    return $rc
}

# Under the budget: "${limited[@]}" [OPTION...] -- COMMAND...
limited=(build/softslice run --vram "${mib}MiB")
state=$(mktemp -d /dev/shm/softslice-check.XXXXXX) || exit 1
trap 'rm -rf "$state"' EXIT
export SOFTSLICE_STATE_DIR=$state

wanted() { [ ${#only[@]} -eq 0 ] || [[ " ${only[*]} " == *" $1 "* ]]; }
only=("$@")

for f in build/softslice build/libsoftslice.so; do
    [ -e $f ] && continue
    skip everything "$f is not built"
    finish
done
cuda=${CUDA_HOME:-$(dirname "$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")}
if command -v "${CC:=cc}" >/dev/null && [ -e "$cuda/include/cuda.h" ]; then
    for p in budget families probe_identity; do
        "$CC" -std=gnu11 -D_GNU_SOURCE -O2 -I"$cuda/include" -o $bin/$p tests/gpu/$p.c \
            tests/gpu/probe.c -ldl -lpthread >>$log 2>&1 || fail build "cannot build $p, see $log"
    done
fi
if command -v nvcc >/dev/null; then
    for kind in shared static; do
        nvcc -O2 -cudart $kind -arch=all-major -o $bin/runtime-$kind tests/gpu/runtime.cu >>$log 2>&1
    done
fi
if [ ! -x $bin/budget ]; then
    skip everything "no C compiler, and no prebuilt $bin/budget"
    finish
fi
$bin/budget take 1 1 >$bin/out.txt 2>&1
if [ $? -eq 77 ]; then
    skip everything "no GPU: $(tail -n 1 $bin/out.txt | cut -f3)"
    finish
fi

driver_api() {
    attempt "doctor" 60 build/softslice doctor
    attempt "largest total of 1 MiB blocks" 120 "${limited[@]}" -- $bin/budget single
    attempt "one story in every size" 60 "${limited[@]}" -- $bin/budget story
    attempt "NVML never shows more than the budget" 150 \
        $bin/budget watch "$mib" "${limited[@]}" -- $bin/budget single
    local family
    for family in plain async virtual array graph; do
        attempt "$family: taken to the budget, and no further" 150 \
            $bin/budget watch "$mib" "${limited[@]}" -- $bin/families $family
    done
    attempt "8 processes x 8 threads race" 90 \
        $bin/budget watch "$mib" "${limited[@]}" --tenant race -- \
        $bin/budget race 10
    attempt "same symbols by both roads" 60 bash -c 'build/softslice run --vram $0MiB -- build/gpu/probe_identity |
        awk -F"\t" "\$2 == \"before_init.different_address\" { n = \$3; seen = 1; print n, \"differ\" }
                    END { exit seen && n == 0 ? 0 : 1 }"' "$mib"
}

# A holder is killed; another process of the tenant must get what it held.
killed_holder() {
    local name="budget of a killed holder comes back" tenant=killed most=$((mib / 2)) pid
    "${limited[@]}" --tenant "$tenant" -- $bin/budget hold $most 60 >$bin/hold.txt 2>&1 &
    pid=$!
    for _ in $(seq 300); do
        grep -q holding $bin/hold.txt && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    if ! grep -q holding $bin/hold.txt; then
        fail "$name" "the holder did not start: $(tail -n 1 $bin/hold.txt)"
        kill -KILL $pid 2>/dev/null
        return
    fi
    if "${limited[@]}" --tenant "$tenant" -- $bin/budget hold $most 0 >>$log 2>&1; then
        fail "$name" "two holders of ${most} MiB and their contexts fitted into ${mib} MiB"
    fi
    kill -KILL $pid
    wait $pid 2>/dev/null
    attempt "$name" 60 "${limited[@]}" --tenant "$tenant" -- $bin/budget take $most 5
}

# Two tenants at once, and a cap alone; the whole table is `make bench-gpu`'s.
compute() {
    if [ ! -x build/tests/share/load ]; then
        skip "compute share" "build/tests/share/load is not built"
        return
    fi
    attempt "compute: a cap of 50 %" 120 tests/share/run --gpu --seconds 3 "alone/async/1 ms/50%"
    attempt "compute: caps of 30 and 70 %" 120 tests/share/run --gpu --seconds 3 "several/cap/1 ms/30"
}

runtime() {
    local kind half=$((bytes / 2)) over=$((bytes + (1 << 30)))
    for kind in shared static; do
        if [ ! -x $bin/runtime-$kind ]; then
            skip "cudart $kind" "no nvcc, and no prebuilt $bin/runtime-$kind"
            continue
        fi
        attempt "cudart $kind: half the budget" 60 "${limited[@]}" -- $bin/runtime-$kind launch $half
        attempt "cudart $kind: refused beyond it" 60 bash -c \
            "${limited[*]} -- $bin/runtime-$kind malloc $over; [ \$? -eq 2 ]"
    done
}

python_checks() {
    local name
    for name in torch cupy cupy_async jax triton numba cuda_python nvidia_ml_py; do
        attempt "$name" 180 "${limited[@]}" -- python3 tests/gpu/frameworks.py $name "$bytes"
    done
    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True attempt "torch with expandable segments" 180 "${limited[@]}" -- \
        python3 tests/gpu/frameworks.py torch "$bytes"
    PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync attempt "torch with cudaMallocAsync" 180 "${limited[@]}" -- \
        python3 tests/gpu/frameworks.py torch "$bytes"
}

nvidia_smi() {
    if ! command -v nvidia-smi >/dev/null; then
        skip nvidia-smi "not installed"
        return
    fi
    attempt "nvidia-smi" 60 bash -c 'total=$(build/softslice run --vram $0MiB -- nvidia-smi --query-gpu=memory.total \
        --format=csv,noheader,nounits -i 0); echo "total $total MiB"; [ "$total" = "$0" ]' "$mib"
}

wanted driver-api && driver_api
wanted killed-holder && killed_holder
wanted compute && compute
if [ -n "${CHECK_DRIVER:-}" ]; then
    skip "CUDA runtime, frameworks, nvidia-smi" "CHECK_DRIVER is not NVIDIA's driver"
else
    wanted runtime && runtime
    wanted frameworks && python_checks
    wanted nvidia-smi && nvidia_smi
fi
finish
