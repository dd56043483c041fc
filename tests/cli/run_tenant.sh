#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who shares a budget with whom: names of tenants, and a run within a run.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
made='run-[0-9]+-[0-9a-f]{8}'

try "$softslice" run --vram 1GiB -- printenv SOFTSLICE_TENANT
expect_out "^$made\$"
first=$out
try "$softslice" run --vram 1GiB -- printenv SOFTSLICE_TENANT
expect_out "^$made\$"
[ "$out" != "$first" ] || fail "two runs have the same tenant"

# A name that somebody gave stays, whoever it was.
try env SOFTSLICE_TENANT=team "$softslice" run --vram 1GiB -- printenv SOFTSLICE_TENANT
expect_out '^team$'
try env SOFTSLICE_TENANT=team "$softslice" run --tenant mine --vram 1GiB -- printenv SOFTSLICE_TENANT
expect_out '^mine$'
printf '[softslice]\ntenant = filed\nvram = 1GiB\n' >"$TEST_TMP/a.ini"
try "$softslice" run --config "$TEST_TMP/a.ini" -- sh -c 'echo "tenant ${SOFTSLICE_TENANT-of the file}"'
expect_out '^tenant of the file$'

# Within a run: a budget of its own is a tenant of its own; without one it belongs to the outer run.
nested='echo "$SOFTSLICE_TENANT"; exec "$0" run "$@" -- sh -c "echo \$SOFTSLICE_TENANT \$SOFTSLICE_VRAM \$SOFTSLICE_COMPUTE"'
try "$softslice" run --vram 2GiB --compute 50% -- sh -c "$nested" "$softslice" --vram 1GiB
expect_out "^$made 1GiB 50%\$"
[ "$(printf '%s\n' "$out" | cut -d' ' -f1 | sort -u | wc -l)" = 2 ] || fail "expected two tenants"
try "$softslice" run --vram 2GiB --compute 50% -- sh -c "$nested" "$softslice"
expect_out "^$made 2GiB 50%\$"
[ "$(printf '%s\n' "$out" | cut -d' ' -f1 | sort -u | wc -l)" = 1 ] || fail "expected one tenant"
try "$softslice" run --tenant team --vram 2GiB -- sh -c "$nested" "$softslice" --vram 1GiB
expect_out '^team 1GiB *$'
try "$softslice" run --vram 2GiB -- "$softslice" run --vram 1GiB -- printenv LD_PRELOAD
expect_out "^$TEST_LIB\$"
done_testing
