#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a program finds in its environment under `softslice run`.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
other=$TEST_SIM/libnvidia-ml.so.1

try "$softslice" run --vram 1GiB --compute 30% --weight 50 --tenant a -- env
expect_status 0
expect_quiet
expect_out '^SOFTSLICE_VRAM=1GiB$'
expect_out '^SOFTSLICE_COMPUTE=30%$'
expect_out '^SOFTSLICE_WEIGHT=50$'
expect_out '^SOFTSLICE_TENANT=a$'
expect_out "^LD_PRELOAD=$TEST_LIB\$"

# Whatever is preloaded stays, behind the library, and the library is there once.
for list in "$other" "$TEST_LIB:$other" "$other $TEST_LIB" " $other:" "$other:/elsewhere/libsoftslice.so"; do
    try env LD_PRELOAD="$list" "$softslice" run --vram 1GiB -- env
    expect_status 0
    expect_out "^LD_PRELOAD=$TEST_LIB:$other\$"
done

# A variable that names the library is for the command alone, and no setting of the program's.
try env SOFTSLICE_LIBRARY="$TEST_LIB" "$softslice" run --vram 1GiB -- env
expect_status 0
expect_no_out '^SOFTSLICE_LIBRARY='

# Options win over the environment.
try env SOFTSLICE_VRAM=2GiB SOFTSLICE_COMPUTE=10% "$softslice" run --vram 1GiB -- env
expect_out '^SOFTSLICE_VRAM=1GiB$'
expect_out '^SOFTSLICE_COMPUTE=10%$'

# A file is named so that the program finds it from any directory, blanks in the name included.
mkdir "$TEST_TMP/my files"
printf '[softslice]\nvram = 3GiB\n' >"$TEST_TMP/my files/a.ini"
try sh -c 'cd "$1/my files" && "$2" run --config a.ini -- env' sh "$TEST_TMP" "$softslice"
expect_status 0
expect_out "^SOFTSLICE_CONFIG=$TEST_TMP/my files/a.ini\$"
try sh -c 'cd "$1/my files" && SOFTSLICE_CONFIG=a.ini "$2" run -- env' sh "$TEST_TMP" "$softslice"
expect_out "^SOFTSLICE_CONFIG=$TEST_TMP/my files/a.ini\$"

# The library is really in the program.
try "$softslice" run --vram 1GiB -- grep -c "$TEST_LIB" /proc/self/maps
expect_status 0
expect_out '^[1-9]'
done_testing
