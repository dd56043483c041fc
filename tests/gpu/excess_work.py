# SPDX-License-Identifier: Apache-2.0
"""excess_work.py NAME BUDGET_BYTES: the programs whose memory excess.py watches. Each goes to the edge of its budget: it takes until it is
refused, lets go, and goes on. Exit: 0 done, 77 not installed."""
import ctypes
import importlib
import sys
import time

MIB = 1 << 20


def need(module):
    try:
        return importlib.import_module(module)
    except ImportError as e:
        print(f"skipped: {e}")
        sys.exit(77)


def torch(budget):
    """Training steps of a model with attention, at growing batch sizes until one is refused; then on at half of that."""
    t = need("torch")
    layer = t.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    model = t.nn.TransformerEncoder(layer, 4).cuda()
    optimizer = t.optim.Adam(model.parameters())
    batch, refused = 4, False
    for _ in range(200):
        try:
            optimizer.zero_grad(set_to_none=True)
            model(t.randn(batch, 512, 512, device="cuda")).square().mean().backward()
            optimizer.step()
            if refused:
                break
            batch *= 2
        except t.cuda.OutOfMemoryError:
            refused = True
            optimizer.zero_grad(set_to_none=True)
            t.cuda.empty_cache()
            batch //= 4
    t.cuda.synchronize()
    print(f"torch {t.__version__}, largest batch {batch}, refused once: {refused}")


def cupy(budget):
    """Arrays from CuPy's own pool, then from CUDA's, each until refused."""
    c = need("cupy")
    for allocator in (c.cuda.MemoryPool().malloc, c.cuda.MemoryAsyncPool().malloc):
        c.cuda.set_allocator(allocator)
        held = []
        try:
            while len(held) * 64 * MIB < 2 * budget:
                held.append(c.ones(16 * MIB, dtype=c.float32))
                held[-1] *= 2
        except c.cuda.memory.OutOfMemoryError:
            pass
        del held
        c.cuda.Device().synchronize()
    print(f"cupy {c.__version__}")


def jax(budget):
    """Matrix products of growing size until one is refused. XLA_PYTHON_CLIENT_PREALLOCATE says whether all is taken at first."""
    j = need("jax")
    np = need("jax.numpy")
    size = 1024
    try:
        while 4 * size * size < 2 * budget:
            x = np.ones((size, size))
            (x @ x).block_until_ready()
            size = size * 3 // 2
    except j.errors.JaxRuntimeError:
        pass
    print(f"jax {j.__version__}, stopped at {size}")


def driver(budget):
    """The driver API by ctypes: blocks of 64 MiB until refused, half of them freed, and again."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    for error in (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0),
                  cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), cuda.cuCtxSetCurrent(context)):
        if error:
            sys.exit(f"error {error}")
    held = []
    for _ in range(5):
        while cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(64 * MIB)) == 0:
            held.append(memory.value)
            if len(held) * 64 * MIB > budget:
                sys.exit("more than the budget was granted")
        time.sleep(0.1)
        for pointer in held[::2]:
            cuda.cuMemFree_v2(ctypes.c_uint64(pointer))
        held = held[1::2]
    print("driver API")


if __name__ == "__main__":
    WORK = {f.__name__: f for f in (torch, cupy, jax, driver)}
    if len(sys.argv) != 3 or sys.argv[1] not in WORK:
        sys.exit("usage: excess_work.py " + "|".join(WORK) + " BUDGET_BYTES")
    WORK[sys.argv[1]](int(sys.argv[2]))
