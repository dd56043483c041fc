# SPDX-License-Identifier: Apache-2.0
"""taker.py [MiB]: takes GPU memory in pieces of 64 MiB until it is refused or has as much as it wants, prints how many MiB it
got, and holds them until standard input ends."""
import ctypes
import sys

PIECE = 64
cuda = ctypes.CDLL("libcuda.so.1")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 20
for error in (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
              cuda.cuCtxSetCurrent(context)):
    if error:
        sys.exit("error %d" % error)
got = 0
while got < wanted:
    error = cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(PIECE << 20))
    if error == 2:
        break
    if error:
        sys.exit("error %d" % error)
    got += PIECE
print(got, flush=True)
sys.stdin.read()
