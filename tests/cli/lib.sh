# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the tests of the command share. tests/run gives TEST_COMMAND, TEST_LIB, TEST_SIM and TEST_TMP. Each `try` runs one command, and the
# expectations after it are about that one; the first that does not hold ends the test.
set -u
# shellcheck disable=SC2034  # for the tests
softslice=$TEST_COMMAND
# shellcheck disable=SC2034  # for the tests
taker="python3 $(dirname "$0")/taker.py"
cases=0

# try COMMAND...: run it; leaves its exit status in $status, its output in $out and $err.
try() {
    cases=$((cases + 1))
    tried="$*"
    status=0
    "$@" >"$TEST_TMP/out" 2>"$TEST_TMP/err" || status=$?
    out=$(cat "$TEST_TMP/out")
    err=$(cat "$TEST_TMP/err")
}

fail() {
    printf 'FAILED: %s\n  tried: %s\n  exit status: %s\n  output: %s\n  error output: %s\n' "$1" "$tried" "$status" "$out" "$err"
    exit 1
}

expect_status() { [ "$status" = "$1" ] || fail "expected exit status $1"; }
expect_out() { printf '%s\n' "$out" | grep -Eq -e "$1" || fail "expected in the output: $1"; }
expect_no_out() { ! printf '%s\n' "$out" | grep -Eq -e "$1" || fail "not expected in the output: $1"; }
expect_err() { printf '%s\n' "$err" | grep -Eq -e "$1" || fail "expected in the error output: $1"; }
expect_quiet() { [ -z "$err" ] || fail "expected no error output"; }

# One line, "softslice: ...", and the program was not started.
expect_refusal() {
    expect_status 125
    [ "$(printf '%s\n' "$err" | wc -l)" = 1 ] || fail "expected one line of error output"
    expect_err "^softslice: .*$1"
    [ -z "$out" ] || fail "expected no output"
}

# begin OPTION...: what `softslice run OPTION...` starts holds 64 MiB until `end`.
begin() {
    mkfifo "$TEST_TMP/hold" "$TEST_TMP/told"
    "$softslice" run "$@" -- sh -c "exec $taker 64" <"$TEST_TMP/hold" >"$TEST_TMP/told" 2>&1 &
    member=$!
    exec 3>"$TEST_TMP/hold" 4<"$TEST_TMP/told"
    read -r told <&4
    [ "$told" = 64 ] || fail "the member says '$told'"
}

end() {
    exec 3>&- 4<&-
    wait "$member"
    rm "$TEST_TMP/hold" "$TEST_TMP/told"
}

done_testing() {
    [ "$cases" -gt 0 ] || exit 1
    echo "$cases cases passed"
}
