#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Programs that no preloaded library gets into, and a machine without a driver: a warning, and the program runs.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
compiler=${CC:-cc}

expect_one_warning() {
    expect_err "^softslice: warning: .*$1"
    [ "$(printf '%s\n' "$err" | wc -l)" = 1 ] || fail "expected one warning"
}

echo 'int main(void) { return 7; }' >"$TEST_TMP/seven.c"
$compiler -o "$TEST_TMP/dynamic" "$TEST_TMP/seven.c" || exit 1
$compiler -static -o "$TEST_TMP/static" "$TEST_TMP/seven.c" || exit 1
$compiler -static-pie -o "$TEST_TMP/static-pie" "$TEST_TMP/seven.c" || exit 1

try "$softslice" run --vram 1GiB -- "$TEST_TMP/dynamic"
expect_status 7
expect_quiet
for kind in static static-pie; do
    try "$softslice" run --vram 1GiB -- "$TEST_TMP/$kind"
    expect_status 7
    expect_one_warning "$TEST_TMP/$kind is statically linked.*no limit will hold"
done

# Found along PATH, and through a script that it interprets.
try env PATH="$TEST_TMP:$PATH" "$softslice" run --vram 1GiB -- static
expect_one_warning "$TEST_TMP/static is statically linked"
printf '#!%s\n' "$TEST_TMP/static" >"$TEST_TMP/script"
chmod +x "$TEST_TMP/script"
try "$softslice" run --vram 1GiB -- "$TEST_TMP/script"
expect_status 7
expect_one_warning "$TEST_TMP/static is statically linked"

# A program for musl, which need not be installed to tell.
$compiler -Wl,--dynamic-linker=/lib/ld-musl-test.so.1 -o "$TEST_TMP/musl" "$TEST_TMP/seven.c" || exit 1
try "$softslice" run --vram 1GiB -- "$TEST_TMP/musl"
expect_err "^softslice: warning: $TEST_TMP/musl uses musl"

# A real one runs as it would without the library, and is told once where it looks for the driver.
if command -v musl-gcc >/dev/null; then
    cat >"$TEST_TMP/search.c" <<'END'
#include <dlfcn.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    void *all = dlopen(NULL, RTLD_NOW);

    if (!all || dlsym(all, "nobody's") || dlsym(all, "malloc") != (void *)malloc)
        return 1;
    for (int i = 0; argv[1] && i < 3; i++)
        dlsym(all, argv[1]);
    return argc;
}
END
    musl-gcc -o "$TEST_TMP/musl" "$TEST_TMP/search.c" || exit 1
    try "$softslice" run --vram 1GiB -- "$TEST_TMP/musl"
    expect_status 1
    expect_one_warning "$TEST_TMP/musl uses musl"
    try env LD_PRELOAD="$TEST_LIB" SOFTSLICE_VRAM=1GiB "$TEST_TMP/musl" cuMemAlloc_v2
    expect_status 2
    expect_err '^softslice: .* not use glibc, but musl.*no limit holds'
    [ "$(printf '%s\n' "$err" | wc -l)" = 1 ] || fail "it was told more than once"
    try env LD_PRELOAD="$TEST_LIB" "$TEST_TMP/musl" cuMemAlloc_v2
    expect_status 2
    expect_quiet
else
    echo "no musl-gcc: no program of musl's was started"
fi

# Another processor's: byte 18 of an ELF file is the machine.
cp "$TEST_TMP/dynamic" "$TEST_TMP/foreign"
printf '\002' | dd of="$TEST_TMP/foreign" bs=1 seek=18 conv=notrunc 2>/dev/null
try "$softslice" run --vram 1GiB -- "$TEST_TMP/foreign"
expect_err "^softslice: warning: $TEST_TMP/foreign is for another kind of processor"

# Setuid to somebody else; only root can give a file away.
if [ "$(id -u)" = 0 ]; then
    chown 12345 "$TEST_TMP/dynamic"
    chmod 4755 "$TEST_TMP/dynamic"
    try "$softslice" run --vram 1GiB -- "$TEST_TMP/dynamic"
    expect_status 7
    expect_one_warning "$TEST_TMP/dynamic is setuid"
fi

# A tenant's share does not hold for who is started without one.
begin --tenant team --compute 30%
for options in '' '--vram 1GiB'; do
    # shellcheck disable=SC2086  # are several words, or none
    try "$softslice" run --tenant team $options -- sh -c 'exit 7'
    expect_status 7
    expect_one_warning "tenant 'team' has a share.*does not hold for this program.*--compute 30%"
done
for options in '--compute 30%' '--weight 5'; do
    # shellcheck disable=SC2086  # are two words
    try "$softslice" run --tenant team $options -- sh -c 'exit 7'
    expect_status 7
    expect_quiet
done
try env CUDA_DEVICE_SM_LIMIT=30 "$softslice" run --tenant team -- true
expect_quiet
try "$softslice" run --tenant other -- true
expect_quiet
end
try "$softslice" run --tenant team -- true
expect_quiet
begin --tenant team --vram 1GiB
try "$softslice" run --tenant team -- true
expect_quiet
end

# A number without its unit.
for size in 20 0=20 1GiB,1=20; do
    try "$softslice" run --vram "$size" -- sh -c 'exit 7'
    expect_status 7
    expect_one_warning 'a VRAM limit of 20 B .* a unit.*20GiB'
done
for size in 1GiB 1%; do
    try "$softslice" run --vram "$size" -- sh -c 'exit 7'
    expect_quiet
done
try env SOFTSLICE_VRAM=2000 "$softslice" run -- true
expect_one_warning 'VRAM limit of 2000 B'

# No driver. A machine that has one in the loader's own path has it here too.
if ! /sbin/ldconfig -p | grep -q 'libcuda\.so\.1 '; then
    try env -u LD_LIBRARY_PATH "$softslice" run --vram 1GiB -- sh -c 'exit 5'
    expect_status 5
    expect_one_warning 'no NVIDIA driver here.*softslice doctor'
fi
done_testing
