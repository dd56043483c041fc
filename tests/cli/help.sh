#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# version, help, and what is said to a command that there is not.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

for word in version --version -V; do
    try "$softslice" $word
    expect_status 0
    expect_out '^softslice [0-9]+\.[0-9]+\.[0-9]+ '
done
for word in help --help -h; do
    try "$softslice" $word
    expect_status 0
    for command in run set status events explain top exporter cdi config doctor version help; do
        expect_out "^    $command +[a-z]"
    done
done
for command in run set status events explain top exporter cdi config doctor version help; do
    try "$softslice" help $command
    expect_status 0
    expect_quiet
    expect_out "^softslice $command"
done
for command in run set status events explain top exporter cdi config doctor; do
    try "$softslice" $command --help
    expect_status 0
    expect_out "^softslice $command"
    grep -q "^\.SS softslice $command" docs/man/softslice.1 || fail "softslice.1 does not tell of $command"
done

# Every option of the help stands in the man page, and every option of a command's in its line of usage or where that says "option".
tells() { grep -q -e "$(printf '%s' "$2" | sed 's/-/\\\\-/g')" "docs/man/$1" || fail "$1 does not tell of $2"; }
for command in run set status events explain top exporter cdi doctor; do
    "$softslice" help $command >"$TEST_TMP/help"
    for option in $(grep -oE '^ +(-[a-z], )?--[a-z-]+' "$TEST_TMP/help" | grep -oE -e '--[a-z-]+'); do
        tells softslice.1 "$option"
        sed '/^$/q' "$TEST_TMP/help" | grep -qiE -e "$option|option" || fail "the usage of $command does not have $option"
    done
done
# The same of the device plugin, whose keys stand in two pages.
plugin=${softslice%/*}/softslice-device-plugin
try "$plugin" --help
expect_status 0
for option in $(printf '%s' "$out" | grep -oE -e '--[a-z-]+'); do
    tells softslice-device-plugin.1 "$option"
done
try "$plugin" --nonsense
expect_refusal "unknown or ambiguous option '--nonsense': see --help"
for key in $(sed -nE 's/.*strcmp\(key, "([a-z_]+)"\).*/\1/p' plugin/config.c); do
    grep -qE "^\| .*\`$key\`" docs/kubernetes.md || fail "docs/kubernetes.md does not tell of $key"
    grep -qE "^\.BR? .*\b$key\b" docs/man/softslice-device-plugin.1 || fail "softslice-device-plugin.1 does not tell of $key"
done

try "$softslice" status --json=pretty
expect_refusal "status: option '--json' takes no value: see 'softslice help status'"
try "$softslice" run --vram=1GiB -xh
expect_refusal "run: unknown option '-x': see 'softslice help run'"

try "$softslice" rnu
expect_refusal "did you mean 'run'\?"
try "$softslice" stat
expect_refusal "did you mean 'status'\?"
try "$softslice" python train.py
expect_refusal "there is no command 'python'.*softslice run -- python"
try "$softslice" help nonsense
expect_status 125
try "$softslice"
expect_status 125
expect_err 'no command given'
try sh -c '"$1" help >/dev/full' sh "$softslice"
expect_status 125
expect_err 'cannot write to standard output'
# Control characters of an argument do not reach the terminal.
try "$softslice" "$(printf 'a\033[31mb')"
expect_refusal 'a\?\[31mb'
done_testing
