#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_CONTEXT_BYTES=134217728 SOFTSIM_MEM=8589934592 SOFTSIM_GPUS=2 SOFTSLICE_LOG=off
# `softslice events`: what happened is told once, in its order, to who comes later and to who waits for it.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
uuid='GPU-[0-9a-f-]+'
when='[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]{3}'

# heard PATTERN [WHO]: what `events --follow` has told so far has a line like it, or gets one within some seconds.
heard() {
    file=$TEST_TMP/heard${2:+.$2}
    for _ in $(seq "$((TEST_PATIENCE * 10))"); do
        grep -Eq -e "$1" "$file" && return
        sleep 0.1
    done
    fail "not told while followed: $1; but: $(cat "$file")"
}

# json PYTHON: each line of $out is an object; the expression holds of the list of them, `e`.
json() {
    printf '%s\n' "$out" | python3 -c "
import json, sys
e = [json.loads(line) for line in sys.stdin if line.strip()]
def one(kind): return [x for x in e if x['kind'] == kind]
assert $1, e" || fail "not so: $1"
}

# Used wrongly.
for bad in --tenant= --state-dir= --root= --tenant=../x --tenant=. --nothing extra; do
    try "$softslice" events "$bad"
    expect_refusal 'events'
done
try "$softslice" events --tenant a --tenant b
expect_refusal 'given twice'
try "$softslice" events --help
expect_status 0
expect_out '^Usage: softslice events|softslice events'

# Nobody was ever here.
try "$softslice" events
expect_status 0
expect_quiet
[ -z "$out" ] || fail "expected nothing"
try "$softslice" events --tenant team
expect_status 1
expect_err '^softslice: events: .*team'

# Followed from before the tenant exists.
"$softslice" events --follow --tenant team >"$TEST_TMP/heard" 2>"$TEST_TMP/heard.err" &
follower=$!

begin --tenant team --vram 1GiB
heard "^$when team joined \(pid $member\)$"
# Another member is refused what is not left, and ends.
try "$softslice" run --tenant team -- sh -c "$taker </dev/null"
expect_out '^704$'
heard "^$when team $uuid refused 64 MiB, 1 GiB of 1 GiB in use \(pid [0-9]+\)$"
heard "^$when team $uuid left, had 832 MiB \(pid [0-9]+\)$"
"$softslice" set team --vram 512MiB >/dev/null || fail "set"
heard "^$when team $uuid vram: 512 MiB, was 1 GiB \(by uid $(id -u), pid [0-9]+\)$"

# Killed: whoever looks sees it though nobody of the tenant does; and the next member's burial is not told again.
kill -9 "$member"
heard "^$when team $uuid died, had 192 MiB \(pid $member\)$"
end 2>/dev/null
dead=$member
begin --tenant team --vram 1GiB --compute 10%
heard "^$when team joined \(pid $member\)$"
[ "$(grep -c " died" "$TEST_TMP/heard")" = 1 ] || fail "a death is told more than once: $(cat "$TEST_TMP/heard")"

try "$softslice" events
expect_status 0
expect_quiet
expect_out "team $uuid died, had 192 MiB \(pid $dead\)$"
try "$softslice" set team --compute 25% --weight 7
try "$softslice" events --json --tenant team
expect_status 0
json 'len(one("joined")) == 3 and len(one("died")) == 1 and len(one("left")) == 1'
json "one('died')[0]['pid'] == $dead and one('died')[0]['bytes'] == 192 << 20"
json 'one("refused")[0]["bytes"] == 64 << 20 and one("refused")[0]["limit_bytes"] == 1 << 30 and one("refused")[0]["current_bytes"] == 1 << 30'
json 'one("refused")[0]["count"] == 1 and one("refused")[0]["family"] == "linear"'
json 'all(x["after"] == 512 << 20 and x["before"] == 1 << 30 for x in one("vram")) and len(one("vram")) == 2'
json 'all(x["before"] == 10 and x["after"] == 25 for x in one("compute")) and all("before" not in x and x["after"] == 7 for x in one("weight"))'
json 'all(x["tenant"] == "team" and x["state_directory"] and x["time"].endswith("Z") for x in e)'
json 'sorted(x["time"] for x in e) == [x["time"] for x in e]'
try "$softslice" events --tenant team --state-dir "$SOFTSLICE_STATE_DIR" --state-dir /nonexistent
expect_status 0
expect_out "$SOFTSLICE_STATE_DIR/team joined"
end

# A ledger of a version without a ring: what its counters tell, and who it was remains unknown.
"$softslice" run --tenant old --vram 1GiB -- sh -c "$taker 64 </dev/null" >/dev/null
python3 "$(dirname "$0")/old_ledger.py" "$SOFTSLICE_STATE_DIR/old/ledger" || fail "an old ledger"
try "$softslice" events --tenant old
expect_status 0
expect_quiet
[ -z "$out" ] || fail "expected nothing"
"$softslice" events --follow --json --tenant old >"$TEST_TMP/heard.old" &
old=$!
sleep 1.5
begin --tenant old --vram 1GiB
heard '"kind":"joined","tenant":"old".*"count":1,"derived":true' old
"$softslice" run --tenant old -- sh -c "$taker </dev/null" >/dev/null
heard '"kind":"refused","tenant":"old".*"gpu":"GPU-.*"count":1,"limit_bytes":1073741824,.*"derived":true' old
"$softslice" set old --vram 512MiB >/dev/null || fail "set"
heard '"kind":"vram","tenant":"old".*"before":1073741824,"after":536870912,.*"derived":true' old
kill -9 "$member"
heard "\"kind\":\"left\",\"tenant\":\"old\".*\"pid\":$member,.*\"bytes\":201326592,\"derived\":true" old
end 2>/dev/null
kill "$old"

# Throttled, on the simulated GPU's clock: told about once a second, with how much.
load="$TEST_BUILD/tests/share/load"
if [ -x "$load" ]; then
    "$softslice" run --tenant team --compute 10% -- "$load" --seconds 4 >/dev/null 2>&1 &
    loader=$!
    heard "^$when team $uuid throttled for [0-9]+ of [0-9]+ ms, in [0-9]+ of [0-9]+ periods$"
    kill "$loader" 2>/dev/null
    wait "$loader" 2>/dev/null
fi

# Its folder goes: nobody minds. Who reads goes: so does the command, also while there is nothing to tell.
rm -r "$SOFTSLICE_STATE_DIR/team"
sleep 0.5
kill -0 "$follower" || fail "it did not survive that a tenant's folder went"
kill "$follower"
wait "$follower" 2>/dev/null
[ ! -s "$TEST_TMP/heard.err" ] || fail "it says: $(cat "$TEST_TMP/heard.err")"
try timeout 20 sh -c "'$softslice' events --follow | true"
expect_status 0
try timeout 20 sh -c "trap '' PIPE; '$softslice' events --follow --json | true"
expect_status 0
done_testing
