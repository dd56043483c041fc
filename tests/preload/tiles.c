/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a tile pool is held by the arrays that it is mapped into, after its handle is gone: until each place is unmapped, the array is
 * destroyed or its context ends. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M
#include "vmm_helper.h"

#define CONTEXT (100 * T_MIB)
#define POOL    (4 * T_MIB)

static void charged(uint64_t bytes)
{
    t_equal(t_used(0), CONTEXT + bytes);
    t_equal(t_free(), T_GIB - CONTEXT - bytes);
}

static CUmemGenericAllocationHandle pool(void)
{
    CUmemAllocationProp prop = t_prop(0);
    CUmemGenericAllocationHandle handle;

    prop.allocFlags.usage = CU_MEM_CREATE_USAGE_TILE_POOL;
    t_cuda(cuMemCreate(&handle, POOL, &prop, 0));
    return handle;
}

static CUarray array(unsigned flags)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = {
        .Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4, .Flags = flags};
    CUarray made;

    t_cuda(cuArray3DCreate(&made, &desc));
    return made;
}

/* Rows of tiles from `from` on: a row is 128 high. */
static CUarrayMapInfo place(CUarray into, unsigned from, unsigned rows, CUmemGenericAllocationHandle memory)
{
    return (CUarrayMapInfo){
        .resourceType = CU_RESOURCE_TYPE_ARRAY,
        .resource = {.array = into},
        .subresource = {.sparseLevel = {.offsetY = from * 128, .extentWidth = 1024, .extentHeight = rows * 128, .extentDepth = 1}},
        .memOperationType = memory ? CU_MEM_OPERATION_TYPE_MAP : CU_MEM_OPERATION_TYPE_UNMAP,
        .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
        .memHandle = {memory},
        .deviceBitMask = 1};
}

typedef CUresult map_function(CUarrayMapInfo *list, unsigned count, CUstream stream);
static map_function *map;

static void sparse(void)
{
    CUmemGenericAllocationHandle memory = pool();
    CUarray into = array(CUDA_ARRAY3D_SPARSE);
    CUarrayMapInfo info[2] = {place(into, 0, 4, memory), place(into, 4, 4, memory)};

    charged(POOL);
    t_cuda(map(info, 2, NULL));
    t_cuda(cuMemRelease(memory));
    charged(POOL);
    info[0] = place(into, 0, 4, 0);
    t_cuda(map(info, 1, NULL));
    charged(POOL);
    info[0] = place(into, 4, 4, 0);
    t_cuda(map(info, 1, NULL));
    charged(0);

    /* Two pools; one takes the other's place, and both operations stand in one call. */
    CUmemGenericAllocationHandle second = pool();
    memory = pool();
    info[0] = place(into, 0, 4, memory);
    t_cuda(map(info, 1, NULL));
    t_cuda(cuMemRelease(memory));
    info[0] = place(into, 0, 4, second);
    charged(2 * POOL);
    t_cuda(map(info, 1, NULL));
    charged(POOL);
    t_cuda(cuMemRelease(second));
    info[0] = place(into, 0, 4, 0);
    info[1] = place(into, 4, 4, second = pool());
    t_cuda(map(info, 2, NULL));
    charged(POOL);

    /* The array goes, and with it what it holds. */
    t_cuda(cuMemRelease(second));
    charged(POOL);
    t_cuda(cuArrayDestroy(into));
    charged(0);
    t_check(cuArrayDestroy(into) != CUDA_SUCCESS, "a second destruction");
    charged(0);
}

/* All of an array: what is said of a place is not looked at. */
static void deferred(void)
{
    CUmemGenericAllocationHandle memory = pool();
    CUarray into = array(CUDA_ARRAY3D_DEFERRED_MAPPING);
    CUarrayMapInfo info = place(into, 0, 8, memory);

    t_cuda(map(&info, 1, NULL));
    t_cuda(cuMemRelease(memory));
    charged(POOL);
    info = place(into, 3, 1, 0);
    t_cuda(map(&info, 1, NULL));
    charged(0);
    memory = pool();
    info = place(into, 0, 8, memory);
    t_cuda(map(&info, 1, NULL));
    t_cuda(cuMemRelease(memory));
    charged(POOL);
    t_cuda(cuArrayDestroy(into));
    charged(0);
}

static void failing_calls(void)
{
    CUmemGenericAllocationHandle memory = pool();
    CUarray into = array(CUDA_ARRAY3D_SPARSE);
    CUarrayMapInfo info[2] = {place(into, 0, 4, memory), place(into, 0, 99, memory)};

    t_result(map(info, 2, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(map(info, 0, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(map(NULL, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    t_cuda(map(info, 1, NULL));
    t_cuda(cuMemRelease(memory));
    info[0] = place(into, 0, 4, 0);
    t_result(map(info, 2, NULL), CUDA_ERROR_INVALID_VALUE); /* the second is wrong: none of them is done */
    charged(POOL);
    t_cuda(map(info, 1, NULL));
    charged(0);
    t_cuda(cuArrayDestroy(into));

    memory = pool();
    into = array(CUDA_ARRAY3D_SPARSE);
    info[1] = place(into, 0, 99, memory);
    t_result(map(&info[1], 1, NULL), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemRelease(memory));
    charged(0); /* nothing held it */
    t_cuda(cuArrayDestroy(into));
}

/* More in one call than most programs ever have. */
static void many(void)
{
    static CUarrayMapInfo info[1000];
    CUmemGenericAllocationHandle memory = pool();
    CUarray into = array(CUDA_ARRAY3D_SPARSE);

    for (unsigned i = 0; i < 1000; i++)
        info[i] = place(into, i % 8, 1, memory);
    t_cuda(map(info, 1000, NULL));
    t_cuda(cuMemRelease(memory));
    charged(POOL);
    for (unsigned i = 0; i < 1000; i++)
        info[i] = place(into, i % 8, 1, 0);
    t_cuda(map(info, 7, NULL));
    charged(POOL);
    t_cuda(map(info, 1000, NULL));
    charged(0);
    t_cuda(cuArrayDestroy(into));
}

static void context_ends(CUcontext *context)
{
    CUmemGenericAllocationHandle memory = pool();
    CUarray into = array(CUDA_ARRAY3D_SPARSE);
    CUarrayMapInfo info = place(into, 0, 8, memory);

    t_cuda(map(&info, 1, NULL));
    t_cuda(cuMemRelease(memory));
    charged(POOL);
    t_cuda(cuCtxDestroy(*context));
    *context = t_context(0);
    charged(0);
}

int main(void)
{
    CUcontext context = t_context(0);

    for (unsigned i = 0; i < 2; i++) {
        map = i ? cuMemMapArrayAsync : (map_function *)dlsym(RTLD_DEFAULT, "cuMemMapArrayAsync_ptsz");
        t_check(map, "there is no such function");
        sparse();
        deferred();
        failing_calls();
        many();
        context_ends(&context);
    }
    return 0;
}
