#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""`softslice explain`: the answers of a tenant's processes add up to what the ledger and the simulated GPU's books have, the reasons that it gives are those
that the test has made, and who cannot answer is named and holds nobody up."""
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import threading
import time

from books import COMMAND, GIB, MIB, SIM, check, holding
from document import said, schema_validator

TMP, STATE = os.environ["TEST_TMP"], os.environ["SOFTSLICE_STATE_DIR"]
CONTEXT = 300 * MIB
LOCK_SLOTS = 0x4000000100000000  # core/ledger_layout.h
os.environ.update(SOFTSIM_GPUS="2", SOFTSIM_MEM=str(8 * GIB), SOFTSIM_CONTEXT_BYTES=str(CONTEXT), SOFTSLICE_LOG="off")


def explain(*arguments, **options):
    return said("explain", *arguments, **options)


def document(*arguments, **options):
    found = json.loads(explain("--json", *arguments, **options))
    if validate:
        validate(found)
    return found


def used(gpu):
    """Bytes in use on a GPU by its own books."""
    nvml = ctypes.CDLL(os.path.join(SIM, "libnvidia-ml.so.1"))
    device, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
    check(nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(gpu, ctypes.byref(device)) == 0, "NVML")
    check(nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0, "NVML")
    return memory[2]


def kinds(of):
    return {kind["kind"]: kind["bytes"] for kind in of["kinds"]}


def on(found, gpu):
    """What is told of a GPU: here they are in their order."""
    return found["devices"][gpu]


def has_reason(device, *parts):
    check(any(all(part in reason for part in parts) for reason in device["reasons"]), "no reason says", parts, "\n", "\n".join(device["reasons"]))


def has_no_reason(device, part):
    check(not any(part in reason for reason in device["reasons"]), "a reason says", part, "\n", "\n".join(device["reasons"]))


validate = schema_validator("explain.schema.json")

# Used wrongly, and nobody there.
for arguments, status, part in (((), 125, "no tenant is named"), (("a", "b"), 125, "one tenant at a time"), (("--nonsense", "a"), 125, "unknown"),
                                (("--device", "0", "--device", "1", "a"), 125, "twice"), (("nobody",), 1, "no tenant 'nobody'"),
                                (("../team",), 125, "not a tenant's name"), (("a\x1b[31m\n",), 1, "tenant"), (("--state-dir", TMP + "/none", "a"), 1, "none"),
                                (("--root", TMP, "--state-dir", STATE, "a"), 125, "two places")):
    check(part in explain(*arguments, fails=status), arguments, "does not say", part)

# Two processes of one tenant on one GPU, one of which was refused: why, where the bytes are, and what would help.
with holding(["--tenant", "team", "--vram", "2GiB"], "take:0:%d" % (700 * MIB), "take:0:1000", "cache:0:%d" % (100 * MIB)) as first, \
        holding(["--tenant", "team", "--vram", "2GiB"], "take:0:%d" % (33 * MIB), "refused:0:%d" % GIB, "refused:0:%d" % (5 * MIB * 1024)) as second:
    # The refusal has emptied its own pools only; the first one's are as they were.
    found = document("team")
    device = on(found, 0)
    check(device["vram"]["limit_bytes"] == 2 * GIB and device["vram"]["current_bytes"] == used(0), device["vram"], used(0))
    check(device["memory_used_bytes"] == used(0) and device["memory_total_bytes"] == 8 * GIB, device)
    members = {member["pid"]: member for member in device["members"]}
    check(set(members) == {first.pid, second.pid}, members)
    check(sum(member["committed_bytes"] for member in members.values()) == used(0), members)
    for member in members.values():
        account = member["account"]
        check(account["told_bytes"] == account["committed_bytes"] == member["committed_bytes"] and not account["moving"], member)
        check(sum(kind["bytes"] for kind in account["kinds"] if kind["charged"]) == member["committed_bytes"], member)
    one, two = kinds(members[first.pid]["account"]), kinds(members[second.pid]["account"])
    check(one["plain"] == 700 * MIB + 1000 and one["rounding"] == 2 * MIB - 1000 and one["driver"] == CONTEXT, one)
    check(one["pool"] == members[first.pid]["account"]["pools_cached_bytes"] >= 100 * MIB, one)
    check(two["plain"] == 34 * MIB and "pool" not in two, two)
    check(kinds(device) == {kind: one.get(kind, 0) + two.get(kind, 0) for kind in one}, kinds(device))
    account = members[second.pid]["account"]
    check(account["refused_bytes"] == 5 * GIB and account["refusals"] == 2 and "refused_bytes" not in members[first.pid]["account"], members)
    has_reason(device, "pid %d (python3) asked for 5.00 GiB at once, more than the limit of 2.00 GiB" % second.pid)
    has_reason(device, "that was the largest of 2 refusals in the last ten minutes")
    has_no_reason(device, "of several processes")
    has_reason(device, "pid %d" % first.pid, "holds", "is not the one that was refused")
    has_reason(device, "128.00 MiB are cached by memory pools of pid %d" % first.pid, "cuMemPoolTrimTo", "empty_cache")
    text = explain("team")
    for part in ("tenant team on GPU-", "of 2.00 GiB in use", "refused: 2 by the budget", "all 2 that answer", "700.00 MiB", "<= 64 KiB", "of that cached"):
        check(part in text, part, "is not in", text)
    check(text.count("tenant team on") == 1, "a GPU that is not used is told", text)
    check(on(document("--device", "0", "team"), 0)["gpu"] == device["gpu"], "--device 0")
    check(len(document("--device", device["gpu"], "--state-dir", STATE, "team")["devices"]) == 1, "--device UUID")

    # In the directory below a root that it is in; whoever is in another one is told of with the root alone.
    elsewhere = os.path.join(TMP, "elsewhere-state")
    os.mkdir(elsewhere, 0o700)
    check("2 state directories" not in explain("--root", TMP, "team"), "--root")
    with holding(["--tenant", "other", "--vram", "1GiB"], "take:0:%d" % (10 * MIB), environment={"SOFTSLICE_STATE_DIR": elsewhere}):
        below, beside = (on(document(*where, "team"), 0) for where in (("--root", TMP), ()))
        check(below["vram"] == beside["vram"] and len(below["members"]) == 2, below)
        check(below["other_tenants_bytes"] == CONTEXT + 10 * MIB and not beside.get("other_tenants_bytes"), below, beside)
        with holding(["--tenant", "team"], "take:0:1000", environment={"SOFTSLICE_STATE_DIR": elsewhere}):
            check("in 2 state directories below" in explain("--root", TMP, "team", fails=1), "two of one name")
    check("no tenant 'nobody'" in explain("--root", TMP, "nobody", fails=1), "--root: nobody")

    # The GPU is full of what another tenant has.
    with holding(["--tenant", "other", "--vram", "8GiB"], "take:0:%d" % (8 * GIB - used(0) - CONTEXT - 50 * MIB)):
        device = on(document("team"), 0)
        has_reason(device, "the GPU itself is full", "only 50.00 MiB of its 8.00 GiB", "other tenants hold")
        check(device["other_tenants_bytes"] == used(0) - device["vram"]["current_bytes"], device)
    has_no_reason(on(document("team"), 0), "the GPU itself is full")

    # A limit that was lowered.
    subprocess.run([COMMAND, "set", "team", "vram=1GiB"], check=True, stdout=subprocess.DEVNULL)
    has_reason(on(document("team"), 0), "more than the limit of 1.00 GiB")
    subprocess.run([COMMAND, "set", "team", "vram=200MiB"], check=True, stdout=subprocess.DEVNULL)
    has_reason(on(document("team"), 0), "below what one context takes here (300.00 MiB)")

    # One is stopped, and something else stands where its answer would be: a pipe, a link, garbage.
    os.kill(second.pid, signal.SIGSTOP)
    folder = os.path.join(STATE, "team")
    with open(os.path.join(TMP, "elsewhere"), "wb") as elsewhere:
        elsewhere.write(b"SEXPLAIN" * 100)
    for plant in (lambda path: None, os.mkfifo, lambda path: os.symlink(os.path.join(TMP, "elsewhere"), path),
                  lambda path: os.rename(os.path.join(TMP, "elsewhere"), path)):
        for slot in (0, 1):
            path = os.path.join(folder, "explain-%d" % slot)
            if os.path.lexists(path):
                os.unlink(path)
            if slot == 1:
                plant(path)
        begun = time.monotonic()
        device = on(document("team"), 0)
        silent, = [member for member in device["members"] if not member["answered"]]
        check(silent["pid"] == second.pid and silent["reason"] == "it is stopped" and "account" not in silent, silent)
        check(silent["committed_bytes"] == CONTEXT + 34 * MIB, silent)
        has_reason(device, "what the 334.00 MiB of pid %d (python3) are for is not known: it is stopped" % second.pid)
    check("does not answer: it is stopped" in explain("team"), "the stopped one is not named")
    os.kill(second.pid, signal.SIGCONT)

    # One that died while others live.
    second.kill()
    second.wait()
    found = document("team")
    check([member["pid"] for member in on(found, 0)["members"] if not member["dead"]] == [first.pid], found)

# One that is just being buried: who does that holds its lock meanwhile, so it seems to live.
with holding(["--tenant", "grave"], "take:0:%d" % (40 * MIB)) as left, holding(["--tenant", "grave"], "take:0:%d" % (34 * MIB)) as going, \
        open(os.path.join(STATE, "grave", "ledger"), "rb") as ledger:
    os.kill(left.pid, signal.SIGSTOP)
    going.kill()
    going.wait()
    fcntl.lockf(ledger, fcntl.LOCK_SH, 1, LOCK_SLOTS + 1)
    threading.Timer(0.2, fcntl.lockf, (ledger, fcntl.LOCK_UN, 1, LOCK_SLOTS + 1)).start()
    found = document("grave")
    check([member["pid"] for member in on(found, 0)["members"]] == [left.pid], found)
    os.kill(left.pid, signal.SIGCONT)

check("has ended" in explain("team", fails=1), "an ended tenant")

# Those who do not answer, each with its reason: without a context, in a call of the driver that hangs, without the thread that answers.
blocks = [os.path.join(TMP, name) for name in ("busy", "without")]
hanging = [{"SOFTSIM_BLOCK": "nvmlDeviceGetComputeRunningProcesses_v3:" + block} for block in blocks]
with holding(["--tenant", "team", "--vram", "2GiB"], "take:0:%d" % (40 * MIB)) as good, holding(["--tenant", "team", "--vram", "2GiB"]) as idle, \
        holding(["--tenant", "team"], "take:0:%d" % (50 * MIB), environment=hanging[0]) as busy, \
        holding(["--tenant", "team"], "take:0:%d" % (60 * MIB), "hide:0", environment=hanging[1]) as without:
    for block in blocks:
        with open(block, "w", encoding="ascii"):
            pass
    until = time.monotonic() + 60
    while not all(os.path.getsize(block) for block in blocks):
        check(time.monotonic() < until, "nobody hangs")
        time.sleep(0.05)
    device = on(document("team"), 0)
    check({member["pid"]: member.get("reason", "")[:28] for member in device["members"]} ==
          {good.pid: "", idle.pid: "it has no context", busy.pid: "it did not come to it in 3 s", without.pid: "it has no thread of softslice"[:28]}, device)
    for block in blocks:
        os.unlink(block)

# One that nothing limits, and that has been quiet so long that it looks at nothing by itself.
with holding(["--tenant", "quiet"], "take:0:%d" % (11 * MIB)):
    time.sleep(9.5)  # it has looked after 1, 2, 4 and 8 s, and comes again after 16
    found = on(document("quiet"), 0)
    check([member["answered"] for member in found["members"]] == [True], found)
    has_reason(found, "no VRAM limit is set for the tenant on this GPU")
    has_no_reason(found, "the GPU itself is full")

# Without a limit the GPU is full for who was refused more than it has left, until it has that.
with holding(["--tenant", "wide"], "take:0:%d" % (5 * GIB), "refused:0:%d" % (4 * GIB)) as program:
    found = on(document("wide"), 0)
    has_reason(found, "pid %d (python3) asked for 4.00 GiB, which is not free on the GPU" % program.pid)
    has_reason(found, "the GPU itself is full: only %.2f GiB of its 8.00 GiB are free" % ((3 * GIB - CONTEXT) / GIB))

# Two GPUs.
with holding(["--tenant", "two", "--vram", "2GiB"], "take:0:%d" % (11 * MIB), "take:1:%d" % (77 * MIB)) as program:
    found = document("two")
    for gpu, size in ((0, 12), (1, 78)):
        check(kinds(on(found, gpu)) == {"plain": size * MIB, "driver": CONTEXT, "context": 0}, gpu, on(found, gpu))
        check(on(found, gpu)["vram"]["current_bytes"] == used(gpu), gpu)
        has_reason(on(found, gpu), "nothing was refused here so far")
    check(len(document("--device", "1", "two")["devices"]) == 1, "--device 1")
    # What is damaged is said to be.
    with open(os.path.join(STATE, "two", "ledger"), "r+b", buffering=0) as ledger:
        ledger.write(b"scribble")
        check("its ledger is" in explain("two", fails=1), "damage")
        ledger.seek(0)
        ledger.write(b"SSLEDGER")

# Who may read and not write gets what the ledger has.
if os.geteuid() == 0:
    shared = os.path.join(TMP, "shared")
    os.mkdir(shared)
    os.chmod(shared, 0o1777)
    os.chmod(TMP, 0o755)
    with holding(None, "take:0:%d" % (20 * MIB),
                 environment={"SOFTSLICE_STATE_DIR": shared, "SOFTSLICE_VRAM": "1GiB", "LD_PRELOAD": os.environ["TEST_LIB"]}) as program:
        own, = [name for name in os.listdir(shared) if name.startswith("proc-")]
        found = document("--state-dir", shared, own, before=["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"])
        member, = on(found, 0)["members"]
        check(found["not_asked"] and not member["answered"] and member["committed_bytes"] == CONTEXT + 20 * MIB, found)
        has_reason(on(found, 0), "could not be asked")
        member, = on(document("--state-dir", shared, own), 0)["members"]
        check(kinds(member["account"])["plain"] == 20 * MIB, member)

if not validate:
    print("pip could not bring jsonschema; all else is as it should be")
print("explained")
