# SPDX-License-Identifier: Apache-2.0
"""One small program for each framework, to be run under a budget: frameworks.py NAME BUDGET_BYTES.

Each computes something whose answer is known, checks that the sizes it is told are the budget's, and
that a request beyond the budget is refused with the framework's own out-of-memory error and can be
followed by one that fits. Exit: 0 all held, 1 something did not (said on stderr), 77 not installed.
"""
import importlib
import sys

GIB = 1 << 30


class Unmet(Exception):
    """What must hold did not."""


def require(ok, what):
    if not ok:
        raise Unmet(what)


def need(module):
    try:
        return importlib.import_module(module)
    except ImportError as e:
        print(f"skipped: {e}")
        sys.exit(77)


def told(name, total, budget):
    require(total == budget, f"{name} says {total} bytes, the budget is {budget}")


def torch(budget):
    t = need("torch")
    told("cudaMemGetInfo", t.cuda.mem_get_info()[1], budget)
    told("the device properties", t.cuda.get_device_properties(0).total_memory, budget)
    a = t.ones(1024, 1024, device="cuda")
    require((a @ a).sum().item() == float(1024 ** 3), "the matrix product is wrong")
    try:
        t.empty(budget + GIB, dtype=t.uint8, device="cuda")
        raise Unmet("a tensor larger than the budget was granted")
    except t.cuda.OutOfMemoryError:
        pass
    held = []
    try:
        while len(held) * 256 < 2 * budget >> 20:
            held.append(t.empty(256 << 20, dtype=t.uint8, device="cuda"))
        raise Unmet("twice the budget was granted in tensors of 256 MiB")
    except t.cuda.OutOfMemoryError:
        pass
    granted = len(held) * (256 << 20)
    require(granted <= budget, f"{granted} bytes granted")
    require(granted >= budget // 2, f"only {granted} of {budget} bytes could be had")
    held.clear()
    t.cuda.empty_cache()
    require((a @ a).sum().item() == float(1024 ** 3), "the product after a refusal is wrong")
    return f"torch {t.__version__}: {granted >> 20} MiB in 256 MiB tensors"


def cupy(budget):
    c = need("cupy")
    told("memGetInfo", c.cuda.runtime.memGetInfo()[1], budget)
    require(int((c.arange(1 << 20, dtype=c.int64) * 2).sum()) == (1 << 20) * ((1 << 20) - 1),
            "the sum is wrong")
    try:
        c.empty(budget + GIB, dtype=c.uint8)
        raise Unmet("an array larger than the budget was granted")
    except c.cuda.memory.OutOfMemoryError:
        pass
    c.empty(GIB, dtype=c.uint8)
    return f"cupy {c.__version__}"


def cupy_async(budget):
    """From CUDA's own pool: cuMemAllocAsync."""
    c = need("cupy")
    c.cuda.set_allocator(c.cuda.MemoryAsyncPool().malloc)
    return cupy(budget) + ", cudaMallocAsync"


def jax(budget):
    j = need("jax")
    np = need("jax.numpy")
    device = j.devices()[0]
    require(device.platform in ("gpu", "cuda"), f"JAX fell back to {device.platform}")
    x = np.ones((1024, 1024))
    require(float((x @ x).sum()) == float(1024 ** 3), "the matrix product is wrong")
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit", 0)
    require(0 < limit <= budget, f"JAX believes it may use {limit} bytes")
    try:
        np.zeros(budget + GIB, dtype=np.uint8).block_until_ready()
        raise Unmet("an array larger than the budget was granted")
    except j.errors.JaxRuntimeError as e:
        require("RESOURCE_EXHAUSTED" in str(e), f"refused with another error: {e}")
    return f"jax {j.__version__}: bytes_limit {limit}"


def triton(budget):
    t = need("torch")
    tr = need("triton")
    from triton_kernel import double
    x = t.arange(4096, device="cuda", dtype=t.float32)
    y = t.empty_like(x)
    double[(4096 // 256,)](x, y, 4096, BLOCK=256)
    require(bool((y == 2 * x).all()), "the kernel's result is wrong")
    told("cudaMemGetInfo", t.cuda.mem_get_info()[1], budget)
    return f"triton {tr.__version__}"


def numba(budget):
    np = need("numpy")
    cuda = need("numba.cuda")

    @cuda.jit
    def double(a):
        i = cuda.grid(1)
        if i < a.size:
            a[i] *= 2

    a = cuda.to_device(np.arange(4096, dtype=np.float32))
    double[16, 256](a)
    require(bool((a.copy_to_host() == 2 * np.arange(4096, dtype=np.float32)).all()),
            "the kernel's result is wrong")
    told("get_memory_info", cuda.current_context().get_memory_info()[1], budget)
    try:
        cuda.device_array(budget + GIB, dtype=np.uint8)
        raise Unmet("an array larger than the budget was granted")
    except Exception as e:  # the class differs between Numba's own bindings and cuda-python's
        require("OUT_OF_MEMORY" in str(e), f"refused with another error: {e}")
    return f"numba {need('numba').__version__}"


def cuda_python(budget):
    driver = need("cuda.bindings.driver")

    def ok(result):
        require(result[0] == driver.CUresult.CUDA_SUCCESS, str(result[0]))
        return result[1] if len(result) == 2 else result[1:]

    ok(driver.cuInit(0))
    device = ok(driver.cuDeviceGet(0))
    ok(driver.cuCtxSetCurrent(ok(driver.cuDevicePrimaryCtxRetain(device))))
    told("cuDeviceTotalMem", int(ok(driver.cuDeviceTotalMem(device))), budget)
    told("cuMemGetInfo", int(ok(driver.cuMemGetInfo())[1]), budget)
    result, _ = driver.cuMemAlloc(budget + GIB)
    require(result == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY, f"refused with {result}")
    ok(driver.cuMemFree(ok(driver.cuMemAlloc(GIB))))
    return "cuda-python"


def nvidia_ml_py(budget):
    nvml = need("pynvml")
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    info = nvml.nvmlDeviceGetMemoryInfo(handle)
    told("nvmlDeviceGetMemoryInfo", info.total, budget)
    v2 = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    told("nvmlDeviceGetMemoryInfo_v2", v2.total, budget)
    require(info.used + info.free == info.total, "used and free do not add up to total")
    return "nvidia-ml-py"


def main():
    names = {f.__name__: f for f in (torch, cupy, cupy_async, jax, triton, numba, cuda_python,
                                     nvidia_ml_py)}
    if len(sys.argv) != 3 or sys.argv[1] not in names:
        print("usage: frameworks.py", "|".join(names), "BUDGET_BYTES", file=sys.stderr)
        return 64
    try:
        print(names[sys.argv[1]](int(sys.argv[2])))
    except Unmet as e:
        print(f"{sys.argv[1]}: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
