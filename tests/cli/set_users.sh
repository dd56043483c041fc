#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_CONTEXT_BYTES=134217728 SOFTSIM_MEM=8589934592 SOFTSLICE_LOG=off
# Who may change a tenant: its user and root, nobody else, and nobody beyond the admin's file; and what is put in the way of who does.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
owner=4001 stranger=4002
unset SOFTSLICE_STATE_DIR

[ "$(id -u)" = 0 ] || { echo "only root can be several users"; exit 77; }
as() {
    uid=$1
    shift
    setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
}
as $owner true 2>/dev/null || { echo "this root cannot be other users"; exit 77; }

# What others can reach.
chmod 711 "$TEST_TMP"
mkdir "$TEST_TMP/bin" "$TEST_TMP/bin/sim"
cp "$softslice" "$TEST_LIB" "$here/asker.py" "$TEST_TMP/bin"
cp "$TEST_SIM"/*.so.1 "$TEST_TMP/bin/sim"
chmod -R a+rX "$TEST_TMP/bin"
softslice=$TEST_TMP/bin/softslice
SOFTSLICE_LIBRARY=$TEST_TMP/bin/${TEST_LIB##*/}
export SOFTSLICE_LIBRARY LD_LIBRARY_PATH="$TEST_TMP/bin/sim"
as $owner test -x "$softslice" || { echo "other users cannot reach $TEST_TMP"; exit 77; }
for uid in $owner $stranger; do
    mkdir "$TEST_TMP/$uid" "$TEST_TMP/gpu$uid"
    chmod 700 "$TEST_TMP/$uid" "$TEST_TMP/gpu$uid"
    chown "$uid:$uid" "$TEST_TMP/$uid" "$TEST_TMP/gpu$uid"
done

# begin DIRECTORY UID [COMMAND...]: a member of tenant team of that user, started by COMMAND; `ask N` has it ask for as many MiB more.
begin() {
    directory=$1 uid=$2
    shift 2
    mkfifo "$TEST_TMP/asked" "$TEST_TMP/told"
    SOFTSIM_STATE=$TEST_TMP/gpu$uid/gpu SOFTSLICE_STATE_DIR=$directory "$@" setpriv --reuid "$uid" --regid "$uid" --clear-groups \
        "$softslice" run --tenant team --vram 1GiB -- python3 "$TEST_TMP/bin/asker.py" <"$TEST_TMP/asked" >"$TEST_TMP/told" 2>&1 &
    member=$!
    exec 3>"$TEST_TMP/asked" 4<"$TEST_TMP/told"
    read -r told <&4
    [ "$told" = 0 ] || fail "the member says '$told'"
}

end() {
    exec 3>&- 4<&-
    wait $member
    rm "$TEST_TMP/asked" "$TEST_TMP/told"
}

expect_has() {
    echo "$1" >&3
    read -r told <&4
    [ "$told" = "$2" ] || fail "expected the member to have $2 MiB, not '$told'"
}

# ---- a directory of the user's own
own=$TEST_TMP/$owner
begin "$own" $owner
expect_has 64 64
try as $stranger "$softslice" set --state-dir "$own" team vram=2GiB
expect_status 1
expect_err "may not write|Permission denied|permission denied"
try as $stranger env SOFTSLICE_STATE_DIR="$own" "$softslice" set team vram=2GiB
expect_status 1
expect_err "belongs to uid $owner"
try as $stranger "$softslice" status --state-dir "$own"
expect_no_out 'team'
chmod 755 "$own"
try as $stranger "$softslice" set --state-dir "$own" team vram=2GiB
expect_status 1
expect_has 2048 896
try as $owner env SOFTSLICE_STATE_DIR="$own" "$softslice" set team vram=1216MiB
expect_status 0
expect_has 2048 1088
try "$softslice" set --state-dir "$own" team vram=1280MiB
expect_status 0
expect_has 2048 1152
try env SOFTSLICE_STATE_DIR="$own" "$softslice" set team vram=2GiB
expect_status 1
expect_err "belongs to uid $owner"
try "$softslice" set --root "$TEST_TMP" team vram=1344MiB
expect_status 0
expect_has 2048 1216

# ---- what its user puts in root's way
other=$TEST_TMP/$stranger
victim() { [ "$(cksum <"$other/theirs/ledger")" = "$1" ] || fail "another user's ledger was changed"; }
mkdir "$other/theirs" "$own/evil"
cp "$own/team/ledger" "$other/theirs/ledger"
chown -R $stranger "$other/theirs"
sum=$(cksum <"$other/theirs/ledger")
refused() {
    try timeout 20 "$softslice" set --state-dir "$own" evil vram=2GiB
    expect_status 1
    expect_err "^softslice: set: tenant 'evil': (its ledger in $own is )?$1"
    victim "$sum"
    rm -rf "$own/evil/ledger"
}
ln -s "$other/theirs/ledger" "$own/evil/ledger"
refused 'damaged or none: a symbolic link'
ln "$other/theirs/ledger" "$own/evil/ledger"
refused "another tenant's too"
mkfifo "$own/evil/ledger"
refused 'damaged or none'
mkdir "$own/evil/ledger"
refused 'damaged or none: not a regular file'
truncate -s 100 "$own/evil/ledger"
refused 'damaged or none: truncated'
truncate -s 1T "$own/evil/ledger" && refused 'damaged or none'
head -c 100000 /dev/zero >"$own/evil/ledger"
refused 'damaged or none'
rmdir "$own/evil"
ln -s "$other/theirs" "$own/evil"
try timeout 20 "$softslice" set --state-dir "$own" evil vram=2GiB
expect_status 1
expect_err 'a symbolic link'
victim "$sum"
rm "$own/evil"
ln -s "$own" "$other/link"
try timeout 20 "$softslice" set --state-dir "$other/link/" team vram=2GiB
expect_status 1
expect_err 'a symbolic link'
rm "$other/link"

# The folder goes away and comes back while it is changed: done or not, and never half.
(while [ ! -e "$TEST_TMP/enough" ]; do mv "$own/team" "$own/gone"; mv "$own/gone" "$own/team"; done) &
mover=$!
done=0 not=0
for i in $(seq 60); do
    try timeout 20 "$softslice" set --state-dir "$own" team vram=$((1344 + i))MiB
    case $status in
    0) done=$((done + 1)) ;;
    1) not=$((not + 1)); expect_err "there is no tenant 'team'|keeps being replaced" ;;
    *) fail "it is changed, or refused" ;;
    esac
done
touch "$TEST_TMP/enough"
wait $mover
rm "$TEST_TMP/enough"
[ "$done" -gt 0 ] || fail "never done in 60 times ($not refused)"
try "$softslice" set --state-dir "$own" team vram=1408MiB
expect_has 2048 1280
end

# ---- a directory that all may write
shared=$TEST_TMP/shared
mkdir "$shared"
chmod 1777 "$shared"
begin "$shared" $owner
try as $stranger "$softslice" set --state-dir "$shared" team vram=2GiB
expect_status 1
expect_err "is another user's: only that user and root may change it"
try as $stranger mv "$shared/team" "$shared/mine"
[ "$status" != 0 ] || fail "another user moved the tenant's folder"
expect_has 2048 896
try as $owner "$softslice" set --state-dir "$shared" team vram=1088MiB
expect_status 0
expect_has 2048 960
try "$softslice" set --state-dir "$shared" team vram=1152MiB
expect_status 0
expect_has 2048 1024
end

# ---- beyond the admin's file
cat >"$TEST_TMP/admin.ini" <<INI
[tenant team]
vram = 1280MiB
INI
# shellcheck disable=SC2016  # for the inner shell
sealed='mount --make-rprivate / && mount -t tmpfs none /etc && mkdir /etc/softslice &&
        cp "$1" /etc/softslice/softslice.ini && chmod 644 /etc/softslice/softslice.ini &&
    shift && exec "$@"'
if unshare -m sh -c "$sealed" sh "$TEST_TMP/admin.ini" true 2>/dev/null; then
    begin "$own" $owner unshare -m sh -c "$sealed" sh "$TEST_TMP/admin.ini"
    try unshare -m sh -c "$sealed" sh "$TEST_TMP/admin.ini" setpriv --reuid $owner --regid $owner --clear-groups \
        "$softslice" set --state-dir "$own" team vram=1281MiB
    expect_status 1
    expect_err 'vram is above what the admin allows.*softslice.ini'
    expect_has 2048 896
    # Where that file is not: the ledger takes it, the member does not.
    for value in 4GiB max; do
        try as $owner "$softslice" set --state-dir "$own" team vram=$value
        expect_status 0
        expect_out "vram: (4 GiB|none), was"
        expect_has 2048 1152
    done
    end
fi
done_testing
