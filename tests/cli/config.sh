#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `softslice config`: values, and who said them.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

expect_setting() { expect_out "^$1 +$2 +$3\$"; }

try "$softslice" config
expect_status 0
expect_quiet
expect_setting vram none default
expect_setting weight 100 default
expect_setting on_error closed default
expect_setting state_dir "$SOFTSLICE_STATE_DIR" SOFTSLICE_STATE_DIR

try env SOFTSLICE_VRAM=20480MiB,1=25% SOFTSLICE_MODE=share SOFTSLICE_TENANT=team "$softslice" config
expect_setting vram '20 GiB' SOFTSLICE_VRAM
expect_setting '' '1=25%' SOFTSLICE_VRAM
expect_setting mode share SOFTSLICE_MODE
expect_setting tenant team SOFTSLICE_TENANT

# A file, with a section for the tenant, and variables of other enforcers: each rule with its line.
cat >"$TEST_TMP/user file.ini" <<'INI'
[softslice]
vram = 4GiB
period = 50ms

[tenant team]
vram = 2GiB
INI
try env SOFTSLICE_CONFIG="$TEST_TMP/user file.ini" SOFTSLICE_TENANT=team CUDA_DEVICE_MEMORY_LIMIT_0=3000m NVIDIA_GPU_MEMORY_LIMIT=1000 \
    "$softslice" config
expect_status 0
expect_out "4 GiB +$TEST_TMP/user file.ini:2 \[softslice\], does not count\$"
expect_out "2 GiB +$TEST_TMP/user file.ini:6 \[tenant team\], does not count\$"
expect_out '0=3000 MiB +CUDA_DEVICE_MEMORY_LIMIT_0, does not count$'
expect_out '1000 MiB +NVIDIA_GPU_MEMORY_LIMIT$'
expect_setting period 50ms "$TEST_TMP/user file.ini:3 \[softslice\]"
expect_setting config "$TEST_TMP/user file.ini" SOFTSLICE_CONFIG


# Of several limits those that count: a variable's for the file's, a device's or tenant's for the one for all, the smaller of two enforcers'.
shows() {
    tried="config of $1"
    printf '[softslice]\n%b' "$1" >"$TEST_TMP/counts.ini"
    shift
    try env SOFTSLICE_CONFIG="$TEST_TMP/counts.ini" SOFTSLICE_TENANT=team "$@" "$softslice" config
    expect_status 0
}
shows 'compute = 20%\n' SOFTSLICE_COMPUTE=50%
expect_out '^compute +50% +SOFTSLICE_COMPUTE$'
expect_out '^ +20% .*, does not count$'
shows 'compute = 20%\n' SOFTSLICE_COMPUTE=1=50%
expect_out '1=50% +SOFTSLICE_COMPUTE$'
expect_out ' 20% .*counts.ini:2 \[softslice\]$'
shows 'compute = 1=20%,30%\n' SOFTSLICE_COMPUTE=1=50% CUDA_DEVICE_SM_LIMIT=40
expect_out '1=50% .*, does not count$'
expect_out '1=20% .*, does not count$'
expect_out ' 30% .*counts.ini:2 \[softslice\]$'
expect_out ' 40% +CUDA_DEVICE_SM_LIMIT$'
shows 'vram = 4GiB\n[tenant team]\nvram = 0=8GiB\n'
expect_no_out 'does not count'
# Which is the smaller one of a percentage and of bytes is the GPU's.
shows 'vram = 4GiB\n' SOFTSLICE_VRAM=25% NVIDIA_GPU_MEMORY_LIMIT=1000
expect_out ' 4 GiB .*, does not count$'
expect_out ' 25% +SOFTSLICE_VRAM$'
expect_out ' 1000 MiB +NVIDIA_GPU_MEMORY_LIMIT$'
# The admin's is the most.
if unshare -rm mount -t tmpfs none /etc 2>/dev/null; then
    printf '[softslice]\ncompute = 40%%\nvram = 2GiB\n[tenant team]\nvram = 1GiB\n' >"$TEST_TMP/admin.ini"
    # shellcheck disable=SC2016  # for the inner shell
    sealed='mount -t tmpfs none /etc && mkdir /etc/softslice && cp "$1" /etc/softslice/softslice.ini && chmod 644 /etc/softslice/softslice.ini &&
        exec "$2" config'
    try env SOFTSLICE_TENANT=team SOFTSLICE_COMPUTE=50%,1=30% SOFTSLICE_VRAM=1GiB unshare -rm sh -c "$sealed" sh "$TEST_TMP/admin.ini" "$softslice"
    expect_status 0
    expect_out ' 50% +SOFTSLICE_COMPUTE, does not count$'
    expect_out ' 1=30% +SOFTSLICE_COMPUTE$'
    expect_out ' 40% .*softslice.ini:2 \[softslice\]$'
    expect_out ' 1 GiB +SOFTSLICE_VRAM$'
    expect_out ' 2 GiB .*, does not count$'
    expect_out ' 1 GiB .*softslice.ini:5 \[tenant team\]$'
fi

# Under run it shows what the program is given.
try "$softslice" run --vram 1GiB -- "$softslice" config
expect_setting vram '1 GiB' SOFTSLICE_VRAM
expect_out '^tenant +run-'

try env SOFTSLICE_VRAM=3GB "$softslice" config
expect_status 1
expect_err "^softslice: SOFTSLICE_VRAM='3GB': .*GiB"
expect_no_out .
printf '[softslice]\nvram = 1GiB\nvram = 2GiB\n' >"$TEST_TMP/bad.ini"
try env SOFTSLICE_CONFIG="$TEST_TMP/bad.ini" "$softslice" config
expect_status 1
expect_err "^softslice: $TEST_TMP/bad.ini:3: "
try "$softslice" config extra
expect_status 125
try env SOFTSLICE_LIBRARY="$TEST_LIB" "$softslice" config
expect_status 0
# A limit that MPS keeps, where MPS is.
mkdir "$TEST_TMP/pipes"
try env "CUDA_MPS_PIPE_DIRECTORY=$TEST_TMP/pipes" CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1G "$softslice" config
expect_status 0
expect_no_out MPS
: >"$TEST_TMP/pipes/control"
try env "CUDA_MPS_PIPE_DIRECTORY=$TEST_TMP/pipes" CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1G SOFTSLICE_VRAM=2GiB "$softslice" config
expect_status 0
expect_out '^vram +2 GiB +SOFTSLICE_VRAM$'
expect_out '^ +0=1G +CUDA_MPS_PINNED_DEVICE_MEM_LIMIT, which MPS keeps$'
done_testing
