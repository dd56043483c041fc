#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Where the library is looked for, and what is said when it is not to be had.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

# preload PLACE: the command in PLACE, and which library it takes.
preload() { try "$@" run --vram 1GiB -- printenv LD_PRELOAD; }
expect_library() {
    expect_status 0
    expect_quiet
    [ "$out" = "$1" ] || fail "expected the library $1"
}

preload "$softslice"
expect_library "$TEST_LIB"

mkdir -p "$TEST_TMP/installed/bin" "$TEST_TMP/installed/lib/softslice" "$TEST_TMP/alone" "$TEST_TMP/other"
cp "$softslice" "$TEST_TMP/installed/bin/"
cp "$softslice" "$TEST_TMP/alone/"
cp "$TEST_LIB" "$TEST_TMP/installed/lib/softslice/"
cp "$TEST_LIB" "$TEST_TMP/other/renamed.so"
preload "$TEST_TMP/installed/bin/softslice"
expect_library "$TEST_TMP/installed/lib/softslice/libsoftslice.so"
ln -s "$TEST_TMP/installed/bin/softslice" "$TEST_TMP/link"
preload "$TEST_TMP/link"
expect_library "$TEST_TMP/installed/lib/softslice/libsoftslice.so"

if [ ! -e /usr/local/lib/softslice/libsoftslice.so ]; then
    preload "$TEST_TMP/alone/softslice"
    expect_refusal "libsoftslice.so is not in $TEST_TMP/alone, .*make.*--library"
fi
preload env SOFTSLICE_LIBRARY="$TEST_TMP/other/renamed.so" "$TEST_TMP/alone/softslice"
expect_library "$TEST_TMP/other/renamed.so"
try env SOFTSLICE_LIBRARY="$TEST_LIB" "$softslice" run --library "$TEST_TMP/other/renamed.so" --vram 1GiB -- printenv LD_PRELOAD
expect_library "$TEST_TMP/other/renamed.so"
try sh -c 'cd "$1/other" && exec "$2" run --library renamed.so --vram 1GiB -- printenv LD_PRELOAD' sh "$TEST_TMP" "$softslice"
expect_library "$TEST_TMP/other/renamed.so"

try "$softslice" run --library "$TEST_TMP/none.so" --vram 1GiB -- echo started
expect_refusal "--library: $TEST_TMP/none.so: No such file"
echo text >"$TEST_TMP/text.so"
try "$softslice" run --library "$TEST_TMP/text.so" --vram 1GiB -- echo started
expect_refusal 'not a shared library'
try "$softslice" run --library "$TEST_TMP" --vram 1GiB -- echo started
expect_refusal 'not a regular file'
# Other libraries and programs would leave the program without a limit.
for other in "$TEST_SIM/libcuda.so.1" "$softslice"; do
    try "$softslice" run --library "$other" --vram 1GiB -- echo started
    expect_refusal 'not libsoftslice.so'
done

# ld.so would split or expand these.
for name in 'a b' 'a:b' 'a$ORIGIN'; do
    mkdir "$TEST_TMP/$name"
    cp "$TEST_LIB" "$TEST_TMP/$name/libsoftslice.so"
    try "$softslice" run --library "$TEST_TMP/$name/libsoftslice.so" --vram 1GiB -- echo started
    expect_refusal 'which LD_PRELOAD cannot take'
done
done_testing
