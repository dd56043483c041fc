# SPDX-License-Identifier: Apache-2.0
"""holder.py WORD...: a program that does to its GPUs what the words say, prints "ready", and holds what it has until standard input ends.

    take:GPU:BYTES       allocates
    refused:GPU:BYTES    asks for so much, and has to be refused
    launch:GPU:US:COUNT  launches COUNT kernels of US microseconds, one after the other, and waits for the last
    cache:GPU:BYTES      allocates from a memory pool that keeps what is freed, and frees it
    hide:GPU             gives softslice's thread another name
    free:GPU             frees the newest allocation that is left on that GPU
"""
import ctypes
import os
import sys
import time

cuda = ctypes.CDLL("libcuda.so.1")
contexts, blocks = {}, {}


def must(error, expected=0):
    if error != expected:
        sys.exit("%s: error %d" % (word, error))


def use(gpu):
    if gpu not in contexts:
        device, context = ctypes.c_int(), ctypes.c_void_p()
        must(cuda.cuDeviceGet(ctypes.byref(device), gpu))
        must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        contexts[gpu] = context
    must(cuda.cuCtxSetCurrent(contexts[gpu]))


def take(gpu, size, expected=0):
    block = ctypes.c_uint64()
    must(cuda.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(size)), expected)
    blocks.setdefault(gpu, []).append(block)


def launch(us, count):
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    must(cuda.cuModuleLoadData(ctypes.byref(module), b"an image"))
    must(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"kernel__%dus" % us))
    for _ in range(count):
        must(cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, None, None))
    must(cuda.cuCtxSynchronize())


def cache(gpu, size):
    device, pool, block, everything = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_uint64(2**64 - 1)
    must(cuda.cuDeviceGet(ctypes.byref(device), gpu))
    must(cuda.cuDeviceGetDefaultMemPool(ctypes.byref(pool), device))
    must(cuda.cuMemPoolSetAttribute(pool, 4, ctypes.byref(everything)))  # CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
    must(cuda.cuMemAllocAsync(ctypes.byref(block), ctypes.c_size_t(size), None))
    must(cuda.cuMemFreeAsync(block, None))
    must(cuda.cuStreamSynchronize(None))


def hide():
    while True:  # the thread names itself when it has begun
        for task in os.listdir("/proc/self/task"):
            with open("/proc/self/task/%s/comm" % task, "r+", encoding="ascii") as name:
                if name.read() == "softslice\n":
                    name.seek(0)
                    name.write("other")
                    return
        time.sleep(0.01)


word = "cuInit"
must(cuda.cuInit(0))
for word in sys.argv[1:]:
    verb, gpu, *numbers = word.split(":")
    numbers = [int(number) for number in numbers]
    use(int(gpu))
    if verb == "take":
        take(int(gpu), *numbers)
    elif verb == "refused":
        take(int(gpu), *numbers, expected=2)
        blocks[int(gpu)].pop()
    elif verb == "cache":
        cache(int(gpu), *numbers)
    elif verb == "launch":
        launch(*numbers)
    elif verb == "hide":
        hide()
    elif verb == "free":
        must(cuda.cuMemFree_v2(blocks[int(gpu)].pop()))
    else:
        sys.exit("%s: not understood" % word)
print("ready", flush=True)
sys.stdin.read()
