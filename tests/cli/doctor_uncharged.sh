#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `softslice doctor` names processes on the GPUs that should be held to a budget and are not, and no others.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

# start NAME COMMAND...: what holds 64 MiB until `stop NAME`.
start() {
    name=$1
    shift
    mkfifo "$TEST_TMP/hold-$name" "$TEST_TMP/told-$name"
    "$@" python3 "$(dirname "$0")/taker.py" 64 <"$TEST_TMP/hold-$name" >"$TEST_TMP/told-$name" 2>&1 &
    pid=$!
}
told() {
    read -r told <"$TEST_TMP/told-$1"
    [ "$told" = 64 ] || fail "$1 says '$told'"
}

try "$softslice" doctor
expect_no_out 'Processes on the GPUs'

start held "$softslice" run --vram 1GiB --
exec 3>"$TEST_TMP/hold-held"
told held
try "$softslice" doctor
expect_status 0
expect_no_out 'Processes on the GPUs'

# Nothing to do with softslice, as far as can be seen.
start stranger env
exec 4>"$TEST_TMP/hold-stranger"
told stranger
try "$softslice" doctor
expect_out 'of the processes on the GPUs 1 is held by softslice, 1 has nothing to do with it, of 0'
expect_no_out 'no budget is charged'

# Meant to be held: a limit in the environment, no library.
start lost env SOFTSLICE_VRAM=1GiB
lost=$pid
exec 5>"$TEST_TMP/hold-lost"
told lost
try "$softslice" doctor
expect_status 0
expect_out "^  note +GPU 0: process $lost \\(python3.*\\) has [0-9.]+ MiB that no budget is charged for: the library is not in it"
[ "$(printf '%s\n' "$out" | grep -c 'no budget is charged')" = 1 ] || fail "expected one"

# The library is there, and the driver in front of it: a program that is linked with the driver finds that first.
mkfifo "$TEST_TMP/hold-past" "$TEST_TMP/told-past"
env SOFTSLICE_VRAM=1GiB "LD_PRELOAD=$TEST_SIM/libcuda.so.1:$TEST_LIB" "$TEST_BUILD/tests/programs/taker" 64 - \
    <"$TEST_TMP/hold-past" >"$TEST_TMP/told-past" 2>&1 &
past=$!
exec 6>"$TEST_TMP/hold-past"
read -r told <"$TEST_TMP/told-past"
[ "$told" = 'taken 64' ] || fail "it says '$told'"
try "$softslice" doctor
expect_out "process $past \\(taker\\) has .* that no budget is charged for: it has the library and calls the driver past it"
exec 3>&- 4>&- 5>&- 6>&-
wait
done_testing
