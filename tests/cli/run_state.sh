#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A state directory that cannot be used stops the command before the program starts.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

mkdir "$TEST_TMP/real"
ln -s "$TEST_TMP/real" "$TEST_TMP/link"
echo text >"$TEST_TMP/file"
for bad in none link file; do
    try env SOFTSLICE_STATE_DIR="$TEST_TMP/$bad" "$softslice" run --vram 1GiB -- echo started
    expect_refusal "state directory $TEST_TMP/$bad"
done
try env SOFTSLICE_STATE_DIR=real "$softslice" run --vram 1GiB -- echo started
expect_refusal 'must be an absolute path'
try env SOFTSLICE_STATE_DIR="$TEST_TMP/none" SOFTSLICE_ON_ERROR=open "$softslice" run --vram 1GiB -- echo started
expect_status 0
expect_out '^started$'
expect_err 'running without limits'
if unshare -rm mount -t tmpfs none "$TEST_TMP" 2>/dev/null; then
    mkdir "$TEST_TMP/sealed"
    # shellcheck disable=SC2016  # for the inner shell
    sealed='mount -t tmpfs none "$1" && mkdir "$1/team" && mount -o remount,ro "$1" && exec "$2" run --vram 1GiB $3 -- echo started'
    export SOFTSLICE_STATE_DIR="$TEST_TMP/sealed"
    try unshare -rm sh -c "$sealed" sh "$TEST_TMP/sealed" "$softslice" "--tenant other"
    expect_refusal "state directory $TEST_TMP/sealed: cannot write: Read-only file system"
    try unshare -rm sh -c "$sealed" sh "$TEST_TMP/sealed" "$softslice" "--tenant team"
    expect_status 0
    unset SOFTSLICE_STATE_DIR
fi
try env SOFTSLICE_STATE_DIR="$TEST_TMP/real" "$softslice" run --vram 1GiB -- echo started
expect_status 0
expect_quiet
done_testing
