# SPDX-License-Identifier: Apache-2.0
"""What the tests of the exporter share: tenants on the simulated GPU, the exporter, and a strict reader of Prometheus' text format."""
import atexit
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMAND, TMP = (os.environ["TEST_" + name] for name in ("COMMAND", "TMP"))
STATE = os.environ["SOFTSLICE_STATE_DIR"]
PATIENCE = int(os.environ["TEST_PATIENCE"])  # seconds for what comes sooner or later
WORKER = [sys.executable, os.path.join(ROOT, "tests", "cli", "worker.py")]
TAKER = [sys.executable, os.path.join(ROOT, "tests", "cli", "taker.py")]
MiB = 1 << 20
# scripts/setup unpacks there what would start a service if it were installed.
os.environ["PATH"] += os.pathsep + os.path.join(ROOT, "build", "packages", "usr", "bin")

started = []


def begin(words, **how):
    process = subprocess.Popen(words, **how)
    started.append(process)
    return process


@atexit.register
def end_all():
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def check(condition, what):
    if not condition:
        print("FAILED: " + what)
        sys.exit(1)


def wait_for(what, condition, seconds=PATIENCE):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    check(False, "waited in vain for " + what)
    return None


def run_options(vram, compute, weight):
    pairs = (("--vram", vram), ("--compute", compute), ("--weight", weight))
    return [word for name, value in pairs if value for word in (name, value)]


def hold(tenant, mib=64, vram=None, compute=None, weight=None, env=None):
    """A member that holds memory in pieces of 64 MiB until it is killed."""
    process = begin([COMMAND, "run", "--tenant", tenant] + run_options(vram, compute, weight) + ["--"] + TAKER + [str(mib)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    process.got = int(process.stdout.readline())
    return process


def work(tenant, vram=None, compute=None, weight=None):
    """A member that launches kernels, more than its share, until it is killed."""
    process = begin([COMMAND, "run", "--tenant", tenant] + run_options(vram, compute, weight) + ["--"] + WORKER, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True)
    process.stdin.write("work 20 21\n")
    process.stdin.flush()
    return process


def status():
    return json.loads(subprocess.run([COMMAND, "status", "--json"], check=True, stdout=subprocess.PIPE).stdout)


class Exporter:
    """The exporter on a free port."""

    def __init__(self, *options, listen="127.0.0.1:0", **how):
        self.process = begin([COMMAND, "exporter", "--listen", listen] + list(options), stdout=subprocess.PIPE, text=True, **how)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on http://(.*):(\d+)/\n", line)
        check(found, "the exporter says %r" % line)
        self.host, self.port = found.group(1).strip("[]"), int(found.group(2))

    def ask(self, path, method="GET", headers=None, body=None):
        """The status, the headers and the body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer

    def metrics(self):
        code, headers, body = self.ask("/metrics")
        check(code == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", "/metrics: %s %s" % (code, headers))
        return parse(body.decode())

    def memory(self):
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(timeout=20)


NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(r"(%s)(?:\{(.*)\})? (-?[0-9.]+(?:e[+-]?\d+)?)" % NAME)
LABEL = re.compile(r'(%s)="((?:[^"\\\n]|\\[n"\\])*)"(?:,|$)' % NAME)
UNESCAPE = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def parse(text):
    """{(name, ((label, value), ...)): value as text}. Whatever the format does not allow ends the test."""
    check(text.endswith("\n"), "no newline at the end")
    samples, kinds, family = {}, {}, None
    for line in text.split("\n")[:-1]:
        if line.startswith("# TYPE "):
            family, kind = line.split(" ")[2:]
            check(family not in kinds, "%s has two types" % family)
            kinds[family] = kind
            continue
        if line.startswith("# HELP "):
            continue
        found = SAMPLE.fullmatch(line)
        check(found and found.group(1) == family, "not a sample of %s: %r" % (family, line))
        labels, rest = [], found.group(2) or ""
        while rest:
            label = LABEL.match(rest)
            check(label, "not a label: %r in %r" % (rest, line))
            labels.append((label.group(1), re.sub(r"\\[n\"\\]", lambda match: UNESCAPE[match.group()], label.group(2))))
            rest = rest[label.end():]
        key = found.group(1), tuple(sorted(labels))
        check(key not in samples, "twice: %r" % line)
        check(len(set(dict(labels))) == len(labels), "a label twice: %r" % line)
        samples[key] = found.group(3)
    return samples


def value(samples, name, **labels):
    """The one sample of that name that has these labels; None where there is none."""
    found = [number for (other, pairs), number in samples.items() if other == name and set(labels.items()) <= set(pairs)]
    check(len(found) <= 1, "several: %s %s" % (name, labels))
    return found[0] if found else None


def need(program):
    if not shutil.which(program):
        print("%s is not here" % program)
        sys.exit(77)
