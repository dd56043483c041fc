# SPDX-License-Identifier: Apache-2.0
"""asker.py: for each line of standard input, a number of MiB, asks for as much GPU memory in pieces of 64 MiB until it is refused, and prints how
many MiB it has then."""
import ctypes
import sys

PIECE = 64
cuda = ctypes.CDLL("libcuda.so.1")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
for error in (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
              cuda.cuCtxSetCurrent(context)):
    if error:
        sys.exit("error %d" % error)
has = 0
print(has, flush=True)
for line in sys.stdin:
    for _ in range(int(line) // PIECE):
        error = cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(PIECE << 20))
        if error == 2:
            break
        if error:
            sys.exit("error %d" % error)
        has += PIECE
    print(has, flush=True)
