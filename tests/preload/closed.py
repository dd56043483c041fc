#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input fails closed: one line that names it, cuInit answers CUDA_ERROR_OPERATING_SYSTEM, NVML stays real, the program is not harmed.
SOFTSLICE_ON_ERROR=open turns that round."""
import os
import re
import shutil
import subprocess
import sys

BUILD, TMP = os.environ["TEST_BUILD"], os.environ["TEST_TMP"]
PROGRAM = os.path.join(BUILD, "tests", "programs", "memory")
OPERATING_SYSTEM = 304
PHYSICAL = 16 << 30
problems, checks, skips = [], 0, []


def run(settings, wrap=()):
    env = dict(os.environ, **settings)
    env = {name: value for name, value in env.items() if value is not None}
    command = list(wrap) + ["env", "LD_PRELOAD=" + os.environ["TEST_PRELOAD"], PROGRAM]
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30, check=False)


def closed(what, settings, names, wrap=()):
    """With `settings` CUDA does not start and the one line matches `names`; with on_error = open it starts without limits."""
    global checks
    checks += 1
    result = run(settings, wrap)
    lines = result.stderr.splitlines()

    def expect(condition, text):
        if not condition:
            problems.append("%s: %s\n  status %d\n  stdout: %s\n  stderr: %s" %
                            (what, text, result.returncode, result.stdout.strip().replace("\n", " | "), result.stderr.strip()))

    expect(result.returncode == 0, "the program was harmed")
    expect("init %d\n" % OPERATING_SYSTEM in result.stdout, "cuInit did not answer CUDA_ERROR_OPERATING_SYSTEM")
    expect("nvml 0 total %d free %d" % (PHYSICAL, PHYSICAL) in result.stdout, "NVML is not real")
    expect("alloc without init 0" not in result.stdout, "memory was granted")
    expect(len(lines) == 1, "%d lines instead of one" % len(lines))
    expect(lines and lines[0].startswith("softslice: ["), "the line does not say who it is from")
    expect(lines and re.search(names, lines[0]), "the line does not match %r" % names)
    if "SOFTSLICE_ON_ERROR" in settings:
        return
    result = run(dict(settings, SOFTSLICE_ON_ERROR="open"), wrap)
    lines = result.stderr.splitlines()
    expect(result.returncode == 0 and "init 0\n" in result.stdout, "on_error = open: CUDA did not start")
    expect("cuda 0 total %d" % PHYSICAL in result.stdout and "alloc 0 0" in result.stdout, "on_error = open: there is a limit")
    expect(len(lines) == 1 and re.search(names, lines[0]), "on_error = open: not one line that matches %r" % names)


def path(name):
    return os.path.join(TMP, name)


def move_to(place):
    """From here on run copies of the products: another user may not be able to look into the home that they are in."""
    global PROGRAM
    shutil.copytree(os.environ["TEST_SIM"], place, ignore=lambda _, names: [name for name in names if ".so" not in name])
    PROGRAM = shutil.copy(PROGRAM, place)
    os.environ["TEST_PRELOAD"] = shutil.copy(os.environ["TEST_PRELOAD"], place)
    os.environ["LD_LIBRARY_PATH"] = place
    os.chmod(place, 0o755)


def values():
    for value in ("3GB!", "3GB", "0", "-1", "1e9", "GiB", "1.5", "1GiB 2GiB", "0x400", "9999999999GiB", "0%", "101%", "25%%", "25.125%",
                  "1GiB,", "0=", "0=1GiB,x=1GiB", "=1GiB", "00=1GiB", "GPU-=1GiB", "unlimited", "\u0663GiB"):
        closed("SOFTSLICE_VRAM=" + value, {"SOFTSLICE_VRAM": value}, "SOFTSLICE_VRAM")
    closed("a device that is not there", {"SOFTSLICE_VRAM": "7=1GiB"}, "SOFTSLICE_VRAM")
    closed("a GPU that is not there", {"SOFTSLICE_VRAM": "GPU-00000000-0000-0000-0000-000000000001=1GiB"}, "SOFTSLICE_VRAM")
    # With nothing else: a share that cannot be read must not mean that there is none.
    for name, value in (("SOFTSLICE_COMPUTE", "0%"), ("SOFTSLICE_COMPUTE", "101%"), ("SOFTSLICE_COMPUTE", "-5"),
                        ("SOFTSLICE_COMPUTE", "abc"), ("SOFTSLICE_COMPUTE", "30"), ("SOFTSLICE_WEIGHT", "0"),
                        ("SOFTSLICE_WEIGHT", "10001"), ("SOFTSLICE_WEIGHT", "abc"), ("SOFTSLICE_WEIGHT", "-5"),
                        ("SOFTSLICE_PERIOD", "0"), ("SOFTSLICE_PERIOD", "0ms"), ("SOFTSLICE_PERIOD", "abc"),
                        ("SOFTSLICE_QUANTUM", "0"), ("SOFTSLICE_QUANTUM", "0ms"), ("SOFTSLICE_QUANTUM", "-5ms"),
                        ("SOFTSLICE_QUANTUM", "1s"), ("SOFTSLICE_MAX_STALL", "0"), ("SOFTSLICE_MAX_STALL", "0s"),
                        ("SOFTSLICE_MAX_STALL", "abc"), ("SOFTSLICE_MAX_STALL", "61s")):
        closed("%s=%s" % (name, value), {name: value}, name)
    good = {"SOFTSLICE_VRAM": "1GiB"}
    for name, value in (("SOFTSLICE_COMPUTE", "120%"), ("SOFTSLICE_COMPUTE", "half"), ("SOFTSLICE_WEIGHT", "0"),
                        ("SOFTSLICE_WEIGHT", "ten"), ("SOFTSLICE_MODE", "cup"), ("SOFTSLICE_TENANT", "../escape"),
                        ("SOFTSLICE_TENANT", ".hidden"), ("SOFTSLICE_TENANT", "a/b"), ("SOFTSLICE_TENANT", "x" * 200),
                        ("SOFTSLICE_LOG", "loud"), ("SOFTSLICE_MANAGED", "maybe"), ("SOFTSLICE_SPILL", "disk"),
                        ("SOFTSLICE_DISABLE", "perhaps"), ("SOFTSLICE_VRM", "1GiB"), ("SOFTSLICE_ON_ERROR", "ignore"),
                        ("CUDA_DEVICE_MEMORY_LIMIT", "lots"), ("CUDA_DEVICE_MEMORY_LIMIT_0", "3GB!"),
                        ("NVIDIA_GPU_MEMORY_LIMIT", "1GiB!")):
        closed("%s=%s" % (name, value), dict(good, **{name: value}), name)


def files():
    def ini(text, line, names, mode="w"):
        with open(path("user.ini"), mode) as out:
            out.write(text)
        closed("ini %r" % text[:60], {"SOFTSLICE_CONFIG": path("user.ini")}, r"user\.ini:%d\b.*%s" % (line, names))

    ini("[softslice]\nvram = 3GB!\n", 2, "vram")
    ini("[softslice]\n\n# a remark\nvramm = 1GiB\n", 4, "vramm")
    ini("[softslice]\nvram = 1GiB\nvram = 2GiB\n", 3, "")
    ini("[softslice]\nvram = 1GiB\n  weight = 5\n", 3, "")
    ini("[softslice\nvram = 1GiB\n", 1, "")
    ini("[soft]\nvram = 1GiB\n", 1, "")
    ini("vram = 1GiB\n", 1, "")
    ini("[softslice]\nvram\n", 2, "")
    ini("[softslice]\nvram = " + " " * 5000 + "1GiB\n", 2, "")
    ini("[gpu 0]\nvram = 1GiB\n", 1, "")
    ini("[tenant ../x]\nvram = 1GiB\n", 1, "")
    ini(b"[softslice]\nvram = 1G\0iB\n", 2, "", "wb")
    closed("no ini file", {"SOFTSLICE_CONFIG": path("none.ini")}, r"none\.ini")
    closed("a directory as ini file", {"SOFTSLICE_CONFIG": TMP}, re.escape(TMP))


def directories():
    good = {"SOFTSLICE_VRAM": "1GiB", "SOFTSLICE_TENANT": "closed"}

    def directory(what, name, wrap=()):
        closed(what, dict(good, SOFTSLICE_STATE_DIR=name), re.escape(name.rstrip("/")) + "|tenant (folder )?closed", wrap)

    directory("a missing state directory", path("missing/deep"))
    directory("a relative state directory", "state")
    os.mkdir(path("real"), 0o700)
    os.symlink(path("real"), path("link"))
    directory("a symbolic link as state directory", path("link"))
    directory("a symbolic link with a slash", path("link") + "/")
    with open(path("file"), "w", encoding="utf-8"):
        pass
    directory("a file as state directory", path("file"))
    os.symlink(path("real"), path("real/closed"))
    directory("a symbolic link as tenant's folder", path("real"))

    inner = 'mkdir -p "$0" && mount -t tmpfs -o %s tmpfs "$0" && exec "$@"'
    trial = subprocess.run(["unshare", "-m", "sh", "-c", inner % "size=4k" + " true", path("mnt")], check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if shutil.which("unshare") else None
    if trial is None or trial.returncode:
        skips.append("a full and a read-only state directory (no right to mount)")
    else:
        for what, options in (("full", "size=8k"), ("read-only", "ro")):
            directory("a %s state directory" % what, path("mnt"), ("unshare", "-m", "sh", "-c", inner % options, path("mnt")))
    if os.geteuid() == 0 and shutil.which("setpriv"):
        os.mkdir(path("roots"), 0o755)
        os.chmod(TMP, 0o755)
        move_to(path("build"))
        shutil.rmtree(os.path.join(TMP, "sim"))
        os.mkdir(os.path.join(TMP, "sim"))
        os.chmod(os.path.join(TMP, "sim"), 0o777)
        directory("a state directory that we may not write", path("roots"),
                  ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"))
        shutil.rmtree(os.path.join(TMP, "sim"))
        os.mkdir(os.path.join(TMP, "sim"))
    else:
        skips.append("a state directory that we may not write (not root)")


def damage():
    state = path("damaged")
    settings = {"SOFTSLICE_VRAM": "1GiB", "SOFTSLICE_TENANT": "damaged", "SOFTSLICE_STATE_DIR": state}
    says = re.escape(state) + "|tenant damaged"

    def ledgers():
        return [os.path.join(folder, name) for folder, _, names in os.walk(state) for name in names
                if os.path.getsize(os.path.join(folder, name)) >= 4096]

    def fresh():
        shutil.rmtree(state, ignore_errors=True)
        os.mkdir(state, 0o700)
        result = run(settings)
        if "init 0\n" not in result.stdout or len(ledgers()) != 1:
            problems.append("no ledger was made: %s %s %s" % (result.stdout, result.stderr, ledgers()))
        with open(ledgers()[0], "rb") as file:
            return ledgers()[0], file.read()

    def damaged(what, change):
        name, content = fresh()
        with open(name, "r+b") as file:
            change(file, content)
        closed(what, settings, says)

    def write_at(offset, data):
        return lambda file, content: (file.seek(offset), file.write(data))

    damaged("a truncated ledger", lambda file, content: file.truncate(len(content) // 2))
    damaged("a ledger of 100 bytes", lambda file, content: file.truncate(100))
    damaged("a scribbled ledger", write_at(0, b"\xa5" * 256))
    damaged("an inverted first word", lambda file, content: (file.seek(0), file.write(bytes(255 - b for b in content[:8]))))
    name, _ = fresh()
    os.unlink(name)
    os.symlink("/etc/passwd", name)
    closed("a symbolic link as ledger", settings, says)
    os.unlink(name)
    os.mkfifo(name)
    closed("a FIFO as ledger", settings, says)


def quiet():
    """While nothing is wrong nothing is said."""
    for settings in ({}, {"SOFTSLICE_VRAM": "1GiB"}, {"SOFTSLICE_VRAM": "50%", "SOFTSLICE_TENANT": "quiet"}):
        result = run(settings)
        if result.stderr or "init 0\n" not in result.stdout:
            problems.append("%s: %s%s" % (settings, result.stdout, result.stderr))


values()
files()
directories()
damage()
quiet()
print("%d bad inputs, %d problems; not tried: %s" % (checks, len(problems), "; ".join(skips) or "none"))
print("\n".join(problems))
sys.exit(1 if problems else 0)
