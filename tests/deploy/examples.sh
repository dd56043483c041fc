#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The examples that need no cluster: the SLURM scripts with a job's variables made up, on the simulated GPU; the menus of compose; the units.
# unsanitized: the library has to be loaded without a sanitizer's runtime in front of it
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
fail() { echo "examples: $*" >&2; exit 1; }
taker=$TEST_BUILD/tests/programs/taker
softslice=$TEST_COMMAND

# ---- SLURM

slurm=$root/examples/slurm
export SLURM_SOFTSLICE_ROOT="$TEST_TMP/slurm" SLURM_SOFTSLICE_LIBRARY="$TEST_LIB"
job() { # job ID SCRIPT: as slurmd starts it
    SLURM_JOB_ID=$1 SLURM_JOB_UID=$(id -u) "$slurm/$2.sh"
}
# task ID SHARDS COMMAND...: with what TaskProlog prints, as slurmstepd reads it
task() {
    id=$1 shards=$2
    shift 2
    SLURM_JOB_ID=$id SLURM_SHARDS_ON_NODE=$shards "$slurm/task_prolog.sh" >"$TEST_TMP/printed"
    sed -n 's/^print //p' "$TEST_TMP/printed"
    sed -n 's/^export \([A-Z_]*\)=\(.*\)$/export \1="\2"/p' "$TEST_TMP/printed" >"$TEST_TMP/exports"
    ! grep -vE '^(print|export) ' "$TEST_TMP/printed" || fail "TaskProlog printed something else"
    # shellcheck disable=SC2016  # for the inner shell
    sh -c '. "$0"; exec "$@"' "$TEST_TMP/exports" "$@"
}
says() {
    expected=$1
    shift
    said=$("$@" 2>"$TEST_TMP/err") || fail "$*: exit status $?: $(cat "$TEST_TMP/err")"
    [ "$said" = "$expected" ] || fail "$*: '$said' instead of '$expected'"
}

job 42 prolog
job 43 prolog
job 42 prolog || fail "a job that comes back"
[ "$(stat -c %a "$SLURM_SOFTSLICE_ROOT/42")" = 700 ] || fail "the state directory's mode"
# A context takes 512 MiB here.
says "taken 1536" task 42 2 "$taker" 9999
says "taken 512
taken 512" task 42 2 "$taker" 512 "$taker" 9999
says "taken 512" task 43 1 "$taker" 9999
grep -q '^export SOFTSLICE_COMPUTE=1%$' "$TEST_TMP/printed" || fail "the share of one shard of 80: $(cat "$TEST_TMP/printed")"
# Two tasks of one job are one tenant, those of two jobs are two.
mkfifo "$TEST_TMP/go"
task 42 2 sh -c "exec $taker 512 sh -c 'echo >$TEST_TMP/holds; read -r _ <$TEST_TMP/go'" >/dev/null &
for _ in $(seq 600); do [ -e "$TEST_TMP/holds" ] && break; sleep 0.1; done
[ -e "$TEST_TMP/holds" ] || fail "the first task does not hold its memory"
says "taken 512" task 42 2 "$taker" 9999
says "taken 1536" task 43 2 "$taker" 9999
echo >"$TEST_TMP/go"
wait $! || fail "the first task's exit status: $?"
# No shards, no limit; what cannot be is no GPU, and said.
[ -z "$(SLURM_JOB_ID=42 "$slurm/task_prolog.sh")" ] || fail "without shards something is set"
says "softslice: SLURM_SHARDS_ON_NODE is 'x': no GPU" task 42 x true
SLURM_SOFTSLICE_LIBRARY=/nowhere says "softslice: /nowhere is missing on this node: no GPU" task 42 1 true
job ../../etc prolog 2>/dev/null && fail "a job called ../../etc"
job 42 epilog
job '' epilog
[ ! -e "$SLURM_SOFTSLICE_ROOT/42" ] || fail "the state directory stays"
[ -d "$SLURM_SOFTSLICE_ROOT/43" ] || fail "another job's is gone"

# ---- compose

for ini in "$root"/examples/compose/*.ini; do
    names=$("$softslice" cdi generate --slices "$ini" --root "$TEST_TMP/containers" --library "$TEST_LIB" --output - |
        python3 -c 'import json, sys; print(*("softslice.io/slice=" + of["name"] for of in json.load(sys.stdin)["devices"]))') || fail "$ini"
    file=${ini%.ini}.yaml
    [ -e "$file" ] || file=${ini%slices.ini}compose.yaml
    for device in $(grep -o 'softslice.io/slice=[^" ]*' "$file"); do
        case " $names " in *" $device "*) ;; *) fail "$file: $device is not in $ini" ;; esac
    done
done

# ---- systemd

if command -v systemd-analyze >/dev/null; then
    mkdir "$TEST_TMP/units"
    for unit in "$root"/examples/systemd/*.service; do
        # The programs that they name are not installed here.
        sed -E 's,^(Exec[A-Za-z]*=)/[^ ]*,\1/bin/true,' "$unit" >"$TEST_TMP/units/${unit##*/}"
        said=$(systemd-analyze verify --man=no "$TEST_TMP/units/${unit##*/}" 2>&1) || fail "$unit: $said"
        ! printf '%s\n' "$said" | grep -F "$TEST_TMP/units" || fail "$unit: $said"
    done
else
    echo "no systemd-analyze here: the units were not looked at"
fi
