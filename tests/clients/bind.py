#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bind.py CLIENT: NVIDIA's own libraries look their driver up, with softslice and without. Every answer must be the function of the ABI that the
driver's rule names: our wrapper where it is hooked and armed, the driver's own function where it is not. They get no further than that here,
for the simulated driver does not forge the runtime's private tables."""
# run: -- cudart
# run: -- cudart-static
# run: -- cublasLt
# run: -- cublas
# run: -- cufft
# run: -- cudnn
# run: -- nccl
# run: -- cupti
# run: -- nvrtc
# run: -- curand
# run: -- cusparse
# run: -- cusolver
# timeout: 600
import collections
import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD, TMP = os.environ["TEST_BUILD"], os.environ["TEST_TMP"]
PER_THREAD = 2

# library, what to call, at least so many answers, the wheel that has it
CLIENTS = {
    "cudart": ("libcudart.so.13", ["cudaGetDeviceCount(p0)"], 411, "nvidia-cuda-runtime==13.0.*"),
    "cudart-static": ("libcudart_static.a", [], 411, "nvidia-cuda-runtime==13.0.*"),
    "cublasLt": ("libcublasLt.so.13", ["cublasLtCreate(p0)"], 443, "nvidia-cublas==13.*"),
    "cublas": ("libcublas.so.13", ["cublasCreate_v2(p0)"], 411, "nvidia-cublas==13.*"),
    "cufft": ("libcufft.so.12", ["cufftPlan1d(p0,64,0x29,1)"], 70, "nvidia-cufft==12.*"),
    "cudnn": ("libcudnn_graph.so.9", ["cudnnCreate(p0)"], 411, "nvidia-cudnn-cu13==9.*"),
    "nccl": ("libnccl.so.2", ["ncclCommInitAll(p0,1,0)"], 411, "nvidia-nccl-cu13==2.*"),
    "cupti": ("libcupti.so.13", ["cuptiSubscribe(p0,p1,0)", "cuptiActivityEnable(1)"], 4, "nvidia-cuda-cupti==13.0.*"),
    "nvrtc": ("libnvrtc.so.13", ["nvrtcCreateProgram(p0,p1,0,0,0,0)", "nvrtcCompileProgram(*0,0,0)"], 2, "nvidia-cuda-nvrtc==13.0.*"),
    "curand": ("libcurand.so.10", ["curandCreateGenerator(p0,100)"], 411, "nvidia-curand==10.*"),
    "cusparse": ("libcusparse.so.12", ["cusparseCreate(p0)"], 411, "nvidia-cusparse==12.*"),
    "cusolver": ("libcusolver.so.12", ["cusolverDnCreate(p0)"], 411, "nvidia-cusolver==12.*"),
}

STATIC = """
extern int cudaGetDeviceCount(int *count);
int main(void)
{
    int count = 0;
    return cudaGetDeviceCount(&count) < 0;
}
"""

Symbol = collections.namedtuple("Symbol", "base symbol since per_thread")


def skip(reason):
    print(reason)
    sys.exit(77)


def directories():
    """Where NVIDIA's libraries may be: CLIENT_LIBRARIES (a list like PATH) first, then the toolkit and what pip brought into build/."""
    given = [name for name in os.environ.get("CLIENT_LIBRARIES", "").split(":") if name]
    return given + ["/usr/local/cuda/lib64"] + sorted(
        glob.glob(os.path.join(ROOT, "build", "*", "nvidia", "*", "lib")) + glob.glob(os.path.join(ROOT, "build", "python", "*", "nvidia", "*", "lib")))


def find(name, wheel):
    for attempt in range(2):
        for folder in directories():
            if os.path.exists(os.path.join(folder, name)):
                return os.path.join(folder, name)
        if attempt or not os.environ.get("CI"):
            skip("%s is not here (CLIENT_LIBRARIES, the toolkit, or CI=1 to fetch %s)" % (name, wheel))
        subprocess.run([os.path.join(ROOT, "scripts", "python-packages"), "client-" + wheel.split("=")[0], wheel], check=True,
                       stdout=subprocess.DEVNULL)
    return None


def rows(pattern, *path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as text:
        return [[field.strip() for field in match.group(1).split(",")] for match in re.finditer(pattern, text.read(), re.MULTILINE)]


SURFACE = [Symbol(base, symbol, int(since), int(per_thread))
           for base, symbol, since, per_thread in rows(r"^SYM\((.*)\)$", "sim", "symbols.def")]
HOOKS = {row[4]: row[2] for row in rows(r"^HOOK\((.*)\)$", "shim", "hooks.def") + rows(r"^HOOK\((.*)\)$", "shim", "nvml.def")}


def chosen(base, version, flags):
    """The driver's rule: the newest ABI that is not newer than asked for; per-thread ones where those are asked for and exist."""
    known = [row for row in SURFACE if row.base == base]
    per_thread = flags == PER_THREAD and any(row.per_thread for row in known)
    fitting = [row for row in known if row.since <= version and bool(row.per_thread) == per_thread]
    return max(fitting, key=lambda row: row.since).symbol if fitting else "-"


def record(command, name, preload, settings):
    path = os.path.join(TMP, name)
    env = dict(os.environ, TEST_RECORD=path, **settings)
    env["LD_LIBRARY_PATH"] = ":".join([os.environ["TEST_SIM"]] + [folder for folder in directories() if os.path.isdir(folder)])
    recorder = os.path.join(BUILD, "tests", "clients", "lib", "recorder.so")
    result = subprocess.run(["env", "LD_PRELOAD=" + " ".join([recorder] + preload)] + command, env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, timeout=100, check=False)
    if not os.path.exists(path):
        sys.exit("%s asked the driver for nothing: status %d\n%s" % (command, result.returncode, result.stdout))
    with open(path, encoding="utf-8") as lines:
        return [line.split() for line in lines], result


def check(answers, armed):
    """What is wrong with the answers that a program got under softslice, given what is armed."""
    problems, hooked = [], 0
    for answer in answers:
        if answer[0] == "gpa":
            name, version, flags, result, _, library, symbol = answer[1:]
            want = chosen(name, int(version), int(flags)) if result == "0" else "-"
        else:
            name, library, symbol = answer[1:]
            want = name if any(row.symbol == name for row in SURFACE) or name.startswith("nvml") else "-"
            if library == "-" and name.startswith("nvml"):
                want = "-"  # the simulated NVML has not all names
        home = "-"
        if want != "-":
            home = "libsoftslice.so" if HOOKS.get(want) in armed else "libnvidia-ml.so.1" if want.startswith("nvml") else "libcuda.so.1"
            hooked += home == "libsoftslice.so"
        if (library, symbol) != (home, want):
            problems.append("%s: expected %s in %s" % (" ".join(answer), want, home))
    return problems, hooked


def main():
    client = sys.argv[1] if len(sys.argv) > 1 else "cudart"
    name, calls, least, wheel = CLIENTS[client]
    library = find(name, wheel)
    if name.endswith(".a"):
        program = os.path.join(TMP, "static")
        compiler = os.environ.get("CC", "gcc").split()[0]
        subprocess.run([compiler, "-x", "c", "-", "-x", "none", "-o", program, library, "-ldl", "-lpthread", "-lrt"], input=STATIC, text=True,
                       check=True)
        command = [program]
    else:
        command = [os.path.join(BUILD, "tests", "programs", "load"), library] + calls

    bare, without = record(command, "bare", [], {})
    asked = [answer[:4] for answer in bare]
    if len(bare) < least:
        sys.exit("%s asked for %d names only, expected at least %d\n%s" % (client, len(bare), least, without.stdout))
    problems = check(bare, ())[0]
    for settings, armed in (({"SOFTSLICE_VRAM": "1GiB", "SOFTSLICE_COMPUTE": "50%"}, ("VRAM", "COMPUTE", "ANY")),
                            ({"SOFTSLICE_VRAM": "1GiB"}, ("VRAM", "ANY")), ({}, ())):
        answers, result = record(command, "under" + "-".join(armed), [os.environ["TEST_PRELOAD"]], settings)
        wrong, hooked = check(answers, armed)
        problems += ["%s: %s" % (settings, text) for text in wrong]
        if [answer[:4] for answer in answers if answer[0] == "gpa"] != [answer for answer in asked if answer[0] == "gpa"]:
            problems.append("%s: it asked for other things than without softslice" % settings)
        if result.returncode != without.returncode:
            problems.append("%s: status %d, without softslice %d" % (settings, result.returncode, without.returncode))
        print("%s, %s: %d answers, %d of them ours" % (client, " ".join("=".join(pair) for pair in settings.items()) or "no limit",
                                                      len(answers), hooked))
    print("\n".join(problems[:40]))
    sys.exit(1 if problems else 0)


main()
