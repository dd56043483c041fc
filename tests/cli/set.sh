#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_CONTEXT_BYTES=134217728 SOFTSIM_MEM=8589934592 SOFTSIM_GPUS=2 SOFTSLICE_LOG=off
# `softslice set`: what a running tenant is changed to holds, and what cannot be is refused with nothing changed.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
uuid='GPU-[0-9a-f-]+'

# What is left of the budget for another process of the tenant, in MiB.
room() { "$softslice" run --tenant team -- sh -c "$taker </dev/null"; }

# Used wrongly: nothing is looked for.
try "$softslice" set
expect_refusal 'no tenant is named'
try "$softslice" set vram=1GiB
expect_refusal 'no tenant is named'
try "$softslice" set team
expect_refusal 'nothing to set'
for bad in vram=3GB vram=0 vram=0% vram=101% vram=none vram=MAX vram=abc vram= vram=0=1GiB compute=0% compute=101% compute=-5 \
    compute=abc compute=30 weight=0 weight=10001 weight=-5 weight=abc weight=1.5 weight= mode=share period=1s tenant; do
    try "$softslice" set team "$bad"
    expect_refusal "${bad%%=*}"
done
try "$softslice" set team vram=1GiB vram=2GiB
expect_refusal 'vram is given twice'
try "$softslice" set team --vram 1GiB vram=2GiB
expect_refusal 'vram is given twice'
try "$softslice" set --compute 30 team
expect_refusal "compute='30': not a share"
try "$softslice" set --compute
expect_refusal 'needs a value'
try "$softslice" set --root /a --state-dir /b team vram=1GiB
expect_refusal 'name two places'
try "$softslice" set --state-dir /a --state-dir /b team vram=1GiB
expect_refusal 'state-dir is given twice'
try "$softslice" set --root '' team vram=1GiB
expect_refusal 'root needs a value'
try "$softslice" set --device x team vram=1GiB
expect_refusal "'x' is not a device"
try "$softslice" set --device
expect_refusal 'needs a value'
for bad in ../team 'a b' .team "$(printf '%064d' 0)"; do
    try "$softslice" set "$bad" --vram 1GiB
    expect_refusal "set: tenant='$bad': not a tenant's name"
done
try env SOFTSLICE_TENANT=../other "$softslice" set team vram=1GiB
expect_err "no tenant 'team'"
# An option is named as it was written, wherever it stands.
for bad in --mode --mode=share --vran; do
    try "$softslice" set team vram=1GiB "$bad" share
    expect_refusal "unknown or ambiguous option '$bad'"
done
try "$softslice" set team vram=1GiB --device
expect_refusal "option '--device' needs a value"
try "$softslice" set team vram=1GiB -d
expect_refusal "option '-d' needs a value"

# Nobody there.
try "$softslice" set team vram=1GiB
expect_status 1
expect_err "^softslice: set: there is no tenant 'team' in $SOFTSLICE_STATE_DIR"

begin --tenant team --vram 1GiB
try room
expect_out '^704$'
try "$softslice" set team vram=512MiB
expect_status 0
expect_quiet
expect_out "^$uuid vram: 512 MiB, was 1 GiB$"
[ "$(printf '%s\n' "$out" | wc -l)" = 2 ] || fail "expected a line for each GPU"
try room
expect_out '^192$'
# More again, on one of the two.
try "$softslice" set --device 0 team vram=2GiB
expect_status 0
expect_out "^$uuid vram: 2 GiB, was 512 MiB$"
[ "$(printf '%s\n' "$out" | wc -l)" = 1 ] || fail "expected a line for one GPU"
device=${out%% *}
try room
expect_out '^1728$'
# NVML's number, whatever is visible here.
try env CUDA_VISIBLE_DEVICES=1 "$softslice" set --device 0 team vram=2GiB
expect_out "^$device vram: 2 GiB, was 2 GiB$"
try "$softslice" set --device "$device" team vram=1GiB
expect_out "^$device vram: 1 GiB, was 2 GiB$"

# As options, before the name or after it.
try "$softslice" set --vram 640MiB team --device "$device"
expect_status 0
expect_out "^$device vram: 640 MiB, was 1 GiB$"
try "$softslice" set team --device="$device" --vram=1GiB
expect_out "^$device vram: 1 GiB, was 640 MiB$"

# Less than is in use: that stays, and no more is granted.
try "$softslice" set team --vram 128MiB
expect_status 0
expect_quiet
expect_out "^$device vram: 128 MiB, was 1 GiB$"
expect_out "^$device vram: current use is 192 MiB: nothing new is granted until it falls below 128 MiB$"
[ "$(printf '%s\n' "$out" | wc -l)" = 3 ] || fail "expected one GPU to be over its budget"
try room
expect_status 1
expect_err 'error 2'
try "$softslice" set team --vram 192MiB
expect_no_out 'nothing new'

# Of the GPU's memory; and no limit but that.
try "$softslice" set team --vram 12.5%
expect_status 0
expect_out "^$device vram: 1 GiB, was 192 MiB$"
try env LD_LIBRARY_PATH=/nowhere "$softslice" set team --vram 50%
expect_status 1
expect_err 'NVML does not say how much memory GPU-.* has: write a size'
try "$softslice" set team vram=max
expect_status 0
expect_out "^$device vram: none, was 1 GiB$"
try room
expect_out '^7872$'
try "$softslice" set team --vram 1GiB
expect_out "^$device vram: 1 GiB, was none$"

# In a directory that is named, and below a root.
try env SOFTSLICE_STATE_DIR=/nowhere "$softslice" set team --state-dir "$SOFTSLICE_STATE_DIR/" --vram 1GiB
expect_status 0
try "$softslice" set --state-dir "$TEST_TMP/none" team --vram 1GiB
expect_status 1
expect_err "state directory $TEST_TMP/none: No such file"
ln -s "$SOFTSLICE_STATE_DIR" "$TEST_TMP/link"
for option in --state-dir --root; do
    try "$softslice" set $option "$TEST_TMP/link/" team --vram 1GiB
    expect_status 1
    expect_err "link/?: .*link"
done
try "$softslice" set --root "$TEST_TMP" team --vram 1GiB
expect_status 0
expect_out "^$device vram: 1 GiB, was 1 GiB$"
try "$softslice" set --root "$TEST_TMP" other --vram 1GiB
expect_status 1
expect_err "^softslice: set: --root $TEST_TMP: there is no tenant 'other'$"
# Where the directory is a container's, its own limits stay, and the command says so.
mkdir -p "$SOFTSLICE_STATE_DIR/.etc/softslice"
printf '[softslice]\ntenant = team\nvram = 768MiB\n' >"$SOFTSLICE_STATE_DIR/.etc/softslice/softslice.ini"
chmod 644 "$SOFTSLICE_STATE_DIR/.etc/softslice/softslice.ini"
try "$softslice" set team --device "$device" --vram 2GiB
expect_status 0
expect_out "^$device vram: 768 MiB holds, for its container is allowed no more$"
try "$softslice" set team --device "$device" --vram 512MiB
expect_no_out holds
rm -r "$SOFTSLICE_STATE_DIR/.etc"
cp -r "$SOFTSLICE_STATE_DIR" "$TEST_TMP/ended"
try "$softslice" set --root "$TEST_TMP" team --vram 1GiB
expect_status 0

# Refused: nothing is changed, of the other value neither.
for change in compute=30% weight=5; do
    try "$softslice" set team $change vram=4GiB
    expect_status 1
    expect_err "^softslice: set: tenant 'team' was started without a share or a weight: "
done
try "$softslice" set --device 7 team vram=4GiB
expect_status 1
expect_err 'NVML shows no GPU 7 here'
try env LD_LIBRARY_PATH=/nowhere "$softslice" set --device 0 team vram=4GiB
expect_status 1
expect_err 'NVML shows no GPU here: name it by its UUID'
try "$softslice" set --device GPU-00000000-0000-0000-0000-000000000001 team vram=4GiB
expect_status 1
expect_err "tenant 'team' uses no GPU GPU-00000000"
try room
expect_out '^704$'
end

# The next life of the tenant begins with its own.
try "$softslice" set team vram=1GiB
expect_status 1
expect_err "^softslice: set: tenant 'team' has ended"
begin --tenant team --vram 1GiB --compute 50%
try "$softslice" set team compute=12.5% weight=200
expect_status 0
expect_out "^$uuid compute: 12.5%, was 50%$"
expect_out "^$uuid weight: 200, was none$"
try "$softslice" set team --weight 100 compute=max
expect_out "^$uuid compute: 100%, was 12.5%$"
expect_out "^$uuid weight: 100, was 200$"
try "$softslice" set team compute=12.5% weight=200
try "$softslice" set team compute=100% weight=1 vram=512MiB
expect_out "^$uuid compute: 100%, was 12.5%$"
expect_out "^$uuid weight: 1, was 200$"
expect_out "^$uuid vram: 512 MiB, was 1 GiB$"

# The admin's file is the maximum.
if unshare -rm mount -t tmpfs none /etc 2>/dev/null; then
    cat >"$TEST_TMP/admin.ini" <<INI
[tenant team]
vram = 2GiB
compute = 60%
weight = 300
INI
    # shellcheck disable=SC2016  # for the inner shell
    sealed='mount -t tmpfs none /etc && mkdir /etc/softslice && cp "$1" /etc/softslice/softslice.ini && chmod 644 /etc/softslice/softslice.ini &&
        shift && exec "$@"'
    for change in vram=3GiB compute=61% weight=301; do
        try unshare -rm sh -c "$sealed" sh "$TEST_TMP/admin.ini" "$softslice" set team vram=256MiB compute=1% weight=2
        expect_status 0
        try unshare -rm sh -c "$sealed" sh "$TEST_TMP/admin.ini" "$softslice" set team $change
        expect_status 1
        expect_err "^softslice: set: ${change%%=*} is above what the admin allows.*softslice.ini"
        try unshare -rm sh -c "$sealed" sh "$TEST_TMP/admin.ini" "$softslice" set team vram=max compute=max
        expect_status 0
        try "$softslice" set team vram=256MiB
        try "$softslice" set team vram=512MiB compute=50% weight=100
        expect_out 'vram: 512 MiB, was 256 MiB'
    done
fi
end

# Several at once: each is done, one after the other.
begin --tenant team --vram 1GiB --compute 50%
setters=
for i in 1 2 3 4 5 6 7 8; do
    "$softslice" set team --vram $i"GiB" --compute $i% --weight $i >"$TEST_TMP/set$i" &
    setters="$setters $!"
done
for setter in $setters; do
    wait "$setter" || fail "a setter among several was refused"
done
try "$softslice" set team --weight 100
[ "$(cat "$TEST_TMP"/set? | grep -c 'vram: .*, was 1 GiB$')" -ge 2 ] || fail "no two began with what there was"
last=${out##*was }
last=${last%%[!0-9]*}
try "$softslice" set team --vram 1GiB --compute 50%
expect_out "vram: 1 GiB, was $last GiB"
expect_out "compute: 50%, was $last%"
end

# Tenants that end meanwhile: changed, or told to have ended, and the next life begins with its own.
(for i in 1 2 3 4 5 6 7 8; do "$softslice" run --tenant brief --vram 1GiB -- sh -c "$taker 64 </dev/null"; done) >"$TEST_TMP/lives" &
lives=$!
while kill -0 $lives 2>/dev/null; do
    try "$softslice" set brief --vram 512MiB
    case $status in
    0) expect_out 'vram: 512 MiB, was' ;;
    1) expect_err "there is no tenant 'brief'|has ended|uses no GPU|has vram armed|has been joining" ;;
    *) fail "changed, or refused" ;;
    esac
done
[ "$(sort -u "$TEST_TMP/lives")" = 64 ] || fail "a life had less than its own: $(cat "$TEST_TMP/lives")"
try "$softslice" run --tenant brief --vram 1GiB -- sh -c "$taker </dev/null"
expect_out '^896$'

# A tenant with compute alone has no budget to change.
begin --tenant team --compute 50%
try "$softslice" set team compute=20%
expect_status 0
end
done_testing
