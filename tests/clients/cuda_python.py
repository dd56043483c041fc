#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's cuda-python (its driver bindings, a real client of the driver API) runs whole on the simulated GPU under a budget."""
# timeout: 300
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20

CLIENT = '''
import sys
from cuda.bindings import driver
MIB = 1 << 20
limit, context_bytes = int(sys.argv[1]), int(sys.argv[2])

def call(function, *arguments):
    error, *results = function(*arguments)
    if error != driver.CUresult.CUDA_SUCCESS:
        sys.exit("%s: %s" % (function, error.name))
    return results[0] if len(results) == 1 else results

call(driver.cuInit, 0)
device = call(driver.cuDeviceGet, 0)
assert call(driver.cuDeviceTotalMem, device) == limit, call(driver.cuDeviceTotalMem, device)
context = call(driver.cuDevicePrimaryCtxRetain, device)
call(driver.cuCtxSetCurrent, context)
free, total = call(driver.cuMemGetInfo)
assert total == limit, total
assert free == limit - context_bytes, free

# A round trip through the GPU's memory.
pattern = bytes(range(256)) * 4096
block = call(driver.cuMemAlloc, len(pattern))
call(driver.cuMemcpyHtoD, block, pattern, len(pattern))
back = bytearray(len(pattern))
call(driver.cuMemcpyDtoH, back, block, len(pattern))
assert back == pattern
stream = call(driver.cuStreamCreate, 0)
event = call(driver.cuEventCreate, 0)
call(driver.cuMemsetD8Async, block, 7, 4096, stream)
call(driver.cuEventRecord, event, stream)
call(driver.cuEventSynchronize, event)
call(driver.cuMemcpyDtoH, back, block, 4096)
assert back[:4096] == bytes([7]) * 4096
call(driver.cuMemFree, block)

# The budget, to the block.
blocks = []
while True:
    error, block = driver.cuMemAlloc(2 * MIB)
    if error != driver.CUresult.CUDA_SUCCESS:
        assert error == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY, error
        break
    blocks.append(block)
assert len(blocks) == (limit - context_bytes) // (2 * MIB), len(blocks)
for block in blocks:
    call(driver.cuMemFree, block)
free, total = call(driver.cuMemGetInfo)
assert free == limit - context_bytes, free
call(driver.cuStreamDestroy, stream)
call(driver.cuEventDestroy, event)
call(driver.cuDevicePrimaryCtxRelease, device)
print("done")
'''


def client(limit, physical, python_path, preload, settings):
    env = dict(os.environ, PYTHONPATH=python_path, SOFTSIM_MEM=str(physical), SOFTSIM_CONTEXT_BYTES=str(200 * MIB), **settings)
    command = [sys.executable, "-c", CLIENT, str(limit), str(200 * MIB)]
    result = subprocess.run(["env"] + (["LD_PRELOAD=" + preload] if preload else []) + command, env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    if result.returncode or result.stdout != "done\n":
        sys.exit("%s: status %d\n%s%s" % (settings, result.returncode, result.stdout, result.stderr))
    print("%s: done%s" % (settings, "; it said: " + result.stderr.strip() if result.stderr else ""))


def main():
    packages = subprocess.run([os.path.join(ROOT, "scripts", "python-packages"), "demo", "cuda-bindings"], stdout=subprocess.PIPE, text=True,
                              check=False)
    if packages.returncode:
        print("pip could not bring cuda-bindings")
        sys.exit(77)
    path, preload = packages.stdout.strip(), os.environ["TEST_PRELOAD"]
    client(4096 * MIB, 4096 * MIB, path, None, {})
    client(4096 * MIB, 4096 * MIB, path, preload, {})
    client(1024 * MIB, 4096 * MIB, path, preload, {"SOFTSLICE_VRAM": "1GiB"})
    client(1024 * MIB, 4096 * MIB, path, preload, {"SOFTSLICE_VRAM": "25%", "SOFTSLICE_TENANT": "python", "SOFTSLICE_COMPUTE": "50%"})
    client(768 * MIB, 4096 * MIB, path, preload, {"CUDA_DEVICE_MEMORY_LIMIT": "768m"})


main()
