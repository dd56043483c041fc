#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_CONTEXT_BYTES=134217728 SOFTSIM_MEM=8589934592 SOFTSLICE_LOG=off
# Budgets of whole commands on the simulated GPU: 8 GiB, a context of 128 MiB, pieces of 64 MiB.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

try sh -c "$taker </dev/null"
expect_out '^8064$'
try "$softslice" run --vram 1GiB -- sh -c "$taker </dev/null"
expect_status 0
expect_out '^896$'
try "$softslice" run --vram 25% -- sh -c "$taker </dev/null"
expect_out '^1920$'
try "$softslice" run --vram 0=1GiB -- sh -c "$taker </dev/null"
expect_out '^896$'

# A device that is not there is refused, not ignored.
try "$softslice" run --vram 7=1GiB -- sh -c "$taker </dev/null"
expect_err '^error '

# Two processes of one command share its budget: the second comes while the first holds all but two contexts.
mkfifo "$TEST_TMP/hold"
try "$softslice" run --vram 1GiB -- sh -c "
    exec 3<>'$TEST_TMP/hold'
    { $taker 640 <'$TEST_TMP/hold' 3>&- & } | {
        read -r first
        echo \$first
        $taker </dev/null
    }"
expect_status 0
expect_out '^640$'
expect_out '^128$'

# A run within a run with a budget of its own is not held to the outer one's.
try "$softslice" run --vram 1GiB -- "$softslice" run --vram 2GiB -- sh -c "$taker </dev/null"
expect_out '^1920$'
try "$softslice" run --vram 2GiB -- "$softslice" run --vram 1GiB -- sh -c "$taker </dev/null"
expect_out '^896$'
done_testing
