#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2
# `softslice cdi`: the specs that it writes and the files that it makes for containers, without a container.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
umask 077 # what containers read must be readable all the same
root=$TEST_TMP/run/containers
spec=$TEST_TMP/spec.json
check() { python3 "$(dirname "$0")/cdi_spec.py" "$@" >"$TEST_TMP/why" 2>&1 || fail "$(cat "$TEST_TMP/why")"; }
make() { try "$softslice" cdi generate --root "${where:-$root}" --library "$TEST_LIB" "$@"; }
refused() {
    what=$1
    shift
    make "$@"
    expect_refusal "$what"
    [ ! -e "$root" ] || fail "something was made"
}

# Used wrongly: nothing is made.
refused 'name one tenant' --output "$spec"
refused 'name one tenant' --tenant a --slices /dev/null --vram 1GiB
refused 'no limit is set' --tenant a
for name in '' -a a/b ../a .a a. a- 'a b' a:b turns labels.ini "$(printf 'a\nb')" "$(printf 'ä')" "$(printf '%064d' 1)"; do
    refused 'not a name|is empty' --tenant "$name" --vram 1GiB --output "$spec"
done
refused '--vram=.3GB.: not a size' --tenant a --vram 3GB --output "$spec"
refused '--compute=.101%' --tenant a --compute 101% --output "$spec"
refused '--weight=.0' --tenant a --weight 0 --output "$spec"
refused '--mode=.x' --tenant a --vram 1GiB --mode x --output "$spec"
refused 'devices by UUID' --tenant a --vram 0=1GiB --output "$spec"
refused '--vendor 9x' --tenant a --vram 1GiB --vendor 9x --output "$spec"
refused '--class a.b' --tenant a --vram 1GiB --class a.b --output "$spec"
refused '--format xml' --tenant a --vram 1GiB --format xml --output "$spec"
refused '--device 7' --tenant a --vram 1GiB --device 7 --output "$spec"
refused 'twice' --tenant a --tenant b --vram 1GiB --output "$spec"
refused "'b' is not understood" --tenant a --vram 1GiB b
where=x
refused 'not an absolute path' --tenant a --vram 1GiB --output "$spec"
where=
try "$softslice" cdi
expect_refusal 'generate, list, mounts or remove'
try "$softslice" cdi frobnicate
expect_refusal 'generate, list, mounts or remove'
try "$softslice" cdi remove --root "$root"
expect_refusal 'remove what'
try "$softslice" cdi list --root "$root"
expect_status 0
expect_out '^nothing in '

# A tenant. What is made is what the spec mounts, and can be read by whatever a container runs as.
make --tenant team-a --vram 1GiB --compute 30% --weight 50 --mode share --output "$spec"
expect_status 0
expect_quiet
expect_out '^softslice.io/slice=team-a$'
check "$spec" 0.3.0 softslice.io/slice team-a
ini=$root/team-a/.etc/softslice/softslice.ini
for line in 'tenant = team-a' 'state_dir = /run/softslice' 'vram = 1GiB' 'compute = 30%' 'weight = 50' 'mode = share' 'on_error = closed'; do
    grep -qx "$line" "$ini" || fail "the ini has no '$line'"
done
mode() { [ "$(stat -c '%a %u' "$1")" = "$2 $(id -u)" ] || fail "$1 is $(stat -c '%a %u' "$1"), expected $2"; }
mode "$root" 700
mode "$root/team-a" 755
mode "$root/team-a/team-a" 1777
mode "$root/team-a/.etc/softslice" 755
mode "$ini" 644
mode "$root/team-a/.etc/ld.so.preload" 644
mode "$root/team-a/labels.ini" 644
mode "$root/turns" 755
mode "$root/turns/team-a.turns" 666
mode "$spec" 644
[ "$(cat "$root/team-a/.etc/ld.so.preload")" = /usr/local/lib/softslice/libsoftslice.so ] || fail "ld.so.preload"
python3 - "$spec" <<'END' || fail "a mount of the spec is not there, or writable where it must not be"
import json, os, sys
mounts = json.load(open(sys.argv[1]))["devices"][0]["containerEdits"]["mounts"]
assert all(os.path.exists(mount["hostPath"]) for mount in mounts)
assert [m["containerPath"] for m in mounts if "ro" not in m["options"]] == ["/run/softslice/team-a", "/run/softslice/turns/team-a.turns"]
places = [m["containerPath"] for m in mounts]
assert all(places.index(os.path.dirname(p)) < places.index(p) for p in places if os.path.dirname(p) in places)
assert all({"nosuid", "nodev", "bind"} <= set(m["options"]) for m in mounts)
END

# Again: nothing changes, and what a container wrote stays.
cp "$spec" "$TEST_TMP/before"
touch "$root/team-a/team-a/ledger"
turns=$(stat -c %i "$root/turns/team-a.turns")
make --tenant team-a --vram 1GiB --compute 30% --weight 50 --mode share --output "$spec"
expect_status 0
cmp "$spec" "$TEST_TMP/before" || fail "the spec changed"
[ -e "$root/team-a/team-a/ledger" ] || fail "the ledger is gone"
[ "$turns" = "$(stat -c %i "$root/turns/team-a.turns")" ] || fail "the entry of turns was replaced: containers have the old one"
rm "$root/team-a/team-a/ledger"
# Root of a container gives away and closes what it may write; the limits are the administrator's to change all the same.
if [ "$(id -u)" = 0 ]; then
    chown 12345 "$root/team-a/team-a" "$root/turns/team-a.turns"
    chmod 0 "$root/team-a/team-a" "$root/turns/team-a.turns"
    make --tenant team-a --vram 1GiB --compute 30% --weight 50 --mode share --output "$spec"
    expect_status 0
    mode "$root/team-a/team-a" 1777
    mode "$root/turns/team-a.turns" 666
    [ "$turns" = "$(stat -c %i "$root/turns/team-a.turns")" ] || fail "the entry of turns was replaced"
    # It makes a device where its ledger should be, too, which nobody opens: there is no driver for this one, so opening it would be told.
    if mknod "$root/team-a/team-a/ledger" c 240 99 2>/dev/null; then
        try "$softslice" status --root "$root" --all
        expect_out 'team-a +cannot be read: its ledger is not a regular file'
        rm "$root/team-a/team-a/ledger"
    fi
fi
[ -z "$(find "$TEST_TMP" -name '*.new')" ] || fail "temporary files stayed"

# A second one in the same file; a digit in front needs a newer version, and only then.
make --tenant 9b --vram 2GiB --output "$spec"
expect_status 0
check "$spec" 0.5.0 softslice.io/slice team-a 9b
try "$softslice" cdi list --root "$root"
expect_out "^softslice.io/slice=9b +2 GiB +none +0 +$spec$"
expect_out "^softslice.io/slice=team-a +1 GiB +30% \(weight 50\) +0 +$spec$"
try "$softslice" status --root "$root" --all --json
expect_status 0
# Limits for one GPU alone; to another spec, which it leaves the first one for.
make --tenant 9b --vram 3GiB --weight 7 --device 1 --vendor example.com --class gpu --output "$TEST_TMP/other.json"
expect_status 0
expect_out '^example.com/gpu=9b$'
check "$spec" 0.5.0 softslice.io/slice team-a
check "$TEST_TMP/other.json" 0.5.0 example.com/gpu 9b
grep -A1 '^\[gpu GPU-' "$root/9b/.etc/softslice/softslice.ini" | grep -qx 'vram = 3GiB' || fail "no limit for the GPU"
# Another kind's file is left alone, and so is what is no spec.
make --tenant c --vram 1GiB --output "$TEST_TMP/other.json"
expect_refusal 'is a spec of kind example.com/gpu'
for content in '' '{' '[]' '{}' 'null' '{"cdiVersion": "0.5.0", "kind": "softslice.io/slice", "devices": [1]}' 'cdiVersion: 0.5.0'; do
    printf '%s' "$content" >"$TEST_TMP/bad.json"
    make --tenant c --vram 1GiB --output "$TEST_TMP/bad.json"
    expect_refusal 'is not a CDI spec in JSON'
    [ "$(cat "$TEST_TMP/bad.json")" = "$content" ] || fail "the file was changed"
done
[ ! -e "$root/c" ] || fail "files were made for a refused tenant"
make --tenant c --vram 1GiB --output "$TEST_TMP/c.txt"
expect_refusal 'has to end in .json'
make --tenant c --vram 1GiB --output "$TEST_TMP/nope/c.json"
expect_refusal 'nope: No such file'
mkfifo "$TEST_TMP/fifo.json"
make --tenant c --vram 1GiB --output "$TEST_TMP/fifo.json"
expect_refusal 'not a regular file'
make --tenant c --vram 1GiB --output -
expect_status 0
printf '%s\n' "$out" >"$TEST_TMP/c.json"
check "$TEST_TMP/c.json" 0.3.0 softslice.io/slice c
try "$softslice" cdi list --root "$root"
expect_out '^c +1 GiB .* in no spec$'

# For engines without CDI: the same mounts, as options.
for engine in '' docker ctr bwrap; do
    try "$softslice" cdi mounts --root "$root" ${engine:+--for "$engine"} --library "$TEST_LIB" team-a
    expect_status 0
    expect_quiet
    [ "$(printf '%s\n' "$out" | wc -l)" = 7 ] || fail "expected seven mounts"
    case $engine in
    ctr) expect_out "^--mount=type=bind,src=$root/turns/team-a.turns,dst=/run/softslice/turns/team-a.turns,options=bind:rw:" ;;
    bwrap) expect_out "^--ro-bind $root/team-a/.etc/ld.so.preload /etc/ld.so.preload$" ;;
    *) expect_out "^--volume=$root/team-a/.etc/ld.so.preload:/etc/ld.so.preload:ro$" ;;
    esac
done
[ "$(printf '%s\n' "$out" | grep -c '^--bind ')" = 2 ] || fail "expected two that are writable"
try "$softslice" cdi mounts --root "$root" --library "$TEST_LIB" nobody
expect_refusal "there is no 'nobody'"
try "$softslice" cdi mounts --root "$root" --library "$TEST_LIB" --for x team-a
expect_refusal '--for x: options are known of'
try "$softslice" cdi mounts --root "$root" --library "$TEST_LIB"
expect_refusal 'name one budget'

# Into a spec of nvidia-ctk's: what was there stays as it was.
cat >"$TEST_TMP/nvidia.json" <<'END'
{"cdiVersion": "0.3.0", "kind": "nvidia.com/gpu",
 "devices": [{"name": "g0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "major": 195}], "env": ["X=1"]}},
             {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}],
 "containerEdits": {"deviceNodes": [{"path": "/dev/nvidiactl"}], "mounts": [{"hostPath": "/usr/lib/libcuda.so.1", "containerPath": "/usr/lib/libcuda.so.1"}]}}
END
cp "$TEST_TMP/nvidia.json" "$TEST_TMP/nvidia.before"
make --tenant c --vram 1GiB --merge-into "$TEST_TMP/nvidia.json" --device g9
expect_refusal "has no device 'g9'"
make --tenant g0 --vram 1GiB --merge-into "$TEST_TMP/nvidia.json"
expect_refusal "has a device 'g0' that softslice did not make"
cmp "$TEST_TMP/nvidia.json" "$TEST_TMP/nvidia.before" || fail "the spec changed"
make --tenant c --vram 1GiB --merge-into "$TEST_TMP/nvidia.json"
expect_status 0
expect_out '^nvidia.com/gpu=c$'
make --tenant d --vram 1GiB --merge-into "$TEST_TMP/nvidia.json" --device g0
expect_status 0
make --tenant d --vram 1GiB --merge-into "$TEST_TMP/nvidia.json" --device g0
check "$TEST_TMP/nvidia.json" 0.3.0 nvidia.com/gpu g0 all c d
make --tenant e --vram 1GiB --merge-into "$TEST_TMP/nvidia.json" --device d
expect_refusal "device 'd' of .* is a budget"
python3 - "$TEST_TMP/nvidia.json" "$TEST_TMP/nvidia.before" <<'END' || fail "the spec's own part changed, or a device has not both parts"
import json, sys
now, before = (json.load(open(name)) for name in sys.argv[1:])
edits = [device["containerEdits"] for device in now["devices"]]
assert now["devices"][:2] == before["devices"] and now["containerEdits"] == before["containerEdits"]
assert "deviceNodes" not in edits[2] and len(edits[2]["mounts"]) == 7
assert edits[3]["deviceNodes"] == edits[0]["deviceNodes"] and edits[3]["env"] == ["X=1"] and len(edits[3]["mounts"]) == 7
END
try "$softslice" cdi remove --root "$root" c d
expect_status 0
python3 - "$TEST_TMP/nvidia.json" "$TEST_TMP/nvidia.before" <<'END' || fail "the spec is not what it was"
import json, sys
now, before = (json.load(open(name)) for name in sys.argv[1:])
assert now == before
END

# Whoever has made its ledger unreadable may run.
make --tenant e --vram 1GiB --output "$TEST_TMP/e.json"
echo damaged >"$root/e/e/ledger"
try "$softslice" cdi remove --root "$root" e
expect_refusal "whether processes of 'e' still run cannot be told"
[ -e "$root/e" ] || fail "it was removed all the same"
try "$softslice" cdi remove --force --root "$root" e
expect_status 0

# A menu of slices.
cat >"$TEST_TMP/slices.ini" <<'END'
[softslice]
vram = 5GiB
[slice small]
vram = 10GiB
compute = 12%
replicas = 2
[slice big]
vram = 40GiB
mode = share
END
make --slices "$TEST_TMP/slices.ini" --output "$TEST_TMP/slices.json"
expect_status 0
check "$TEST_TMP/slices.json" 0.3.0 softslice.io/slice small-0 small-1 big
grep -qx 'compute = 12%' "$root/small-1/.etc/softslice/softslice.ini" || fail "no share in small-1"
! grep -q 'vram = 5GiB' "$root/big/.etc/softslice/softslice.ini" || fail "big has another section's limit"
make --slices examples/compose/slices.ini --output "$TEST_TMP/compose.json"
for device in $(grep -o 'softslice.io/slice=.*' examples/compose/compose.yaml); do
    expect_out "^$device$"
done
bad_slices() {
    printf '%b' "$2" >"$TEST_TMP/bad.ini"
    make --slices "$TEST_TMP/bad.ini" --output "$TEST_TMP/bad-slices.json"
    expect_refusal "$1"
    [ ! -e "$TEST_TMP/bad-slices.json" ] || fail "a spec was written"
}
bad_slices 'no \[slice NAME\]' '[softslice]\nvram = 1GiB\n'
bad_slices 'bad.ini:1: a slice has a limit' '[slice a]\n'
bad_slices 'bad.ini:2: a slice has no such key' '[slice a]\nvrm = 1GiB\n'
bad_slices 'bad.ini:3: replicas is' '[slice a]\nvram = 1GiB\nreplicas = 0\n'
bad_slices 'the limits of a: vram = .3GB' '[slice a]\nvram = 3GB\n'
bad_slices 'two of this name' '[slice a]\nvram = 1GiB\nreplicas = 1\n[slice a-0]\nvram = 1GiB\n'
bad_slices 'bad.ini:3: there is no section \[slices b\]' '[slice a]\nvram = 1GiB\n[slices b]\nvram = 1GiB\n'
bad_slices 'not a name' '[slice a:b]\nvram = 1GiB\n'
make --slices "$TEST_TMP/nope.ini"
expect_refusal 'nope.ini: no such file'

# Odd paths.
odd="$TEST_TMP/o \"dd\\ %s ü"
mkdir "$odd"
where=$odd/root
make --tenant a --vram 1GiB --output "$odd/a.json"
expect_status 0
check "$odd/a.json" 0.3.0 softslice.io/slice a
python3 - "$odd/a.json" <<'END' || fail "a mount with an odd path is not there"
import json, os, sys
assert all(os.path.exists(mount["hostPath"]) for mount in json.load(open(sys.argv[1]))["devices"][0]["containerEdits"]["mounts"])
END
try "$softslice" cdi mounts --root "$where" --library "$TEST_LIB" a
expect_refusal 'a character that options cannot take'
where=$TEST_TMP/$(printf 'x\ny')
make --tenant a --vram 1GiB --output "$spec"
expect_refusal 'control characters'
# What is there already and is not ours to use.
ln -s /tmp "$TEST_TMP/link"
where=$TEST_TMP/link
make --tenant a --vram 1GiB --output "$spec"
expect_refusal 'link: '
mkdir -m 777 "$TEST_TMP/open"
chmod 777 "$TEST_TMP/open"
where=$TEST_TMP/open
make --tenant a --vram 1GiB --output "$spec"
expect_refusal 'only you may write it'
where=$TEST_TMP/open/a/b
make --tenant a --vram 1GiB --output "$spec"
expect_refusal "others can write $TEST_TMP/open .mode 0777"
[ ! -e "$TEST_TMP/open/a" ] || fail "a directory was made"
try "$softslice" cdi list --root "$TEST_TMP/open/a"
expect_out '^nothing in'
chmod 1777 "$TEST_TMP/open"
make --tenant a --vram 1GiB --output "$TEST_TMP/sticky.json"
expect_status 0
# Another user's directory, or link, above it: only root can make one.
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$TEST_TMP/theirs/inside"
    ln -s "$TEST_TMP/run" "$TEST_TMP/open/link"
    chown -h 12345 "$TEST_TMP/theirs" "$TEST_TMP/open/link"
    for where in "$TEST_TMP/theirs/new" "$TEST_TMP/theirs/inside/new" "$TEST_TMP/open/link/new"; do
        make --tenant a --vram 1GiB --output "$spec"
        expect_refusal 'belongs to uid 12345, who could'
        [ ! -e "$where" ] || fail "it was made"
        try "$softslice" cdi remove --root "$where" a
        expect_refusal 'belongs to uid 12345, who could'
    done
    # One of root's links leads to another user's directory.
    ln -s "$TEST_TMP/theirs/inside" "$TEST_TMP/led"
    where=$TEST_TMP/led/new
    make --tenant a --vram 1GiB --output "$spec"
    expect_refusal "$TEST_TMP/theirs belongs to uid 12345"
    chown 0 "$TEST_TMP/theirs"
    make --tenant a --vram 1GiB --output "$TEST_TMP/led.json"
    expect_status 0
fi
where=
ln -s /etc "$root/evil"
make --tenant evil --vram 1GiB --output "$spec"
expect_refusal 'something that is not ours is there'
touch "$root/plain"
make --tenant plain --vram 1GiB --output "$spec"
expect_refusal 'something that is not ours is there'
check "$spec" 0.5.0 softslice.io/slice team-a

# A full disk: the old spec stays, whole.
if unshare -rm true 2>/dev/null; then
    # Who looks in the usual place, and finds nobody, is told where containers' tenants are.
    # shellcheck disable=SC2016  # for the inner shell
    try env -u SOFTSLICE_STATE_DIR unshare -rm sh -c 'mount -t tmpfs none /run && mkdir -p /run/softslice/containers && "$1" status' sh "$softslice"
    expect_status 0
    expect_out '^No tenants in /run/softslice; containers have theirs: --root /run/softslice/containers$'
    mkdir "$TEST_TMP/full"
    # shellcheck disable=SC2016  # the inner shell's
    try unshare -rm sh -c 'mount -t tmpfs -o size=16k none "$1" && cp "$2" "$1/a.json" && ! dd if=/dev/zero of="$1/fill" bs=1k 2>/dev/null
        "$3" cdi generate --tenant a --vram 1GiB --root "$1/root" --output "$1/a.json" --library "$4"; echo "ended $?"
        "$3" cdi generate --tenant a --vram 1GiB --root "$5" --output "$1/a.json" --library "$4"; echo "ended $?"
        cmp "$1/a.json" "$2" && ls -A "$1"' sh "$TEST_TMP/full" "$spec" "$softslice" "$TEST_LIB" "$TEST_TMP/elsewhere"
    expect_status 0
    [ "$(printf '%s\n' "$out" | grep -c 'ended 125')" = 2 ] || fail "expected two refusals"
    expect_err 'cannot make .*: No space left'
    expect_err 'cannot write .*a.json: No space left'
    expect_no_out 'softslice-'
else
    echo "no user namespaces: the full disk was not tried"
fi

# The end of budgets. One that is in use stays.
rm "$root/evil" "$root/plain"
try "$softslice" cdi remove --root "$root" nope
expect_refusal "there is no 'nope'"
try "$softslice" cdi remove --root "$root" ../containers
expect_refusal 'there is no '
mkfifo "$TEST_TMP/hold" "$TEST_TMP/told"
SOFTSLICE_STATE_DIR=$root/team-a "$softslice" run --tenant team-a --vram 1GiB -- python3 "$(dirname "$0")/taker.py" 64 \
    <"$TEST_TMP/hold" >"$TEST_TMP/told" 2>&1 &
exec 3>"$TEST_TMP/hold" 4<"$TEST_TMP/told"
read -r told <&4
[ "$told" = 64 ] || fail "the member says '$told'"
try "$softslice" cdi remove --root "$root" team-a
expect_refusal "1 process of 'team-a' still runs"
try "$softslice" cdi list --root "$root"
expect_out 'team-a .* 1 +/'
# It is found by who looks, with its label and the limit of its own admin file, which is less than what the ledger has.
sed -i 's/^vram = .*/vram = 768MiB/' "$ini"
try "$softslice" status --root "$root" --json
expect_out '"limit_bytes": ?805306368'
expect_out '"container": ?"team-a"'
exec 3>&- 4<&-
wait
# What a container left in its folder: deeper than there are descriptors, with more beside it at each depth.
python3 - "$root/team-a/team-a" <<'END' || fail "no deep folders"
import os, sys
os.chdir(sys.argv[1])
for i in range(1500):
    for name in ("aa", "mm", "zz"):
        os.mkdir(name)
    open("mm/file", "w").close()
    os.symlink("/", "mm/link")
    os.chdir("mm")
END
mkdir "$root/team-a/.moved-1" && mkdir "$root/team-a/.moved-1/as a killed one left it"
try prlimit --nofile=300 "$softslice" cdi remove --root "$root" team-a 9b
expect_status 0
[ ! -e "$root/team-a" ] || fail "deep folders stayed"
try "$softslice" cdi list --root "$root"
make --tenant team-a --vram 1GiB --output "$spec"
try "$softslice" cdi remove --root "$root" team-a
expect_status 0
expect_quiet
[ ! -e "$spec" ] || fail "an empty spec stayed"
[ ! -e "$root/team-a" ] || fail "its files stayed"
[ ! -e "$root/turns/team-a.turns" ] || fail "its entry stayed"
done_testing
