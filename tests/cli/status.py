#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""`softslice status`: two tenants on two GPUs, with numbers that are not round, are shown as the simulated GPUs' own books have them, in the table and
in the document; and whatever else stands in a state directory is named or left out, with bounded memory and without a crash."""
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time

from books import COMMAND, GIB, Books, check, holding, two_gpus
from document import said, schema_validator

TMP, STATE = os.environ["TEST_TMP"], os.environ["SOFTSLICE_STATE_DIR"]
two_gpus()


def status(*arguments, **options):
    return said("status", *arguments, **options)


def document(*arguments, **options):
    found = json.loads(status("--json", *arguments, **options))
    if validate:
        validate(found)
    return found


def by_name(found):
    names = [tenant["tenant"] for tenant in found["tenants"]]
    check(names == sorted(names), "order", names)
    return {tenant["tenant"]: tenant for tenant in found["tenants"]}


def rows_of(table, head):
    """The rows of one of the tables, as lists of cells; `head` begins its first line."""
    lines = table.split("\n")
    start = next((i for i, line in enumerate(lines) if line.startswith(head)), None)
    check(start is not None, "no table", head, table)
    rows = []
    for line in lines[start + 1:]:
        if not line:
            break
        rows.append([cell for cell in line.replace(" GiB", "GiB").split(" ") if cell])
    return rows


def gib(size):
    return "<0.01GiB" if 0 < size / GIB < 0.01 else "%.2fGiB" % (size / GIB)


def compare_books(programs):
    """Table, document and books, for the two tenants."""
    found, books, table = document("--members", "--interval", "0.1"), Books(), status("--members")
    check([gpu["uuid"] for gpu in found["gpus"]] == books.uuid, "GPUs", found["gpus"])
    check([gpu["memory_used_bytes"] for gpu in found["gpus"]] == books.used, "used", found["gpus"], books.used)
    check([gpu["memory_total_bytes"] for gpu in found["gpus"]] == books.total, "total", found["gpus"])
    check([row[3:] for row in rows_of(table, "GPU ")] == [[gib(u), gib(t)] for u, t in zip(books.used, books.total)] or
          [row[-2:] for row in rows_of(table, "GPU ")] == [[gib(u), gib(t)] for u, t in zip(books.used, books.total)], "GPU table", table)
    tenants, rows = by_name(found), rows_of(table, "TENANT  GPU")
    check(sorted(tenants) == sorted(programs), "tenants", list(tenants))
    for name, program in programs.items():
        tenant = tenants[name]
        check(tenant["processes"] == 1 and tenant["state_directory"] == STATE and tenant["uid"] == os.geteuid(), tenant)
        check([member["host_pid"] for member in tenant["members"]] == [program.pid], name, "members", tenant["members"])
        for device in tenant["devices"]:
            gpu = books.uuid.index(device["gpu"])
            vram, held = device["vram"], books.held[gpu][program.pid]
            check(vram["current_bytes"] == held, name, gpu, "current", vram, held)
            check(vram["peak_bytes"] >= held and vram["tentative_bytes"] == 0, name, gpu, vram)
            own = [part for part in tenant["members"][0]["devices"] if part["gpu"] == device["gpu"]]
            check([part["committed_bytes"] for part in own] == [held], name, gpu, "its member", own)
            row = [row for row in rows if row[:2] == [name, str(gpu)]]
            check(len(row) == 1, "rows", rows)
            check(row[0][2] == gib(held) and row[0][4] == gib(vram["peak_bytes"]), name, gpu, row, vram)
            check(row[0][3] == (gib(vram["limit_bytes"]) if "limit_bytes" in vram else "none"), name, gpu, row)
            check(row[0][8:] == ["1", str(vram["events"]["refused"])], name, gpu, row, vram)
    return tenants, books, rows


def two_tenants():
    busy = {}
    with holding(["--tenant", "zeta", "--vram", "1GiB", "--compute", "37.5%"], "take:0:123456789", "take:1:98765433", "refused:0:1073741824",
                 "refused:0:1073741825", "launch:0:61234:5", "launch:1:57770:2", "launch:1:57770:3") as zeta, \
            holding(["--tenant", "alpha", "--vram", "0=1573741824"], "take:0:1234567", "take:1:7654321", "free:1") as alpha:
        tenants, books, rows = compare_books({"zeta": zeta, "alpha": alpha})
        first, second = tenants["zeta"]["devices"]
        check(tenants["zeta"]["armed"] == ["vram", "compute"] and tenants["alpha"]["armed"] == ["vram"], "armed")
        check(first["vram"]["events"]["refused"] == 2 and second["vram"]["events"]["refused"] == 0, "refused", first, second)
        check(first["vram"]["limit_bytes"] == GIB, first)
        limits = {device["gpu"]: device["vram"].get("limit_bytes") for device in tenants["alpha"]["devices"]}
        check(limits == {books.uuid[0]: 1573741824, books.uuid[1]: None}, "limits", limits)
        for gpu, device in enumerate((first, second)):
            compute = device["compute"]
            busy[gpu, zeta.pid] = compute["busy_ns"]
            check(compute["share_percent"] == 37.5 and "weight" not in compute, compute)
            check(0 < compute["nr_throttled"] <= compute["nr_periods"] and compute["throttled_ns"] > 0, compute)
            check(compute["busy_percent"] == 0 and compute["throttled_percent"] == 0, compute)
        check(all("compute" not in device for device in tenants["alpha"]["devices"]), "alpha has no compute")
        check([row[5:8] for row in rows] == [["-", "-", "-"]] * 2 + [["37.5%", "0.0%", "0.0%"]] * 2, "shares", rows)

        # One tenant, one GPU.
        check(list(by_name(document("--tenant", "zeta"))) == ["zeta"], "--tenant")
        for word in ("1", books.uuid[1]):
            one = document("--device", word)
            check([gpu["uuid"] for gpu in one["gpus"]] == [books.uuid[1]], "--device", one["gpus"])
            check([[d["gpu"] for d in tenant["devices"]] for tenant in one["tenants"]] == [[books.uuid[1]]] * 2, "--device", one)
        check("members" not in one["tenants"][0] and "interval_ns" not in one and "busy_percent" not in one["tenants"][1]["devices"][0]["compute"], one)
        check("there is no tenant 'nobody'" in status("--tenant", "nobody", fails=1), "nobody")
        check("no GPU 7" in status("--device", "7", fails=1), "--device 7")
        check("shows that GPU" in status("--device", "GPU-00000000-0000-0000-0000-000000000001", fails=1), "unknown GPU")
        without = dict(os.environ, SOFTSIM_NVML="absent")
        bare = document(env=without)
        check(sorted(gpu["uuid"] for gpu in bare["gpus"]) == sorted(books.uuid), "without NVML", bare["gpus"])
        check(all(set(gpu) == {"uuid"} for gpu in bare["gpus"]), "without NVML", bare["gpus"])
        # A budget is shown to programs with the library in front of them, not to who asks for the GPUs.
        inside = subprocess.run([COMMAND, "run", "--tenant", "zeta", "--", COMMAND, "status", "--json"], stdout=subprocess.PIPE, check=True, timeout=60)
        check([gpu["memory_used_bytes"] for gpu in json.loads(inside.stdout)["gpus"]] == Books().used, "under softslice run")
    for (gpu, pid), told in busy.items():
        books.check_busy(gpu, pid, told)
    check(document()["tenants"] == [], "after their end")
    ended = by_name(document("--all", "--members"))
    check(sorted(ended) == ["alpha", "zeta"] and ended["zeta"]["processes"] == 0 and ended["zeta"]["members"] == [], "--all", ended)
    check(ended["zeta"]["devices"][0]["vram"]["current_bytes"] == 0 and "compute" not in ended["zeta"]["devices"][0], "--all", ended)
    check("No tenants in " + STATE in status(), "no tenants")
    check(list(by_name(document("--tenant", "zeta"))) == ["zeta"], "by name, after its end")


def used_wrongly():
    for arguments, why in ((["team"], "not understood"), (["--bogus"], "unknown"), (["--device", "x"], "not a device"), (["--interval", "-1"], "interval"),
                           (["--interval", "1s"], "interval"), (["--interval", "nan"], "interval"), (["--tenant", "a", "--tenant", "b"], "twice"),
                           (["--tenant", ""], "empty"), (["--tenant", "../zeta"], "'../zeta' is not a tenant's name"),
                           (["--state-dir"], "needs a value"), (["--state-dir", ""], "empty")):
        check(why in status(*arguments, fails=125), arguments)
    for arguments, why in ((["--state-dir", "/nowhere\n\033[1m"], "No such file"),
                           (["--root", "/nowhere"], "No such file"), (["--state-dir", os.path.join(STATE, "zeta", "ledger")], "Not a directory")):
        check(why in status(*arguments, fails=1), arguments)
    # One that is there is shown, the other one told of.
    found = document("--state-dir", STATE, "--state-dir", "/nowhere/\033[1m", "--root", "/nowhere", "--all")
    check(len(found["tenants"]) == 2 and len(found["warnings"]) == 2 and "\ufffd[1m" in found["warnings"][0], found["warnings"])
    full = subprocess.run([COMMAND, "status"], stdout=open("/dev/full", "w", encoding="ascii"), stderr=subprocess.PIPE, check=False, timeout=60)
    check(full.returncode == 125 and b"cannot write" in full.stderr, "a full device", full)


def folder(name, directory=STATE):
    path = os.path.join(os.fsencode(directory), os.fsencode(name))
    os.mkdir(path)
    return path


def damaged():
    """Whatever stands where a ledger should is named, and nothing of it is believed."""
    with open(os.path.join(STATE, "zeta", "ledger"), "rb") as file:
        good = file.read()
    row, stride = struct.unpack_from("=II", good, 32)

    def broken(name, content):
        with open(os.path.join(folder(name), b"ledger"), "wb") as file:
            file.write(content)

    broken("d-empty", b"")
    broken("d-short", good[:100])
    broken("d-text", b"hello\033[31m\n" * 1000)
    broken("d-truncated", good[:len(good) // 2])
    broken("d-header", good[:40] + b"\xff" + good[41:])
    broken("d-version", good[:8] + b"\x09" + good[9:])
    broken("d-limit", good[:4096 + 32] + b"\xff" * 8 + good[4096 + 40:])
    broken("d-twice", good[:row + stride] + good[row:row + stride] + good[row + 2 * stride:])
    broken("good\033[31m\n", good)
    broken(b"g\xff\xc3\xa9\xe2\x80\xaeood", good)
    os.mkfifo(os.path.join(folder("d-fifo"), b"ledger"))
    os.symlink(os.path.join(STATE, "zeta", "ledger"), os.path.join(folder("d-link"), b"ledger"))
    os.mkdir(os.path.join(folder("d-folder"), b"ledger"))
    with open(os.path.join(folder("d-huge"), b"ledger"), "wb") as file:
        file.truncate(1 << 40)
    os.symlink("zeta", os.path.join(STATE, "d-folder-link"))
    folder("no-ledger")
    for name in ("a file", ".hidden"):
        with open(os.path.join(STATE, name), "w", encoding="ascii") as file:
            file.write("x")
    tenants = by_name(document("--all"))
    why = {name: tenant.get("unreadable") for name, tenant in tenants.items()}
    expected = {"d-empty": "truncated", "d-short": "truncated", "d-text": "not a ledger", "d-truncated": "truncated", "d-header": "scribbled",
                "d-version": "major version", "d-limit": "scribbled", "d-twice": "scribbled", "d-fifo": "regular file",
                "d-link": "symbolic link", "d-folder": "regular file", "d-huge": "larger than any", "d-folder-link": "symbolic link"}
    for name, word in expected.items():
        check(word in (why.pop(name, None) or ""), name, tenants.get(name))
    check(why == dict.fromkeys(["alpha", "zeta", "good\ufffd[31m\ufffd", "g\ufffd\xe9\ufffd\ufffd\ufffdood"]), "the rest", why)
    table = status("--all")
    check(len({line.index("cannot be read: ") for line in table.split("\n") if line.split(" ")[0] in expected}) == 1, "the reasons' column", table)
    check(all(name + " cannot be read: " in " ".join(table.split()) for name in expected), table)
    for name in expected:
        path = os.path.join(STATE, name)
        if os.path.islink(path):
            os.unlink(path)
        else:
            shutil.rmtree(path)
    return good


def changing(good):
    """Ledgers that come, go and shrink while they are read."""
    done = threading.Event()

    def change():
        path = os.path.join(STATE, "fleeting")
        while not done.is_set():
            os.makedirs(path, exist_ok=True)
            with open(os.path.join(path, "ledger"), "wb") as file:
                file.write(good)
                file.flush()
                for size in (4096, 200, 0):
                    file.truncate(size)
            shutil.rmtree(path)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(100):
            tenants = by_name(document("--all"))
            check("zeta" in tenants and "unreadable" not in tenants["zeta"], "while another one changes", tenants)
    finally:
        done.set()
        changer.join()


def labels():
    """All state directories in a root, and whose they are."""
    root = os.path.join(TMP, "root")
    os.mkdir(root)
    for name in ("one", "two", "three", "four", "five"):
        os.mkdir(os.path.join(root, name))
        shutil.copytree(os.path.join(STATE, "zeta"), os.path.join(root, name, "zeta"))

    def write(name, text, mode=0o644):
        path = os.path.join(root, name, "labels.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)

    good = "[labels]\npod = trainer-0\nnamespace = team.a\ncontainer = main\n"
    write("one", good)
    write("two", "[labels]\npod = x\nnamespace = a/b\n")
    write("three", good, 0o666)
    os.symlink("../one/labels.ini", os.path.join(root, "four", "labels.ini"))
    os.symlink("one", os.path.join(root, "link"))
    os.mkfifo(os.path.join(root, "five", "labels.ini"))
    found = document("--root", root, "--all")
    named = {os.path.basename(tenant["state_directory"]): [tenant.get(key) for key in ("pod", "namespace", "container")] for tenant in found["tenants"]}
    nothing = [None] * 3
    check(named == {"one": ["trainer-0", "team.a", "main"], "two": nothing, "three": nothing, "four": nothing, "five": nothing}, "labels", named)
    told = "\n".join(found["warnings"])
    check(len(found["warnings"]) == 5 and "two/labels.ini:3: a name has" in told and "three/labels.ini: everybody" in told and
          "four/labels.ini: a symbolic link" in told and "five/labels.ini: not a regular file" in told and "/link" in told, "warnings", told)
    table = status("--root", root, "--all")
    check("\n" + root + "/one: team.a/trainer-0/main\nzeta " in table and "\n" + root + "/two\nzeta " in table, table)
    if os.geteuid() == 0:
        os.chown(os.path.join(root, "one", "labels.ini"), 1234, 1234)
        found = document("--root", root, "--all")
        check("one/labels.ini: belongs to uid 1234" in "\n".join(found["warnings"]), "another user's labels", found["warnings"])


def admin_file():
    """The admin's file of a state directory holds; a link to one is followed nowhere on the way, for the directory may be anybody's."""
    root = os.path.join(TMP, "narrow")
    etc = os.path.join(root, ".etc", "softslice")
    ini = os.path.join(etc, "softslice.ini")
    os.makedirs(etc)
    shutil.copytree(os.path.join(STATE, "zeta"), os.path.join(root, "zeta"))
    with open(ini, "w", encoding="ascii") as file:
        file.write("[softslice]\ntenant = zeta\nvram = 77MiB\n")
    os.chmod(ini, 0o644)

    def limits():
        return {device["vram"].get("limit_bytes") for device in by_name(document("--all", "--state-dir", root))["zeta"]["devices"]}

    check(limits() == {77 << 20}, "the admin's limit", limits())
    for path in (ini, etc, os.path.join(root, ".etc")):
        os.rename(path, path + "-real")
        os.symlink(path + "-real", path)
        check(77 << 20 not in limits(), "a link was followed", path)
        os.unlink(path)
        os.rename(path + "-real", path)
    check(limits() == {77 << 20}, "the admin's limit again", limits())
    os.unlink(ini)
    os.mkfifo(ini)
    check(77 << 20 not in limits(), "a FIFO")


def others():
    """Tenants whose files may not be read are named with the reason."""
    path = os.path.join(STATE, "alpha")
    if os.geteuid() == 0 and shutil.which("setpriv"):
        before = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if subprocess.run(before + ["test", "-x", COMMAND], check=False).returncode or subprocess.run(before + ["ls", STATE], stdout=subprocess.DEVNULL,
                                                                                                     stderr=subprocess.DEVNULL, check=False).returncode:
            os.chmod(STATE, 0o755)
            os.chmod(os.path.dirname(STATE), 0o755)
    elif os.geteuid() == 0:
        return
    else:
        before = []
    turns = os.path.join(STATE, "turns")
    os.makedirs(turns, exist_ok=True)
    os.chmod(path, 0o000)
    os.chmod(turns, 0o000)
    if subprocess.run(before + [COMMAND, "version"], stdout=subprocess.DEVNULL, check=False).returncode == 0 and \
            subprocess.run(before + ["ls", STATE], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        found = by_name(document("--all", "--state-dir", STATE, before=before))
        tenant = found["alpha"]
        check("turns" not in found, "the folder of turns is no tenant", list(found))
        print("as another user")
        check("permission denied: it belongs to uid %d" % os.geteuid() in tenant["unreadable"], tenant)
        os.chmod(STATE, 0o700)
        refusal = said("status", "--state-dir", STATE, before=before, fails=1)
        os.chmod(STATE, 0o755)
        check(refusal == "softslice: status: state directory %s: Permission denied\n" % STATE, refusal)
    os.chmod(path, 0o700)
    os.chmod(turns, 0o700)


def weights():
    """Weights have a column where there is one, those that follow from shares too, and each table says in which directory its tenants are."""
    check("WEIGHT" not in status("--all"), "no weight, no column")
    other = os.path.join(TMP, "other")
    os.mkdir(other)
    with holding(["--tenant", "heavy", "--weight", "300"], "take:0:1234567"), holding(["--tenant", "capped", "--compute", "20%"], "take:0:1234567"), \
            holding(["--tenant", "slight", "--compute", "0.3%"], "take:0:1234567"), holding(["--tenant", "free", "--vram", "1GiB"], "take:0:1234567"):
        table = status("--members", "--state-dir", STATE, "--state-dir", other, "--interval", "0")
    rows = {row[0]: row[-1] for row in rows_of(table, "TENANT  GPU")}
    weights_of = {"heavy": "300", "capped": "20", "slight": "1", "free": "-"}
    check("REFUSED  WEIGHT\n" in table and {name: rows.get(name) for name in weights_of} == weights_of, table)
    check(table.split("\n").count(STATE) == 2, "the directory, in the tables of tenants and of processes", table)


def namespaces():
    """A member in a PID namespace of its own has the number there and the one here."""
    words = ["unshare", "-rpf", "--mount-proc"]
    if subprocess.run(words + ["true"], stderr=subprocess.DEVNULL, check=False).returncode:
        print("no PID namespaces here")
        return
    with holding(["--tenant", "apart", "--vram", "1GiB"], "take:0:1234567", before=words) as program:
        member = by_name(document("--members"))["apart"]["members"][0]
        with open("/proc/%d/task/%d/children" % (program.pid, program.pid), encoding="ascii") as children:
            child = int(children.read())
        check(member["pid"] == 1 and member["host_pid"] == child and member["command"].startswith("python"), member, child)
        table = status("--members")
        check(["apart", str(child), "1"] in [line.split()[:3] for line in table.split("\n")], table)


def very_many():
    """10,000 tenants in bounded memory; what is beyond is counted."""
    many = os.path.join(TMP, "many")
    os.mkdir(many)
    for i in range(10050):
        os.mkdir("%s/t%05d" % (many, i))
        os.link(os.path.join(STATE, "zeta", "ledger"), "%s/t%05d/ledger" % (many, i))
    path = os.path.join(TMP, "many.json")
    with open(path, "wb") as output:
        program = subprocess.Popen([COMMAND, "status", "--json", "--all", "--members", "--state-dir", many], stdout=output)
        _, code, usage = os.wait4(program.pid, 0)
    check(code == 0 and usage.ru_maxrss < 400 << 10, "status and KiB for many", code, usage.ru_maxrss)
    with open(path, encoding="utf-8") as text:
        found = json.load(text)
    check(len(found["tenants"]) == 10000 and found["omitted"] == 50, "many", len(found["tenants"]), found["omitted"])
    # Whoever has so many hides nobody else's.
    crowd = os.path.join(TMP, "crowd")
    os.makedirs(os.path.join(crowd, "b"))
    os.rename(many, os.path.join(crowd, "a"))
    shutil.copytree(os.path.join(STATE, "zeta"), os.path.join(crowd, "b", "zeta"))
    for where in (["--root", crowd], ["--state-dir", os.path.join(crowd, "a"), "--state-dir", os.path.join(crowd, "b")]):
        found = document("--all", *where)
        check(found["tenants"][-1]["tenant"] == "zeta" and found["omitted"] > 50, "beside a crowd", where, found["omitted"])


validate = schema_validator("status.schema.json")
started = time.monotonic()
two_tenants()
used_wrongly()
content = damaged()
changing(content)
labels()
admin_file()
others()
weights()
namespaces()
very_many()
if not validate:
    print("pip could not bring jsonschema; all else is as it should be")
    sys.exit(77)
print("all as the books say, in %.0f s" % (time.monotonic() - started))
