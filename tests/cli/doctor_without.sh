#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `softslice doctor` where something is missing or wrong: it says what, and goes on with the rest.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

if ! /sbin/ldconfig -p | grep -q 'libcuda\.so\.1 '; then
    try env -u LD_LIBRARY_PATH "$softslice" doctor
    expect_status 1
    expect_quiet
    expect_out '^  ok +.* is preloaded, and linked programs bind to it$'
    expect_out '^  problem +no driver: libcuda.so.1: .*install the NVIDIA driver'
    expect_out '^[0-9]+ ok, [0-9]+ notes, 1 problem$'
fi

try env SOFTSLICE_VRAM=3GB "$softslice" doctor
expect_status 1
expect_out "^  problem +SOFTSLICE_VRAM='3GB'"
expect_out '^  ok +GPU 0: '
try env SOFTSLICE_STATE_DIR="$TEST_TMP/none" "$softslice" doctor
expect_status 1
expect_out "^  problem +state directory $TEST_TMP/none: does not exist\$"

# Its own output fits into the limit, a ledger does not.
try prlimit --fsize=4096 "$softslice" doctor
expect_status 1
expect_out '^  problem +cannot create the ledger .*ulimit -f'

mkdir "$TEST_TMP/alone"
cp "$softslice" "$TEST_TMP/alone/"
if [ ! -e /usr/local/lib/softslice/libsoftslice.so ]; then
    try "$TEST_TMP/alone/softslice" doctor
    expect_status 1
    expect_out '^  problem +libsoftslice.so is not in '
fi

try "$softslice" doctor --library "$TEST_SIM/libnvidia-ml.so.1"
expect_status 1
expect_out '^  problem +--library: .*: not libsoftslice.so$'
# One that has only the name of ours is preloaded but stands in front of nothing.
echo 'int nothing;' >"$TEST_TMP/empty.c"
${CC:-cc} -shared -fPIC -Wl,-soname,libsoftslice.so -o "$TEST_TMP/empty.so" "$TEST_TMP/empty.c" || exit 1
try "$softslice" doctor --library "$TEST_TMP/empty.so"
expect_status 1
expect_out '^  problem +the loader does not preload '
# One that kills every program which loads it.
printf '#include <stdlib.h>\n__attribute__((constructor)) static void die(void) { abort(); }\n' >"$TEST_TMP/die.c"
${CC:-cc} -shared -fPIC -Wl,-soname,libsoftslice.so -o "$TEST_TMP/die.so" "$TEST_TMP/die.c" || exit 1
try "$softslice" doctor --library "$TEST_TMP/die.so"
expect_status 1
expect_out '^  problem +.* killed by signal 6 '

try "$softslice" doctor extra
expect_status 125
done_testing
