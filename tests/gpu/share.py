# SPDX-License-Identifier: Apache-2.0
"""share.py [--out DIR] [--seconds S] [PART...]: the compute share on a real GPU, in about six minutes.

Parts: table (26 scenarios of tests/share/run, each against the same programs without the library), launches (time of a launch with the gate open
and without the library), torch (a PyTorch matrix product loop and a decode-like loop of small kernels, 30/70, by weights, and under plain
time-slicing); and not unless asked for, rest (the table's other scenarios, a quarter of an hour more). Writes DIR/<date>-<gpu>-share.md with the
raw figures beside it. SHARE_DRIVER=DIR takes the driver's libraries from DIR (the simulated GPU's for one), to try this script itself; the part that
needs PyTorch is then skipped. Exits 77 where there is no GPU, 1 where a program failed: a missed bar is a finding, not a failure."""
import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
LOAD = os.path.join(BUILD, "tests", "share", "load")
RUN = os.path.join(ROOT, "tests", "share", "run")
CHOSEN = (["alone/async/%s/%d%%" % (kernel, share) for kernel in ("20 us", "1 ms", "20 ms") for share in (10, 50, 90)]
          + ["alone/%s/%s/50%%" % (kind, kernel) for kind in ("launch+sync", "graph", "4 streams", "4 processes") for kernel in ("20 us", "1 ms")]
          + ["alone/burst", "alone/marks", "several/cap/1 ms/30", "several/cap/20 us/30", "several/cap/1 ms/10, 20", "weight/1 ms/100 and 300",
             "share/30 and 70%: both", "light/weight/beside 1 ms async", "light/weight/beside 20 us async"])
# Name; for each of the two loads: settings, None: not there.
PAIRS = (("alone", {}, None), ("alone", None, {}), ("plain time-slicing", {}, {}),
         ("compute 30 % and 70 %", {"SOFTSLICE_COMPUTE": "30%"}, {"SOFTSLICE_COMPUTE": "70%"}),
         ("compute 70 % and 30 %", {"SOFTSLICE_COMPUTE": "70%"}, {"SOFTSLICE_COMPUTE": "30%"}),
         ("weight 100 and 100", {"SOFTSLICE_WEIGHT": "100"}, {"SOFTSLICE_WEIGHT": "100"}),
         ("weight 100 and 300", {"SOFTSLICE_WEIGHT": "100"}, {"SOFTSLICE_WEIGHT": "300"}))


def environment():
    env = {key: value for key, value in os.environ.items() if not key.startswith(("SOFTSLICE_", "LD_PRELOAD"))}
    if os.environ.get("SHARE_DRIVER"):
        env.update(LD_LIBRARY_PATH=os.environ["SHARE_DRIVER"], SOFTSIM_STATE=os.path.join(tempfile.gettempdir(), "share-%d" % os.getpid()))
    return env


def output(command, env=None):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env or environment(), check=False)
    if done.returncode == 77:
        print("skipped: %s" % (done.stderr or done.stdout).strip().split("\n")[-1])
        sys.exit(77)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit("share.py: %s: exit status %d\n%s" % (" ".join(command), done.returncode, done.stderr))
    return done.stdout


def rows(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|"] + ["| " + " | ".join(line) + " |" for line in lines]) + "\n"


def table(out, seconds):
    return scenarios("The table", os.path.join(out, "share.json"), seconds, CHOSEN)


def rest(out, seconds):
    names = output([sys.executable, RUN, "--list"]).strip().split("\n")
    return scenarios("The rest of it", os.path.join(out, "rest.json"), seconds, [name for name in names if not any(part in name for part in CHOSEN)])


def scenarios(title, path, seconds, names):
    """The scenarios, and their figures as a table."""
    text = output([sys.executable, RUN, "--gpu", "--seconds", "%g" % seconds, "--json", path, *names])
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    lines, last = [], None
    for row in data["rows"]:
        bar = "" if row["least"] is None and row["most"] is None else "%s to %s: %s" % (
            "–" if row["least"] is None else "%g" % row["least"], "–" if row["most"] is None else "%g" % row["most"], "met" if row["met"] else "**missed**")
        lines.append([row["scenario"] if row["scenario"] != last else "", row["what"], ("%.4g %s" % (row["value"], row["unit"])).strip(), bar])
        last = row["scenario"]
    words = "".join("\n%s: %s\n" % item for item in data["failed"].items())
    print(text.strip().split("\n")[-1])
    return "## %s\n\nA tenant's share is its programs' throughput over that of the same programs alone and without the library; %g s each. " \
           "The bars for shares are the 3 points of a run in real time.\n\n%s%s" % (title, seconds, rows(["scenario", "", "", "bar"], lines), words)


def launches(out, _):
    """Microseconds from launch to launch of a kernel as short as can be, with and without the library, in turns."""
    found = {"without": [], "compute = 100%": [], "weight = 100": []}
    settings = {"without": {}, "compute = 100%": {"SOFTSLICE_COMPUTE": "100%"}, "weight = 100": {"SOFTSLICE_WEIGHT": "100"}}
    state = tempfile.mkdtemp(prefix="softslice-share-")
    for _ in range(3):
        for name, variables in settings.items():
            env = dict(environment(), SOFTSLICE_STATE_DIR=state, **variables)
            if variables:
                env["LD_PRELOAD"] = os.path.join(BUILD, "libsoftslice.so")
            report = json.loads(output([LOAD, "--kernel", "1", "--seconds", "1", "--loops", "1"], env).strip().split("\n")[-1])
            found[name].append((report["drained_ns"] - report["begin_ns"]) / 1000 / report["launches"])
    shutil.rmtree(state, ignore_errors=True)
    with open(os.path.join(out, "launches.json"), "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
    return "## Launches\n\nMicroseconds from one launch to the next of a kernel that does next to nothing, without waiting; three runs of a second.\n\n" \
        + rows(["", "least", "median", "most"], [[name] + ["%.3f" % value for value in sorted(values)] for name, values in found.items()])


def torch_pairs(out, seconds):
    """Two PyTorch programs, alone and together."""
    if os.environ.get("SHARE_DRIVER"):
        return "## PyTorch\n\nNot run: SHARE_DRIVER is not NVIDIA's driver.\n"
    if subprocess.run([sys.executable, "-c", "import torch"], stderr=subprocess.DEVNULL, check=False).returncode:
        return "## PyTorch\n\nNot run: it is not installed.\n"
    work, found, native, lines = os.path.join(ROOT, "tests", "gpu", "share_work.py"), [], {}, []
    for name, *both in PAIRS:
        state, started = tempfile.mkdtemp(prefix="softslice-share-"), []
        begin = "%.3f" % (time.time() + 12)
        for kind, settings in zip(("matmul", "decode"), both):
            if settings is None:
                continue
            env = dict(environment(), SOFTSLICE_STATE_DIR=state, SOFTSLICE_TENANT=kind, **settings)
            if settings:
                env["LD_PRELOAD"] = os.path.join(BUILD, "libsoftslice.so")
            started.append((kind, subprocess.Popen([sys.executable, work, kind, "%g" % seconds, begin], stdout=subprocess.PIPE, text=True, env=env)))
        for kind, child in started:
            words = child.communicate()[0].split()
            if child.returncode or len(words) != 3:
                sys.exit("share.py: %s of %s: exit status %s" % (kind, name, child.returncode))
            rate, median, late = map(float, words)
            native.setdefault(kind, rate)
            found.append((name, kind, rate, median, late))
            lines.append([name, kind, "%.1f" % rate, "%.1f %%" % (100 * rate / native[kind]), "%.0f" % median, "%.0f" % late])
        shutil.rmtree(state, ignore_errors=True)
    with open(os.path.join(out, "torch.json"), "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
    return "## PyTorch\n\nmatmul: eight products of 4096 x 4096 in bfloat16 a round; decode: 48 small kernels and a wait a round. %g s each.\n\n%s" % (
        seconds, rows(["", "program", "rounds in a second", "of alone", "median us", "p99 us"], lines))


PARTS = {"table": table, "launches": launches, "torch": torch_pairs, "rest": rest}
DEFAULT = ("table", "launches", "torch")


def machine():
    if os.environ.get("SHARE_DRIVER"):
        return "simulated GPU", "the driver in SHARE_DRIVER"
    done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "-i", "0"], stdout=subprocess.PIPE, text=True,
                          check=False) if shutil.which("nvidia-smi") else None
    if not done or done.returncode:
        print("skipped: nvidia-smi sees no GPU")
        sys.exit(77)
    name, driver = done.stdout.strip().split(", ")
    return name, "driver " + driver


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=os.path.join(ROOT, "docs", "measurements"))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("parts", nargs="*", metavar="PART")
    options = parser.parse_args()
    if set(options.parts) - set(PARTS):
        parser.error("there are: " + " ".join(PARTS))
    for path in (LOAD, os.path.join(BUILD, "libsoftslice.so")):
        if not os.path.exists(path):
            print("skipped: %s is not built" % path)
            sys.exit(77)
    name, driver = machine()
    slug = "%s-%s-share" % (datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), re.sub("[^a-z0-9]+", "-", name.lower()).strip("-"))
    out = os.path.join(options.out, slug)
    os.makedirs(out, exist_ok=True)
    started, text = time.monotonic(), []
    for part in options.parts or DEFAULT:
        print("share.py: " + part, flush=True)
        text.append(PARTS[part](out, options.seconds))
    page = "# The compute share on a GPU\n\nTaken by `tests/gpu/share.py` in %.0f s. %s, %s, Linux %s.\n\n%s" % (
        time.monotonic() - started, name, driver, os.uname().release, "\n".join(text))
    with open(out + ".md", "w", encoding="utf-8") as file:
        file.write(page)
    print(page)


if __name__ == "__main__":
    main()
