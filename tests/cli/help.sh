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
    for command in run set status events top exporter cdi config doctor version help; do
        expect_out "^    $command +[a-z]"
    done
done
for command in run set status events top exporter cdi config doctor version help; do
    try "$softslice" help $command
    expect_status 0
    expect_quiet
    expect_out "^softslice $command"
done
for command in run set status events cdi config doctor; do
    try "$softslice" $command --help
    expect_status 0
    expect_out "^softslice $command"
    grep -q "^\.SS softslice $command" docs/man/softslice.1 || fail "softslice.1 does not tell of $command"
done

# Every option of the help stands in the man page.
for option in $(for command in run set status events cdi; do "$softslice" help $command; done | grep -oE '^ +(-[a-z], )?--[a-z-]+' |
    grep -oE -e '--[a-z-]+'); do
    grep -q -e "$(printf '%s' "$option" | sed 's/-/\\\\-/g')" docs/man/softslice.1 || fail "softslice.1 does not tell of $option"
done

try "$softslice" rnu
expect_refusal "did you mean 'run'\?"
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
