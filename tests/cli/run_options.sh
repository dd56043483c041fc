#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bad options: one line that says what is wrong, and the program does not start.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

for bad in 3GB! 3GB 0 -1GiB 1e9 'nan' 101% 0% 0x10 '1GiB 2GiB' '1GiB,' 0=; do
    try "$softslice" run "--vram=$bad" -- echo started
    expect_refusal "--vram='.*'"
done
# What to write instead is said of what was written.
try "$softslice" run --vram=20GB -- echo started
expect_refusal 'ambiguous, write GiB'
try "$softslice" run --vram=1:20GiB -- echo started
expect_refusal 'per device 0=20GiB'
for bad in 30 1GiB 0% 100.001% x=5%; do
    try "$softslice" run "--compute=$bad" -- echo started
    expect_refusal "--compute='.*'"
done
for bad in 0 10001 1.5 -1 x; do
    try "$softslice" run "--weight=$bad" -- echo started
    expect_refusal "--weight='.*'"
done
for bad in .hidden a/b 'a b' "$(printf '%064d' 0)"; do
    try "$softslice" run "--tenant=$bad" --vram 1GiB -- echo started
    expect_refusal "--tenant='.*'"
done

for bad in 1 capped; do
    try "$softslice" run "--mode=$bad" --compute 30% -- echo started
    expect_refusal "--mode='$bad'"
done
try env SOFTSLICE_MODE=cap "$softslice" run --mode share --compute 30% -- printenv SOFTSLICE_MODE
expect_status 0
expect_out '^share$'
try "$softslice" run --mode share -- echo started
expect_refusal 'no limit is set'

for option in --vram --compute --weight --mode --tenant --config; do
    try "$softslice" run "$option=" -- echo started
    expect_refusal "$option: the value is empty"
    try "$softslice" run "$option"
    expect_refusal "'$option' needs a value"
done

# Twice: lists add up, and one device twice is an error; what is not a list is one.
try "$softslice" run --vram 1GiB --vram 2GiB -- echo started
expect_refusal 'two limits for all devices'
try "$softslice" run --vram 0=1GiB --vram 1=2GiB -- printenv SOFTSLICE_VRAM
expect_status 0
expect_out '^0=1GiB,1=2GiB$'
for option in --weight --mode --tenant --config; do
    try "$softslice" run "$option" 1 "$option" 1 -- echo started
    expect_refusal "$option is given twice"
done

try "$softslice" run --vran 1GiB -- echo started
expect_refusal "unknown or ambiguous option '--vran'"
try "$softslice" run -x -- echo started
expect_refusal "unknown option '-x'"
try "$softslice" run --vram 1GiB
expect_refusal 'no program given'
try "$softslice" run --vram 1GiB --
expect_refusal 'no program given'
try "$softslice" run echo started
expect_refusal 'no limit is set: give --vram'
try env CUDA_DEVICE_SM_LIMIT=100 "$softslice" run echo started
expect_refusal 'no limit is set'
try "$softslice" run --tenant counted -- echo started
expect_status 0

# What is wrong in the inherited environment is told under its own name; a variable that nobody knows is wrong too.
try env SOFTSLICE_VRAM=3GB "$softslice" run --compute 30% -- echo started
expect_refusal "SOFTSLICE_VRAM='3GB'"
try env SOFTSLICE_VRAMM=3GiB "$softslice" run --vram 1GiB -- echo started
expect_refusal 'did you mean SOFTSLICE_VRAM\?'
try env CUDA_DEVICE_MEMORY_LIMIT=lots "$softslice" run --vram 1GiB -- echo started
expect_refusal 'CUDA_DEVICE_MEMORY_LIMIT'

# The user's word to run on for all that, and to switch softslice off.
try env SOFTSLICE_ON_ERROR=open "$softslice" run --vram 3GB -- echo started
expect_status 0
expect_out '^started$'
expect_err '^softslice: warning: .*running without limits'
try env SOFTSLICE_DISABLE=1 "$softslice" run --vram 3GiB -- echo started
expect_status 0
expect_err '^softslice: warning: .*no limit will hold'

# A file: missing, or with a bad line.
try "$softslice" run --config "$TEST_TMP/none.ini" -- echo started
expect_refusal "$TEST_TMP/none.ini"
printf '[softslice]\nvram = 3GB\n' >"$TEST_TMP/bad.ini"
try "$softslice" run --config "$TEST_TMP/bad.ini" -- echo started
expect_refusal "$TEST_TMP/bad.ini:2: .*ambiguous"
done_testing
