# SPDX-License-Identifier: Apache-2.0
"""excess.py [--out DIR] [--budget MIB] [NAME...]: what the GPU really holds for a tenant against its budget.

Runs each program of excess_work.py under a budget, and meanwhile asks, every few milliseconds: NVML, from outside, what the processes of the
program hold (the host's nvidia-smi shows the same); and softslice's ledger, through a second process that only looks. Says the highest figure,
its excess over the budget, and the gap: how far figure and ledger are apart, in samples during which the ledger stood still. Writes
DIR/<date>-<gpu>-memory.md with the raw samples beside it. EXCESS_DRIVER=DIR takes the driver's libraries from DIR (the simulated GPU's for
one), to try this script itself. Exits 77 where there is no GPU, 1 where a figure was over the budget.
"""
import argparse
import ctypes
import datetime
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
STEP = 0.005
WORK = (("driver API", "driver", {}),
        ("PyTorch", "torch", {}),
        ("PyTorch, expandable segments", "torch", {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ("PyTorch, cudaMallocAsync", "torch", {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}),
        ("CuPy, both pools", "cupy", {}),
        ("JAX, preallocation", "jax", {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}),
        ("JAX, no preallocation", "jax", {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}))


class Process(ctypes.Structure):
    """nvmlProcessInfo_v2_t"""
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gpu", ctypes.c_uint), ("compute", ctypes.c_uint)]


class Nvml:
    """GPU 0, by what the loader finds: the driver's own, or softslice's view where this process is under it."""

    def __init__(self):
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self.device = ctypes.c_void_p()
        if self.library.nvmlInit_v2() or self.library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.device)):
            raise OSError("NVML has no GPU 0")

    def name(self):
        text = ctypes.create_string_buffer(96)
        self.library.nvmlDeviceGetName(self.device, text, 96)
        return text.value.decode()

    def driver(self):
        text = ctypes.create_string_buffer(96)
        self.library.nvmlSystemGetDriverVersion(text, 96)
        return text.value.decode()

    def used(self):
        memory = (ctypes.c_ulonglong * 3)()
        return memory[2] if self.library.nvmlDeviceGetMemoryInfo(self.device, memory) == 0 else None

    def processes(self):
        count, table = ctypes.c_uint(256), (Process * 256)()
        if self.library.nvmlDeviceGetComputeRunningProcesses_v3(self.device, ctypes.byref(count), table):
            return {}
        return {p.pid: p.used for p in table[:count.value] if p.used != 2 ** 64 - 1}


def family(root):
    """The process and all that came of it."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stat:
                    parents.setdefault(int(stat.read().rpartition(")")[2].split()[1]), []).append(int(name))
            except OSError:
                pass
    found, todo = set(), [root]
    while todo:
        found.add(todo[-1])
        todo += parents.get(todo.pop(), [])
    return found


def look():
    """Under softslice, in the program's tenant, without ever touching CUDA: what the ledger says, a line a sample."""
    nvml = Nvml()
    while True:
        begun, used = time.monotonic(), nvml.used()
        print(begun, time.monotonic(), used, flush=True)
        time.sleep(STEP)


def watch(label, name, settings, budget, folder):
    tenant = "excess-" + re.sub(r"[^a-z]+", "-", label.lower()).strip("-")
    limited = [os.path.join(ROOT, "build", "softslice"), "run", "--vram", f"{budget}", "--tenant", tenant, "--"]
    ledger_path, out_path = os.path.join(folder, tenant + ".ledger"), os.path.join(folder, tenant + ".out")
    with open(ledger_path, "w", encoding="ascii") as ledger, open(out_path, "w", encoding="utf-8") as out:
        program = subprocess.Popen(limited + [sys.executable, os.path.join(ROOT, "tests/gpu/excess_work.py"), name, str(budget)],
                                   env={**os.environ, **settings}, stdout=out, stderr=subprocess.STDOUT)
        looker = subprocess.Popen(limited + [sys.executable, os.path.abspath(__file__), "--look"], stdout=ledger)
        nvml, samples, pids, asked = Nvml(), [], set(), 0.0
        deadline = time.monotonic() + 150
        while program.poll() is None and time.monotonic() < deadline:
            now = time.monotonic()
            if now - asked > 0.1:
                pids, asked = family(program.pid), now
            listed = nvml.processes()
            samples.append((now, time.monotonic(), sum(listed.get(pid, 0) for pid in pids)))
            time.sleep(STEP)
        program.kill()
        program.wait()
        looker.kill()
        looker.wait()
    with open(ledger_path, encoding="ascii") as lines:
        told = [(float(a), float(b), int(c)) for a, b, c in (line.split() for line in lines if len(line.split()) == 3) if c.isdigit()]
    with open(out_path, encoding="utf-8", errors="replace") as lines:
        words = [line for line in lines.read().splitlines() if line and not line.startswith("softslice:")]
    return program.returncode, words[-1] if words else "", samples, told


def gaps(samples, told):
    """Figure less ledger, where the ledger said the same before and after."""
    found, at = [], 0
    for begun, done, figure in samples:
        while at + 1 < len(told) and told[at + 1][1] < begun:
            at += 1
        after = next((t for t in told[at + 1:] if t[0] > done), None)
        if after and told[at][1] < begun and told[at][2] == after[2] and figure:
            found.append(figure - told[at][2])
    return found


def mib(value):
    return f"{value / MIB:,.1f}"


def main():
    parser = argparse.ArgumentParser(usage="excess.py [--out DIR] [--budget MIB] [NAME...]", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(ROOT, "docs", "measurements"))
    parser.add_argument("--budget", type=int, default=8192, metavar="MIB")
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.look:
        return look()
    if os.environ.get("EXCESS_DRIVER") and os.environ["EXCESS_DRIVER"] not in os.environ.get("LD_LIBRARY_PATH", ""):
        os.environ["LD_LIBRARY_PATH"] = os.environ["EXCESS_DRIVER"]
        os.execv(sys.executable, [sys.executable] + sys.argv)
    try:
        nvml = Nvml()
    except OSError as error:
        print(f"skipped: no GPU: {error}")
        return 77
    budget, worst, rows = options.budget * MIB, 0, []
    slug = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}-{re.sub('[^a-z0-9]+', '-', nvml.name().lower()).strip('-')}-memory"
    raw = os.path.join(options.out, slug)
    os.makedirs(raw, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for label, name, settings in WORK:
            if options.names and name not in options.names:
                continue
            status, word, samples, told = watch(label, name, settings, budget, folder)
            if status == 77:
                rows.append(f"| {label} | not measured: {word} | | | | |")
                continue
            high, gap = max((figure for _, _, figure in samples), default=0), gaps(samples, told)
            worst = max(worst, high - budget)
            with open(os.path.join(raw, name + "-" + re.sub(r"[^a-z]+", "-", label.lower()).strip("-") + ".tsv"), "w", encoding="ascii") as f:
                for which, lines in (("nvml", samples), ("ledger", told)):
                    f.writelines(f"{which}\t{begun:.4f}\t{done:.4f}\t{value}\n" for begun, done, value in lines)
            rows.append(f"| {label} | {word}{'' if status == 0 else f' (exit status {status})'} | {mib(high)} | {mib(max(high - budget, 0))} "
                        f"| {mib(min(gap)) + ' to ' + mib(max(gap)) if gap else 'no sample at rest'} | {len(samples)} |")
    page = "\n".join([f"# What {nvml.name()} held for a tenant of {options.budget:,} MiB", "",
                      f"By `tests/gpu/excess.py`, driver {nvml.driver()}. MiB; a figure of NVML's every {STEP * 1000:g} ms or so. The gap is that figure less "
                      "the ledger, in samples during which the ledger stood still: above 0, memory that nobody was charged for.", "",
                      "| program | what it said | highest figure | over the budget | gap | samples |", "|---|---|---|---|---|---|"] + rows) + "\n"
    with open(os.path.join(options.out, slug + ".md"), "w", encoding="utf-8") as out:
        out.write(page)
    print(page)
    return 1 if worst > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
