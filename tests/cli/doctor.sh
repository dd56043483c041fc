#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `softslice doctor` on the simulated GPU: every hook by every road, the GPUs, and the limits of the environment.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

try env SOFTSIM_GPUS=2 "$softslice" doctor
expect_status 0
expect_quiet
expect_out '^  ok +.*libsoftslice.so is preloaded, and linked programs bind to it$'
expect_out "^  ok +the CUDA driver: $TEST_SIM/libcuda.so.1\$"
expect_out '^  ok +CUDA: [0-9]+ of [0-9]+ entry points bind linked, by dlsym and by cuGetProcAddress'
expect_out '^  ok +NVML: ([0-9]+) of \1 entry points bind'
expect_out '^  ok +GPU 1: Simulated GPU, GPU-[-0-9a-f]{36}, '
expect_out '^  ok +.* works \([0-9.]+ [KMGT]?i?B free\)$'
expect_out '^  note +GPU 0: no VRAM limit$'
expect_out '^[0-9]+ ok, [0-9]+ notes, 0 problems$'
expect_no_out '^  problem'

# Each entry point: none is left bare, and whatever this driver has is bound by every road.
rows=$(grep -ch '^HOOK(' shim/hooks.def shim/nvml.def | awk '{sum += $1} END {print sum}')
try "$softslice" doctor --all
expect_status 0
shown=$(printf '%s\n' "$out" | grep -c ' linked bound ')
[ "$shown" = "$rows" ] || fail "expected $rows rows that are bound when linked, not $shown"
expect_out ' cuMemAlloc_v2 +linked bound +dlsym bound +cuGetProcAddress bound$'
expect_no_out BARE

# The environment's own limits, and whether they are for GPUs that are here.
try env SOFTSLICE_VRAM=25% "$softslice" doctor
expect_status 0
expect_out '^  ok +GPU 0: VRAM 4 GiB \(SOFTSLICE_VRAM\)$'
expect_out 'armed here: VRAM yes, compute no'
try env SOFTSLICE_VRAM=17GiB "$softslice" doctor
expect_status 0
expect_out '^  note +GPU 0: VRAM 17 GiB \(SOFTSLICE_VRAM\): more than the card has$'
try env SOFTSLICE_VRAM=1=4GiB "$softslice" doctor
expect_status 1
expect_out '^  problem +SOFTSLICE_VRAM: 1=4 GiB: there is no such GPU here$'
expect_out ', 1 problem$'
try "$softslice" run --vram 1GiB -- "$softslice" doctor
expect_status 0
expect_out "softslice is active: LD_PRELOAD=$TEST_LIB\$"

# Preloaded without the variable, as /etc/ld.so.preload does. The probe, which would start the loader once more, is of no interest here.
loader=$(readelf -lW "$softslice" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
try "$loader" --preload "$TEST_LIB" "$softslice" doctor --library "$TEST_LIB"
expect_out '^  ok +softslice is active: the loader preloads it without LD_PRELOAD$'

# A state directory without room for another ledger, where a file system can be made that small.
if unshare -rm mount -t tmpfs none "$TEST_TMP" 2>/dev/null; then
    mkdir "$TEST_TMP/small"
    # shellcheck disable=SC2016  # for the inner shell
    try env SOFTSLICE_STATE_DIR="$TEST_TMP/small" unshare -rm \
        sh -c 'mount -t tmpfs -o size=512k none "$SOFTSLICE_STATE_DIR" && "$1" doctor' sh "$softslice"
    expect_status 1
    expect_out '^  problem +.*/small has less than 1 MiB free'
fi

# A share of GPU time is told with who said it, and what the mode makes of it.
try env SOFTSLICE_COMPUTE=0=12.5% SOFTSLICE_MODE=share "$softslice" doctor
expect_status 0
expect_out '^  ok +GPU 0: 12.5% of its time, and what others leave \(SOFTSLICE_COMPUTE\)$'
expect_no_out 'GPU 1: .* of its time'

# A driver that does not start, and one that shows nothing.
try env SOFTSIM_FAIL=cuInit:1+:999 "$softslice" doctor
expect_status 1
expect_out '^  problem +CUDA does not start: CUDA_ERROR_UNKNOWN'
done_testing
