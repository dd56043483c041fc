#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The exporter tells what `softslice status --json` tells, and nothing that is not known; and whoever writes garbage to it, or nothing, does
no harm."""
# run: SOFTSIM_CONTEXT_BYTES=134217728 SOFTSIM_MEM=8589934592 SOFTSIM_GPUS=2 SOFTSLICE_LOG=off
# timeout: 240
# unsanitized: it compares what a plain program takes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from exporter_helper import COMMAND, MiB, STATE, TAKER, TMP, Exporter, begin, check, hold, status, value, wait_for, work

random.seed(5)

# ---- what it tells

MEMORY = {"limit": "limit_bytes", "current": "current_bytes", "peak": "peak_bytes", "spilled": "spilled_bytes"}
TIMES = {"gpu_busy_seconds": "busy_ns", "gpu_throttled_seconds": "throttled_ns", "gpu_forgiven_seconds": "forgiven_ns"}
COUNTS = {"periods": "nr_periods", "throttled_periods": "nr_throttled", "turns_taken": "turns_taken", "turns_lost": "turns_lost"}


def exact(ns):
    return "%d.%09d" % divmod(ns, 10 ** 9)


def devices(document):
    return {(tenant["tenant"], device["gpu"]): (tenant, device) for tenant in document["tenants"] for device in tenant.get("devices", ())}


def compare_memory(samples, labels, vram):
    """What holds still, to the byte."""
    for name, key in MEMORY.items():
        told = value(samples, "softslice_memory_%s_bytes" % name, **labels)
        check(told == (str(vram[key]) if vram and key in vram else None), "%s of %s: %s, status has %s" % (name, labels, told, vram))
    for event in ("refused", "oom", "buried", "underflow"):
        told = value(samples, "softslice_memory_events_total", event=event, **labels)
        check(told == (str(vram["events"][event]) if vram else None), "%s of %s: %s" % (event, labels, told))


def compare_compute(samples, labels, before, after):
    """What moves, between two looks of status."""
    for names, text in ((TIMES, exact), (COUNTS, str)):
        for name, key in names.items():
            told = value(samples, "softslice_%s_total" % name, **labels)
            if not before:
                check(told is None, "%s of %s is there" % (name, labels))
                continue
            check(text(before[key]).zfill(40) <= told.zfill(40) <= text(after[key]).zfill(40),
                  "%s of %s: %s, not from %s to %s" % (name, labels, told, text(before[key]), text(after[key])))
    share, weight = (value(samples, "softslice_compute_" + name, **labels) for name in ("share_ratio", "weight"))
    check((share is None) == (not before) and (not before or float(share) == before["share_percent"] / 100), "share %s" % share)
    check(weight == (str(before["weight"]) if before and "weight" in before else None), "weight %s" % weight)


def compare(exporter):
    time.sleep(0.15)  # an older look is not shared any more
    before, samples, after = status(), exporter.metrics(), status()
    earlier, later = devices(before), devices(after)
    check(earlier.keys() == later.keys() and len(earlier) >= 8, "devices of tenants: %s" % list(earlier))
    for (tenant, gpu), (whole, device) in earlier.items():
        labels = {"tenant": tenant, "gpu": gpu}
        compare_memory(samples, labels, device.get("vram"))
        compare_compute(samples, labels, device.get("compute"), later[tenant, gpu][1].get("compute"))
        check(value(samples, "softslice_processes", tenant=tenant) == str(whole["processes"]), "processes of " + tenant)
    for gpu in before["gpus"]:
        for name, key in (("size", "memory_total_bytes"), ("used", "memory_used_bytes")):
            told = value(samples, "softslice_gpu_memory_%s_bytes" % name, gpu=gpu["uuid"])
            check(told == (str(gpu[key]) if key in gpu else None), "%s of %s: %s" % (name, gpu, told))
    check(value(samples, "softslice_tenants") == str(len(before["tenants"])), "softslice_tenants")
    known = {(tenant, gpu) for tenant, gpu in earlier}
    check(known == {(dict(labels)["tenant"], dict(labels)["gpu"]) for (name, labels) in samples if "tenant" in dict(labels) and
                    "gpu" in dict(labels)}, "series of a tenant or GPU that is not there")
    return samples


holder = hold("team", mib=192, vram="1037MiB")
worker = work("team", compute="30%", vram="1037MiB")
hold("refused", mib=9999, vram="519MiB")
hold("named")
# A share alone, and no name: its bytes are not counted.
begin(TAKER + ["64"], env=dict(os.environ, LD_PRELOAD=os.environ["TEST_PRELOAD"], SOFTSLICE_COMPUTE="12.34%", SOFTSLICE_WEIGHT="77"), stdin=subprocess.PIPE,
      stdout=subprocess.PIPE).stdout.readline()
check(holder.got == 192, "the member got %s" % holder.got)
exporter = Exporter()
wait_for("work", lambda: float(value(exporter.metrics(), "softslice_gpu_throttled_seconds_total", gpu=status()["gpus"][0]["uuid"],
                                     tenant="team") or 0) > 0)
samples = compare(exporter)
alone = next(tenant["tenant"] for tenant in status()["tenants"] if tenant["armed"] == ["compute"])
GPU = next(device["gpu"] for tenant in status()["tenants"] if tenant["tenant"] == "team" for device in tenant["devices"] if
           device["vram"]["current_bytes"])

# The rows that are to be absent were there to be compared.
check(value(samples, "softslice_memory_limit_bytes", tenant="named", gpu=GPU) is None, "a limit that nobody set")
check(value(samples, "softslice_memory_limit_bytes", tenant="team", gpu=GPU) == str(1037 * MiB), "the team's limit")
check(value(samples, "softslice_compute_share_ratio", tenant=alone, gpu=GPU) == "0.1234", "the share")
check(int(value(samples, "softslice_memory_events_total", tenant="refused", gpu=GPU, event="refused")) > 0, "no refusal")


def lint(body):
    """What Prometheus' own checker says; HAMi's older names are not to its taste."""
    if not shutil.which("promtool"):
        print("promtool is not here: the metrics were not checked with it")
        return
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    check(checked.returncode == 0 and not checked.stdout, "promtool: " + checked.stdout.decode())


lint(exporter.ask("/metrics")[2])
print("as status --json has it")

# Who comes within 100 ms gets the same look.
sizes = {exporter.ask("/metrics")[2] for _ in range(3)}
for attempt in range(20):
    sizes = {exporter.ask("/metrics")[2] for _ in range(2)}
    if len(sizes) == 1:
        break
check(len(sizes) == 1, "two scrapes never had the same look")

# The same document as status's own, and what it is made of.
document, own = json.loads(exporter.ask("/api/v1/status")[2]), status()
check({tenant["tenant"] for tenant in document["tenants"]} == {tenant["tenant"] for tenant in own["tenants"]}, "the status document")
check(document.keys() == own.keys(), "its keys: %s" % document.keys())


def history():
    code, headers, body = exporter.ask("/api/v1/history")
    check(code == 200 and headers["Content-Type"] == "application/json", "the history: %s" % code)
    return json.loads(body)


past = wait_for("three samples", lambda: len(history()["when"]) >= 3 and history())
check(past["interval_seconds"] == 2 and past["omitted"] == 0 and sorted(past["when"]) == past["when"], "the history's times")
for series in past["series"]:
    for key in ("busy", "throttled", "current", "refused"):
        check(len(series[key]) == len(past["when"]), "%s of %s is not as long as the time" % (key, series["tenant"]))
    check((series["busy"][-1] is not None) == (series["tenant"] in ("team", alone)), "busy of " + series["tenant"])
    check((series["current"][-1] is None) == (series["tenant"] == alone), "current of " + series["tenant"])
team = next(series for series in past["series"] if series["tenant"] == "team" and series["gpu"] == GPU)
check(0 < team["busy"][-1] <= 1 and 0 < team["throttled"][-1] <= 1, "the team does nothing: %s" % team)
print("history")

# Counters outlive the members that counted.
COUNTERS = [key for key in samples if key[0].endswith("_total")]
worker.kill()
worker.wait()
for _ in range(5):
    later = exporter.metrics()
    for key in COUNTERS:
        check(key not in later or float(later[key]) >= float(samples[key]), "%s went back to %s" % (key, later.get(key)))
    samples = later
    time.sleep(0.15)

# What is in HAMi's names is the same.
hami = Exporter("--hami-names")
told = hami.metrics()
for name, labels in (("hami_vgpu_memory_%s_bytes", {"device_uuid": GPU}), ("vGPU_device_memory_%s_in_bytes", {"deviceuuid": GPU})):
    used = value(told, name % ("used" if name.startswith("hami") else "usage"), tenant="team", **labels)
    check(used == value(told, "softslice_memory_current_bytes", tenant="team", gpu=GPU), "%s: %s" % (name, used))
    check(value(told, name % "limit", tenant="team", **labels) == str(1037 * MiB), name % "limit")
    check(value(told, name % "limit", tenant="named", **labels) is None, "a limit that nobody set, in HAMi's name")
for name in ("hami_container_device_utilization_ratio", "Device_utilization_desc_of_container"):
    wait_for(name, lambda name=name: any(key[0] == name for key in hami.metrics()))
check(not any(key[0].startswith(("hami_", "vGPU_")) for key in samples), "HAMi's names unasked")
check(hami.stop() == 0, "the end by SIGTERM")
print("HAMi's names")

# Names of any bytes, and ledgers that are none.
odd = [b'quote"and\\back', b"line\nbreak\ttab", b"line\1break\1tab", b"\xff\xfe", "grün".encode(), b"{}=,", b"a" * 255]
for name in odd:
    folder = os.path.join(STATE.encode(), name)
    os.mkdir(folder)
    with open(os.path.join(folder, b"ledger"), "wb") as ledger:
        ledger.write(b"no ledger" * 1000)
wait_for("the odd ones to be told", lambda: value(exporter.metrics(), "softslice_unreadable_tenants") == str(len(odd)))
told = exporter.metrics()
shown = sorted(tenant["tenant"] for tenant in status()["tenants"] if "unreadable" in tenant)
check(sorted(dict(labels)["tenant"] for (name, labels) in told if name == "softslice_tenant_unreadable") == shown, "the odd ones' names")
check({dict(labels).get("tenant_bytes") for (name, labels) in told if name == "softslice_tenant_unreadable"} ==
      {None, b"line\nbreak\ttab".hex(), b"line\1break\1tab".hex(), b"\xff\xfe".hex()}, "the bytes of names that cannot be shown")
check('quote"and\\back' in shown and "grün" in shown, "names in status: %s" % shown)
lint(exporter.ask("/metrics")[2])
print("odd names")

# ---- directories of containers: whose they are is in the labels

ROOM = os.path.join(TMP, "containers")
for name in ("one", "two"):
    os.makedirs(os.path.join(ROOM, name), 0o700)
    with open(os.path.join(ROOM, name, "labels.ini"), "w", encoding="ascii") as file:
        file.write("[labels]\npod = %s-0\nnamespace = team-a\ncontainer = main\n" % name)
    hold("default", vram="300MiB", env=dict(os.environ, SOFTSLICE_STATE_DIR=os.path.join(ROOM, name)))
contained = Exporter("--root", ROOM, "--hami-names")
told = contained.metrics()
for name in ("one", "two"):
    labels = {"tenant": "default", "directory": os.path.join(ROOM, name), "namespace": "team-a", "pod": name + "-0", "container": "main"}
    check(value(told, "softslice_memory_limit_bytes", gpu=GPU, **labels) == str(300 * MiB), "the limit in the container " + name)
    labels = {"tenant": "default", "podname": name + "-0", "podnamespace": "team-a", "ctrname": "main", "deviceuuid": GPU}
    check(value(told, "vGPU_device_memory_limit_in_bytes", **labels) == str(300 * MiB), "HAMi's name for the limit in the container " + name)
check(contained.stop() == 0, "the end")
twice = Exporter("--root", ROOM, "--root", ROOM + "/", "--state-dir", os.path.join(ROOM, "one"), "--state-dir", os.path.join(ROOM, "one") + "//")
check(value(twice.metrics(), "softslice_tenants") == "2", "what is named twice")
check(twice.stop() == 0, "the end")
print("containers")

# ---- as a user who may not read what others have

NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}


def nobody_can_run():
    """Where the build lies in a directory of root's own, others cannot."""
    try:
        return subprocess.run([COMMAND, "version"], stdout=subprocess.DEVNULL, check=False, **NOBODY).returncode == 0
    except OSError:
        return False


if os.getuid() == 0 and nobody_can_run():
    OPEN = os.path.join(TMP, "open")
    os.mkdir(OPEN)
    os.chmod(OPEN, 0o1777)
    os.chmod(TMP, 0o711)
    hold("secret", vram="300MiB", env=dict(os.environ, SOFTSLICE_STATE_DIR=OPEN))
    os.chmod(os.path.join(OPEN, "secret"), 0o700)
    nobody = Exporter("--state-dir", OPEN, **NOBODY)
    told = nobody.metrics()
    check(value(told, "softslice_tenant_unreadable", tenant="secret") == "1", "a tenant that may not be read")
    check(value(told, "softslice_tenant_unreadable", tenant="secret", reason="permission") == "1", "why: %s" % [key for key in told if "secret" in str(key)])
    check(value(told, "softslice_processes", tenant="secret") is None, "its processes")
    check(value(told, "softslice_scrape_success") == "1" and value(told, "softslice_tenants") == "0", "the others")
    check(nobody.stop() == 0, "the end")
    print("as nobody")

# ---- HTTP

for path, wanted in (("/", 200), ("/healthz", 200), ("/metrics?x=y", 200), ("/metrics/", 404), ("/..%2f..%2fetc/passwd", 404), ("/x" * 4000, 404)):
    code, headers, body = exporter.ask(path)
    check(code == wanted, "%s: %d" % (path[:40], code))
    check("Content-Security-Policy" in headers and headers["X-Content-Type-Options"] == "nosniff", "headers of %s: %s" % (path[:40], headers))
    check(not any(name.startswith("Access-Control") for name in headers), "CORS: %s" % headers)
for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"):
    code, headers, body = exporter.ask("/metrics", method, body="x=1" if method == "POST" else None)
    check(code == 405 and headers["Allow"] == "GET, HEAD", "%s: %d" % (method, code))
code, headers, body = exporter.ask("/metrics", "HEAD")
check(code == 200 and not body and int(headers["Content-Length"]) > 1000, "HEAD: %s" % headers)
for host, wanted in (("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("[::1]", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403),
                     ("localhost.evil.example:80", 403), ("[::1", 403)):
    code = exporter.ask("/metrics", headers={"Host": host})[0]
    check(code == wanted, "Host %s: %d" % (host, code))
if os.path.exists("/proc/net/if_inet6"):
    try:
        mapped = socket.create_server(("::ffff:127.0.0.1", 0), family=socket.AF_INET6)
    except OSError as error:
        print("no IPv4 in IPv6 here: %s" % error)
    else:
        mapped.close()
        other = Exporter(listen="[::ffff:127.0.0.1]:0")
        for host, wanted in (("localhost", 200), ("evil.example", 403)):
            code = other.ask("/metrics", headers={"Host": host})[0]
            check(code == wanted, "Host %s, of the loopback address in IPv6: %d" % (host, code))
        check(other.stop() == 0, "the end")


def connect(timeout=20):
    return socket.create_connection((exporter.host, exporter.port), timeout=timeout)


def all_of(client):
    data = b""
    try:
        while True:
            part = client.recv(65536)
            if not part:
                return data
            data += part
    except OSError:
        return data


with connect() as client:
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 49 + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answers = all_of(client).count(b"HTTP/1.1 200 OK")
check(answers == 50, "%d of 50 requests in one piece were answered" % answers)


def is_well():
    begun = time.monotonic()
    samples = exporter.metrics()
    check(exporter.process.poll() is None and value(samples, "softslice_scrape_success") == "1", "the exporter is not well")
    return time.monotonic() - begun


is_well()
threads = len(os.listdir("/proc/%d/task" % exporter.process.pid))
before = exporter.memory()
garbage = [os.urandom(random.randrange(1, 20000)) for _ in range(100)] + [
    b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", b"\r\n" * 1000, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 10000, b"G" * 100000,
    b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000000,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n", b"GET /metrics HTTP/1.1\r\nHost: \0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)]
for data in garbage:
    with connect(timeout=1) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        all_of(client)
is_well()
print("garbage")

# Half a request, from 500 clients at once, each a byte now and then; others ask for everything and do not read it.
slow = [connect() for _ in range(500)]
for i, client in enumerate(slow):
    try:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20 if i % 3 == 0 else b"GET /metrics HT")
    except OSError:
        pass
for _ in range(10):
    check(is_well() < 10, "a scrape beside slow clients took too long")
    for client in slow[1::7]:
        try:
            client.sendall(b"X")
        except OSError:
            pass
descriptors = len(os.listdir("/proc/%d/fd" % exporter.process.pid))
check(descriptors < 200, "%d descriptors" % descriptors)
for client in slow:
    client.close()
for _ in range(3):
    crowd = [threading.Thread(target=is_well) for _ in range(100)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
is_well()
grown = exporter.memory() - before
check(grown < 16 * MiB, "it grew by %d KiB" % (grown // 1024))
check(len(os.listdir("/proc/%d/task" % exporter.process.pid)) == threads, "threads were left")
print("slow clients; it grew by %d KiB" % (grown // 1024))

# ---- begin and end

used = "127.0.0.1:%d" % exporter.port
refusals = [(["--listen", used], "cannot listen on %s: another program does" % used), (["--listen", "192.0.2.1:9877"], "no such address"),
            (["--textfile", TMP + "/none/x.prom"], "cannot write"), (["--textfile", STATE], "cannot write"), (["--interval", "3"], "--interval is for"),
            (["--textfile", "x", "--interval", "-1"], "not a number"), (["--listen"], "needs a value"), (["--nonsense"], "unknown"), (["x"], "'x'"),
            (["--listen", used, "--listen", used], "twice"), (["--textfile", TMP + "/" + "a" * 255], "cannot write")]
refusals += [(["--listen", bad], "not an address") for bad in ("", "9877", ":9877", "localhost", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x",
                                                              "::1:80", "[::1]", "[::1]80", "1.2.3:80", "127.0.0.1:-1", "a" * 500 + ":1", "\n:1") if bad]


def refused(options, words, **how):
    result = subprocess.run([COMMAND, "exporter"] + options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20, check=False, **how)
    check(result.returncode == 125 and not result.stdout and result.stderr.count("\n") == 1 and words in result.stderr,
          "%s: %d %r" % (options, result.returncode, result.stderr))


for options, words in refusals:
    refused(options, words)
with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as first:
    if os.getuid() == 0 and nobody_can_run() and int(first.read()) > 80:
        refused(["--listen", "127.0.0.1:80"], "may not listen", **NOBODY)

with connect(), connect() as client:
    client.sendall(b"GET /metr")
    begun = time.monotonic()
    check(exporter.stop(signal.SIGINT) == 0, "the end by SIGINT")
    check(time.monotonic() - begun < 10, "the end took long")
if socket.has_ipv6:
    try:
        six = Exporter(listen="[::1]:0")
    except SystemExit:
        six = None
    if six:
        check(six.ask("/healthz")[0] == 200, "IPv6")
        check(six.stop() == 0, "the end")
print("begin and end")

# A driver that hangs keeps the exporter from telling anything, and not from ending.
block = os.path.join(TMP, "block")
hanging = dict(os.environ, SOFTSIM_BLOCK="nvmlDeviceGetCount_v2:" + block)


def blocked():
    with open(block, encoding="ascii") as file:
        return file.read()


def begin_blocked():
    with open(block, "w", encoding="ascii"):
        pass


exporter = Exporter(env=hanging)
begin_blocked()
with connect() as client:
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for("the driver to hang", blocked)
    check(exporter.stop() == 0, "the end while the driver hangs")
begin_blocked()
early = begin([COMMAND, "exporter", "--textfile", os.path.join(TMP, "early.prom")], env=hanging)
wait_for("the driver to hang", blocked)
early.send_signal(signal.SIGTERM)
check(early.wait(timeout=20) == -signal.SIGTERM and not os.path.exists(os.path.join(TMP, "early.prom")), "the end before the first file is there")
os.unlink(block)
print("a driver that hangs")

# ---- a file: whoever reads it at any moment reads all of it

path = os.path.join(TMP, "softslice.prom")
writer = begin([COMMAND, "exporter", "--textfile", path, "--interval", "1"])
wait_for("the file", lambda: os.path.exists(path))
seen = set()
until = time.monotonic() + 3.5
while time.monotonic() < until:
    with open(path, "rb") as file:
        text = file.read()
        seen.add(os.fstat(file.fileno()).st_ino)
        check(os.fstat(file.fileno()).st_mode & 0o7777 == 0o644, "its mode")
    check(text.startswith(b"# HELP softslice_build_info") and text.endswith(b"\n") and b"softslice_gpu_memory_used_bytes{" in text.splitlines()[-1],
          "a part of the file: %r" % text[-100:])
check(len(seen) >= 2, "it was written once")
writer.send_signal(signal.SIGTERM)
check(writer.wait(timeout=20) == 0 and not os.path.exists(path), "the file after the end")
check(subprocess.run([COMMAND, "exporter", "--textfile", path, "--interval", "0"], timeout=20, check=False).returncode == 0, "once")
check(os.path.exists(path), "the file, written once")
check(not [name for name in os.listdir(TMP) if name.startswith(".softslice.prom")], "something is left beside it")
print("file")

# Where there is nothing to look at, that is what it tells.
nothing = Exporter("--state-dir", os.path.join(TMP, "nowhere"))
samples = nothing.metrics()
check(value(samples, "softslice_scrape_success") == "0" and value(samples, "softslice_tenants") is None, "a directory that is not there")
check(nothing.ask("/api/v1/status")[0] == 503, "its status")
os.mkdir(os.path.join(TMP, "nowhere"), 0o700)
wait_for("it to be there", lambda: value(nothing.metrics(), "softslice_scrape_success") == "1")
check(nothing.stop() == 0, "the end")
sys.exit(0)
