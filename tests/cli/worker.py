# SPDX-License-Identifier: Apache-2.0
"""worker.py [GPU]: a program on a GPU that does what it is told on standard input, a line each, until that ends:

    take MIB            allocate so much; answers `took MIB`, or `refused ERROR`
    work BURST PERIOD   from now on a kernel of BURST ms every PERIOD ms, later where it had to wait; 0 0: none. Answers `works`

Answers are lines on standard output; the first is `ready`. How long a kernel takes is in its name, as the simulated GPU has it."""
import ctypes
import sys
import threading
import time

cuda = ctypes.CDLL("libcuda.so.1")
rhythm = (0.0, 0.0)
functions = {}


def need(error):
    if error:
        sys.exit("error %d" % error)


def say(words):
    print(words, flush=True)


def obey(context):
    global rhythm
    need(cuda.cuCtxSetCurrent(context))
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "take":
            memory = ctypes.c_uint64()
            error = cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(int(float(numbers[0]) * (1 << 20))))
            say("refused %d" % error if error else "took " + numbers[0])
        else:
            rhythm = (float(numbers[0]), float(numbers[1]))
            say("works")


def function(module, ms):
    if ms not in functions:
        functions[ms] = ctypes.c_void_p()
        need(cuda.cuModuleGetFunction(ctypes.byref(functions[ms]), module, b"step__%dus" % round(ms * 1000)))
    return functions[ms]


def main():
    device, context, module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    need(cuda.cuInit(0))
    need(cuda.cuDeviceGet(ctypes.byref(device), int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    need(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    need(cuda.cuCtxSetCurrent(context))
    need(cuda.cuModuleLoadData(ctypes.byref(module), b"any"))
    say("ready")
    listener = threading.Thread(target=obey, args=(context,), daemon=True)
    listener.start()
    due = time.monotonic()
    while listener.is_alive():
        burst, period = rhythm
        if burst:
            need(cuda.cuLaunchKernel(function(module, burst), 1, 1, 1, 1, 1, 1, 0, None, None, None))
            need(cuda.cuCtxSynchronize())
        due = max(due + max(period, 20) / 1000, time.monotonic() - 0.1)
        time.sleep(max(0, due - time.monotonic()))


main()
