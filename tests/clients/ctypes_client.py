#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Python process that reaches the driver by ctypes, as Numba and many scripts do; multiprocessing by fork and by spawn."""
import os
import subprocess
import sys

CLIENT = '''
import ctypes, multiprocessing, sys
MIB = 1 << 20

def fill():
    cuda = ctypes.CDLL("libcuda.so.1")
    assert cuda.cuInit(0) == 0
    context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0
    assert cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    assert total.value == 1024 * MIB, total.value
    count = 0
    while cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(4 * MIB)) == 0:
        count += 1
    assert count == free.value // (4 * MIB), (count, free.value)
    try:
        cuda.cudnnCreate
    except AttributeError:
        pass
    else:
        sys.exit("the driver has a cudnnCreate")
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    device, memory = ctypes.c_void_p(), (ctypes.c_uint64 * 3)()
    assert nvml.nvmlInit_v2() == 0
    assert nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0
    assert nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0
    assert memory[0] == 1024 * MIB, memory[0]

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork").Process(target=fill)
    fork.start()
    fork.join()
    assert fork.exitcode == 0, fork.exitcode
    fill()
    print("done")
'''

env = dict(os.environ, SOFTSLICE_VRAM="1GiB")
result = subprocess.run(["env", "LD_PRELOAD=" + os.environ["TEST_PRELOAD"], sys.executable, "-c", CLIENT], env=env, stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, text=True, timeout=50, check=False)
print(result.stdout)
sys.exit(0 if result.returncode == 0 and "done" in result.stdout else 1)
