#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's own binding of NVML (nvidia-ml-py, which monitors and frameworks use) sees the tenant: its budget, its processes, their bytes."""
# timeout: 200
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20

# Holds two blocks beside its context, until its standard input ends.
HOLDER = '''
import ctypes, os, sys
cuda = ctypes.CDLL("libcuda.so.1")
context, block = ctypes.c_void_p(), ctypes.c_uint64()
assert cuda.cuInit(0) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0
for _ in range(2):
    assert cuda.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(64 << 20)) == 0
print("ready", flush=True)
sys.stdin.read()
'''

MONITOR = '''
import sys
import pynvml
limit, holders = int(sys.argv[1]), {int(pid): (200 + 2 * 64) << 20 for pid in sys.argv[2:]}
pynvml.nvmlInit()
device = pynvml.nvmlDeviceGetHandleByIndex(0)
for memory in (pynvml.nvmlDeviceGetMemoryInfo(device), pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2)):
    assert memory.total == limit, memory.total
    assert memory.used == sum(holders.values()), memory.used
    assert memory.free == limit - memory.used, memory.free
for listed in (pynvml.nvmlDeviceGetComputeRunningProcesses(device), pynvml.nvmlDeviceGetComputeRunningProcesses_v2(device)):
    assert {process.pid: process.usedGpuMemory for process in listed} == holders, listed
    assert len(listed) == len(holders), listed
assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(device) == []
assert pynvml.nvmlDeviceGetMPSComputeRunningProcesses(device) == []
for mode in range(3):
    details = pynvml.nvmlDeviceGetRunningProcessDetailList(device, pynvml.nvmlProcessDetailList_v1, mode)
    assert {detail.pid: detail.usedGpuMemory for detail in details} == (holders if mode == 0 else {}), (mode, details)
pynvml.nvmlShutdown()
print("done")
'''


def start(code, arguments, settings, python_path, **options):
    env = dict(os.environ, PYTHONPATH=python_path, SOFTSIM_MEM=str(4096 * MIB), SOFTSIM_CONTEXT_BYTES=str(200 * MIB), **settings)
    return subprocess.Popen(["env", "LD_PRELOAD=" + os.environ["TEST_PRELOAD"], sys.executable, "-c", code] + arguments, env=env,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def look(settings, python_path, limit, holders):
    monitor = start(MONITOR, [str(limit)] + [str(holder.pid) for holder in holders], settings, python_path, stderr=subprocess.STDOUT)
    said = monitor.communicate(timeout=60)[0]
    if monitor.returncode or said != "done\n":
        sys.exit("%s: status %d\n%s" % (settings, monitor.returncode, said))


def main():
    packages = subprocess.run([os.path.join(ROOT, "scripts", "python-packages"), "nvml", "nvidia-ml-py"], stdout=subprocess.PIPE,
                              text=True, check=False)
    if packages.returncode:
        print("pip could not bring nvidia-ml-py")
        sys.exit(77)
    path = packages.stdout.strip()
    team = {"SOFTSLICE_VRAM": "1GiB", "SOFTSLICE_TENANT": "monitored"}
    others = {"SOFTSLICE_VRAM": "2GiB", "SOFTSLICE_TENANT": "others"}
    look(team, path, 1024 * MIB, [])
    holders = [start(HOLDER, [], team, path), start(HOLDER, [], team, path), start(HOLDER, [], others, path)]
    for holder in holders:
        if holder.stdout.readline() != "ready\n":
            sys.exit("a holder did not start")
    look(team, path, 1024 * MIB, holders[:2])
    look(others, path, 2048 * MIB, holders[2:])
    look({}, path, 4096 * MIB, holders)
    look({"SOFTSLICE_VRAM": "512MiB"}, path, 512 * MIB, [])
    for holder in holders:
        holder.communicate(timeout=60)
    print("done")


main()
