#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 200
# The library in HAMi's place: under its file name, by its /etc/ld.so.preload, with its mounts and variables and nothing of ours, as the device plugins of HAMi,
# of Volcano and KAI's isolator give them to a container. In a mount namespace of its own.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "${1-}" != inside ]; then
    [ "$(id -u)" = 0 ] || { echo "only root can mount"; exit 77; }
    unshare -m true 2>/dev/null || { echo "this root cannot have mounts of its own"; exit 77; }
    setpriv --reuid 4001 --regid 4001 --clear-groups true 2>/dev/null || { echo "this root cannot be other users"; exit 77; }
    exec unshare -m --propagation private sh "$0" inside
fi

# ---- the node and the container

here=$(cd "$(dirname "$0")" && pwd)
base=/usr/local
mount -t tmpfs -o mode=755 tmpfs $base && mkdir $base/bin $base/sim $base/node $base/run $base/vgpu $base/work || exit 1
cp -a /etc $base/etc || exit 1
cp "$TEST_BUILD/tests/programs/taker" "$softslice" "$here/hami_cache.py" $base/bin && cp "$TEST_SIM"/*.so.1 $base/sim || exit 1
cp "$TEST_LIB" $base/node/libvgpu.so.2.10.0
TEST_TMP=$base/work # the other one may be below what is mounted over
mount --bind $base/etc /etc && mount -t tmpfs -o mode=1777 tmpfs /dev/shm || exit 1
for uid in 0 4001; do
    mkdir $base/run/$uid && chown $uid $base/run/$uid
done
uuid=3f1f7e1c-0d6c-4c52-8c55-51b1a7c8f001
unset SOFTSLICE_STATE_DIR SOFTSIM_STATE LD_LIBRARY_PATH TMPDIR
# The driver is found by the dynamic linker's own means, for the environment is the container's.
echo $base/sim >/etc/ld.so.conf.d/0-driver.conf && ldconfig 2>/dev/null || exit 1

# container UID NAME=VALUE... -- COMMAND...: as the container's process of that user.
container() {
    uid=$1
    shift
    env -i PATH="$PATH" SOFTSIM_STATE=$base/run/"$uid"/gpu SOFTSIM_MEM=8589934592 SOFTSIM_CONTEXT_BYTES=104857600 NVIDIA_VISIBLE_DEVICES=all \
        LIBCUDA_LOG_LEVEL=1 setpriv --reuid "$uid" --regid "$uid" --clear-groups env "$@"
}

# hold UID NAME=VALUE...: a process that takes 2000 MiB and waits.
hold() {
    mkfifo "$TEST_TMP/end"
    container "$@" $base/bin/taker 1984 - <"$TEST_TMP/end" >"$TEST_TMP/taken" 2>"$TEST_TMP/said" &
    holder=$!
    exec 3>"$TEST_TMP/end"
    until [ -s "$TEST_TMP/taken" ]; do
        kill -0 $holder || fail "the first process ended: $(cat "$TEST_TMP/said")"
        sleep 0.05
    done
    [ "$(cat "$TEST_TMP/taken")" = "taken 1984" ] || fail "the first process has '$(cat "$TEST_TMP/taken")'"
}

end() {
    exec 3>&-
    wait $holder
    rm "$TEST_TMP/end" "$TEST_TMP/taken"
}

# told FILE CONDITION: waits until the monitor, reading FILE, finds that.
told() {
    python3 - "$1" "$2" <<'EOF' || fail "the monitor does not find: $2"
import sys, time
sys.path.insert(0, "/usr/local/bin")
import hami_cache
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        cache = hami_cache.Cache(sys.argv[1])
        if eval(sys.argv[2]):
            sys.exit(0)
    except hami_cache.NotThere as error:
        print(error)
    time.sleep(0.05)
sys.exit(1)
EOF
}

# What a container's processes have, whoever is who: 3000 MiB together, of which the first has 2084 and a second one's context takes 100.
expect_one_budget() {
    try container 4001 "$@" $base/bin/taker 4000
    expect_status 0
    expect_out '^taken 768$'
    expect_err '^softslice: .*refused 64 MiB'
}

# expect_found TENANT NAME=VALUE...: the command, started as the container's process, finds the tenant of the container's processes by itself.
expect_found() {
    tenant=$1
    shift
    for word in status "status --tenant $tenant" "explain $tenant" "set $tenant vram=3000MiB" events; do
        # shellcheck disable=SC2086
        try container 0 "$@" $base/bin/softslice $word
        expect_status 0
        expect_out "$tenant|was 3000 MiB"
    done
}

# What nvidia-smi would show: MiB in all, and free.
memory='
import ctypes
nvml, device, memory = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
assert nvml.nvmlInit_v2() == nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0
print(memory[0] >> 20, memory[1] >> 20)'

# Programs that have nothing to do with a GPU say nothing and leave nothing.
expect_quiet_programs() {
    try container 0 "$@" sh -c 'ls / && cat /dev/null && env -i /bin/true'
    expect_status 0
    expect_quiet
}

# ---- HAMi's device plugin

mkdir -m 777 $base/node/ctr
touch $base/node/ctr/libvgpu.so # the runtime's mount point
mount --bind $base/node/ctr $base/vgpu && mount --bind $base/node/libvgpu.so.2.10.0 $base/vgpu/libvgpu.so || exit 1
mount -o remount,bind,ro $base/vgpu/libvgpu.so || exit 1
echo $base/vgpu/libvgpu.so >/etc/ld.so.preload
cache=$base/vgpu/$uuid.cache
set -- CUDA_DEVICE_MEMORY_LIMIT_0=3000m CUDA_DEVICE_SM_LIMIT=30 CUDA_DEVICE_MEMORY_SHARED_CACHE=$cache CUDA_TASK_PRIORITY=1 CUDA_OVERSUBSCRIBE=true
expect_quiet_programs "$@"
if [ -e "$cache" ] || [ -e /dev/shm/softslice-hami ]; then fail "something was made for a program without CUDA"; fi
try container 4001 "$@" python3 -c "$memory"
expect_out '^3000 3000$'
hold 0 "$@"
try container 4001 "$@" python3 -c "$memory"
expect_out '^3000 916$'
told "$cache" "cache.used(0) == 2084 << 20 and cache.limit(0) == 3000 << 20 and cache.share(0) == 30 and len(cache.uuids()) == 1"
expect_one_budget "$@"
told "$base/node/ctr/$uuid.cache" "len(cache.processes()) == 1" # where the monitor looks for it, without the second process
expect_found "hami-$uuid" "$@"
try container 0 "$@" $base/bin/softslice status
expect_out ' 2.04 GiB +2.93 GiB .* 30% '
try container 0 "$@" $base/bin/softslice doctor --library $base/vgpu/libvgpu.so
expect_out '^  ok +softslice is active: the loader preloads it'
expect_out '^  ok +/usr/local/vgpu/libvgpu.so is preloaded, and linked programs bind to it'
expect_out '^  ok +GPU 0: VRAM 3000 MiB'
end
told "$cache" "not cache.processes() and not cache.used(0)"
# A user's program that finds fault with a limit does not run without one.
try container 0 "$@" CUDA_DEVICE_MEMORY_LIMIT_0=3000MB $base/bin/taker 64
[ "$status" != 0 ] || fail "a limit that is not understood was no limit"
expect_err 'CUDA_DEVICE_MEMORY_LIMIT_0'
echo "HAMi's mounts"

# ---- Volcano's: the same, but that the file is elsewhere

rm /etc/ld.so.preload && umount $base/vgpu/libvgpu.so && umount $base/vgpu || exit 1
cp $base/node/libvgpu.so.2.10.0 $base/vgpu/libvgpu.so
echo $base/vgpu/libvgpu.so >/etc/ld.so.preload
mkdir -m 777 $base/node/volcano
cache=$base/node/volcano/$uuid.cache
set -- CUDA_DEVICE_MEMORY_LIMIT_0=3000m CUDA_DEVICE_MEMORY_SHARED_CACHE=$cache
hold 0 "$@"
told "$cache" "cache.used(0) == 2084 << 20 and cache.share(0) == 100"
expect_one_budget "$@"
end
echo "Volcano's mounts"

# ---- KAI's: a limit and no file; the container's own /tmp has it

set -- CUDA_DEVICE_MEMORY_LIMIT=3000m
mount -t tmpfs -o mode=1777 tmpfs /tmp || exit 1
hold 0 "$@"
told /tmp/cudevshr.cache "cache.used(0) == 2084 << 20"
expect_one_budget "$@"
expect_found hami-cudevshr "$@"
try container 0 "$@" $base/bin/softslice config
expect_out '^tenant +hami-cudevshr '
# Nothing else in that container takes another directory for it: a shell without the limit, one that names a tenant, a limit that nobody understands.
for other in CUDA_DEVICE_MEMORY_LIMIT= SOFTSLICE_TENANT=team CUDA_DEVICE_MEMORY_LIMIT=3000MB; do
    try container 0 "$@" "$other" $base/bin/softslice status
    expect_status 0
    expect_no_out hami-cudevshr
done
end
# Under its own name the library leaves the processes of such a limit apart, as ever.
mkdir $base/own && cp $base/vgpu/libvgpu.so $base/own/libsoftslice.so
echo $base/own/libsoftslice.so >/etc/ld.so.preload
hold 0 "$@"
try container 4001 "$@" $base/bin/taker 2560
expect_out '^taken 2560$'
try container 0 "$@" $base/bin/softslice status
expect_out '^proc-'
end
echo "KAI's mounts"
