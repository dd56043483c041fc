#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `softslice doctor` names the limits that MPS, the driver and the kernel keep, and says which one counts.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
mps=CUDA_MPS_PINNED_DEVICE_MEM_LIMIT

mkdir "$TEST_TMP/none" "$TEST_TMP/pipes"
: >"$TEST_TMP/pipes/control"

# Without a control daemon the variable limits nothing.
try env "CUDA_MPS_PIPE_DIRECTORY=$TEST_TMP/none" $mps=0=1G SOFTSLICE_VRAM=2GiB "$softslice" doctor
expect_status 0
expect_out "^  note +$mps=0=1G: there is no MPS control daemon here, so it limits nothing\$"
expect_out '^  ok +GPU 0: VRAM 2 GiB \(SOFTSLICE_VRAM\)$'
expect_no_out 'MPS allows'

# With one the smaller counts; the GPU is shown as it is.
export "CUDA_MPS_PIPE_DIRECTORY=$TEST_TMP/pipes"
try env $mps=0=1G,1=512MB SOFTSIM_GPUS=2 SOFTSLICE_VRAM=0=2GiB,1=256MiB "$softslice" doctor
expect_status 0
expect_out "^  note +an MPS control daemon has its pipe in $TEST_TMP/pipes"
expect_out '^  ok +GPU 0: Simulated GPU, GPU-[-0-9a-f]{36}, 16 GiB$'
expect_out "^  note +GPU 0: MPS allows 1 GiB \\($mps\\): it counts, for it is the smallest\$"
expect_out "^  note +GPU 1: MPS allows 512 MiB \\($mps\\): a smaller one counts\$"
try env $mps=0=1G "$softslice" doctor
expect_status 0
expect_out '^  note +GPU 0: no VRAM limit$'
expect_out '^  note +GPU 0: MPS allows 1 GiB .*: nobody else limits it$'
try env $mps=nonsense "$softslice" doctor
expect_status 0
expect_no_out 'MPS allows'

# The driver's own, of r615.
export SOFTSIM_DRIVER_VERSION=13040
try env SOFTSIM_MEMORY_LIMITS=0:1073741824 SOFTSLICE_VRAM=2GiB "$softslice" doctor
expect_status 0
expect_out '^  note +GPU 0: the driver allows 1 GiB to /sys/fs/cgroup.*: it counts, for it is the smallest$'
try env SOFTSIM_MEMORY_LIMITS=0:1073741824 $mps=0=512M SOFTSLICE_VRAM=2GiB "$softslice" doctor
expect_status 0
expect_out '^  note +GPU 0: MPS allows 512 MiB .*: it counts, for it is the smallest$'
expect_out '^  note +GPU 0: the driver allows 1 GiB to .*: a smaller one counts$'
try env SOFTSLICE_VRAM=2GiB "$softslice" doctor
expect_status 0
expect_no_out 'the driver allows'

# What the kernel's controller says, where a name space can show another /sys/fs/cgroup.
group=$(sed -n 's/^0::\/*//p' /proc/self/cgroup)
case $group in ..*) group= ;; esac
if unshare -rm mount -t tmpfs none /sys/fs/cgroup 2>/dev/null; then
    # shellcheck disable=SC2016  # for the inner shell
    try unshare -rm sh -c 'mount -t tmpfs none /sys/fs/cgroup && mkdir -p "/sys/fs/cgroup/$1/x" &&
        printf "drm/0000:03:00.0/vram0 8589934592\ndrm/0000:04:00.0/vram0 max\n" >"/sys/fs/cgroup/$1/dmem.max" && "$2" doctor' \
        sh "$group" "$softslice"
    expect_status 0
    expect_out '^  note +/sys/fs/cgroup.*/dmem.max: 8 GiB for drm/0000:03:00.0/vram0: where the driver keeps to it'
    expect_no_out '0000:04:00.0'
fi
done_testing
