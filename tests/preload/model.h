/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of model.c: one entry a family, each with what takes memory and what gives it back. Included by model.c and model_members.c. */
#ifndef TESTS_PRELOAD_MODEL_H
#define TESTS_PRELOAD_MODEL_H

#include "../cuda_helper.h"

#define UNTOLD (64 * T_MIB) /* by so much the GPU may be over the budget where families take part of which no argument tells all */

enum { GPUS = 2, OBJECTS = 96 };

static CUcontext look[GPUS]; /* of no walker, and always there */

struct walker;
struct family;

/* Something that a walker holds. */
struct object {
    const struct family *family;
    unsigned gpu;
    uint64_t handle, second;
    size_t size;
    uint64_t
        loose; /* charged, and nobody can tell how much of it is there: the ledger may be so much above what the GPU has in use */
};

/* One thread's part. It touches nothing of another one's, so that what it ends is nobody else's. */
struct walker {
    unsigned seed;
    struct object object[OBJECTS];
    CUcontext context[GPUS];
    CUstream stream[GPUS];
    CUmemoryPool pool[GPUS];
    uint64_t loose[GPUS];
    unsigned long made, refused;
};

struct family {
    const char *name;
    bool of_context; /* ends with it */
    bool
        untold; /* what the driver takes for it may be found only by a later look at the driver's figure, and is not refused then */
    CUresult (*make)(struct walker *walker, struct object *object);
    void (*end)(struct walker *walker, struct object *object);
};

static uint64_t roll(struct walker *w, uint64_t below)
{
    uint64_t high = (uint64_t)rand_r(&w->seed) & 0x7fff, low = (uint64_t)rand_r(&w->seed) & 0x7fff;

    return ((high << 15) | low) % below;
}

static uint64_t t_bytes_of_limit(const char *prefix)
{
    const char *text = strstr(getenv("SOFTSLICE_VRAM"), prefix);

    t_check(text, "SOFTSLICE_VRAM has no %s", prefix);
    return strtoull(text + strlen(prefix), NULL, 10) * T_GIB;
}

/* Sizes as programs have them, and now and then one that no budget has room for. */
static size_t some_size(struct walker *w)
{
    switch (roll(w, 16)) {
    case 0 ... 4:
        return 1 + roll(w, T_MIB);
    case 5 ... 11:
        return 1 + roll(w, 32 * T_MIB);
    case 12 ... 14:
        return 1 + roll(w, 300 * T_MIB);
    default:
        return (size_t)(1 + roll(w, 12)) * T_GIB;
    }
}

static size_t granular_size(struct walker *w, unsigned gpu)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, (int)gpu}};
    size_t granule, size = some_size(w);

    t_cuda(cuMemGetAllocationGranularity(&granule, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    return (size + granule - 1) / granule * granule;
}

/* ---- linear and managed memory */

static CUresult linear_make(struct walker *w, struct object *o)
{
    o->size = some_size(w);
    return cuMemAlloc((CUdeviceptr *)&o->handle, o->size);
}

static CUresult pitch_make(struct walker *w, struct object *o)
{
    size_t pitch, width = 1 + roll(w, 20000), height = 1 + roll(w, 4000);

    return cuMemAllocPitch((CUdeviceptr *)&o->handle, &pitch, width, height, 4);
}

static CUresult managed_make(struct walker *w, struct object *o)
{
    CUresult result;

    o->size = some_size(w);
    result = cuMemAllocManaged((CUdeviceptr *)&o->handle, o->size, CU_MEM_ATTACH_GLOBAL);
    o->loose = (o->size + 2 * T_MIB + (4 * T_MIB - 1)) & ~(4 * T_MIB - 1);
    return result;
}

static void linear_end(struct walker *w, struct object *o)
{
    (void)w;
    t_cuda(cuMemFree(o->handle));
}

/* ---- stream-ordered memory */

static CUresult async_make(struct walker *w, struct object *o)
{
    o->size = some_size(w);
    if (roll(w, 2))
        return cuMemAllocAsync((CUdeviceptr *)&o->handle, o->size, w->stream[o->gpu]);
    return cuMemAllocFromPoolAsync((CUdeviceptr *)&o->handle, o->size, w->pool[o->gpu], w->stream[o->gpu]);
}

static void async_end(struct walker *w, struct object *o)
{
    if (roll(w, 8) == 0) {
        t_cuda(cuStreamSynchronize(w->stream[o->gpu]));
        t_cuda(cuMemFree(o->handle));
    } else {
        t_cuda(cuMemFreeAsync(o->handle, w->stream[o->gpu]));
    }
}

/* A pool of its own, with a block or two in it, destroyed before or after them. */
static CUresult pool_make(struct walker *w, struct object *o)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, (int)o->gpu}};
    cuuint64_t threshold = roll(w, 2) ? UINT64_MAX : 0;
    CUmemoryPool pool;
    CUresult result = cuMemPoolCreate(&pool, &props);

    if (result != CUDA_SUCCESS)
        return result;
    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    result = cuMemAllocFromPoolAsync((CUdeviceptr *)&o->second, some_size(w), pool, w->stream[o->gpu]);
    if (result != CUDA_SUCCESS || roll(w, 3) == 0) {
        t_cuda(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &o->loose)); /* nobody can be asked afterwards */
        t_cuda(cuMemPoolDestroy(pool));
        pool = NULL;
    }
    o->handle = (uint64_t)(uintptr_t)pool;
    return result;
}

static void pool_end(struct walker *w, struct object *o)
{
    t_cuda(cuMemFreeAsync(o->second, w->stream[o->gpu]));
    if (o->handle && roll(w, 2))
        t_cuda(cuMemPoolTrimTo((CUmemoryPool)(uintptr_t)o->handle, 0));
    if (o->handle)
        t_cuda(cuMemPoolDestroy((CUmemoryPool)(uintptr_t)o->handle));
}

/* ---- virtual memory: the handle goes before or after its mapping */

static CUresult virtual_make(struct walker *w, struct object *o)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, (int)o->gpu}};
    CUmemGenericAllocationHandle handle, again;
    CUdeviceptr address;

    t_cuda(cuCtxSetCurrent(look[roll(w, GPUS)])); /* which must not matter */
    o->size = granular_size(w, o->gpu);
    CUresult result = cuMemCreate(&handle, o->size, &prop, 0);
    if (result != CUDA_SUCCESS)
        return result;
    o->handle = handle;
    if (roll(w, 4) == 0) /* never mapped */
        return CUDA_SUCCESS;
    t_cuda(cuMemAddressReserve(&address, o->size, 0, 0, 0));
    t_cuda(cuMemMap(address, o->size, 0, handle, 0));
    o->second = address;
    if (roll(w, 2)) {
        t_cuda(cuMemRelease(handle));
        o->handle = 0;
    }
    if (roll(w, 4) == 0) {
        t_cuda(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)address));
        t_cuda(cuMemRelease(again));
    }
    return CUDA_SUCCESS;
}

static void virtual_end(struct walker *w, struct object *o)
{
    bool handle_first = roll(w, 2);

    if (o->handle && handle_first)
        t_cuda(cuMemRelease(o->handle));
    if (o->second) {
        t_cuda(cuMemUnmap(o->second, o->size));
        t_cuda(cuMemAddressFree(o->second, o->size));
    }
    if (o->handle && !handle_first)
        t_cuda(cuMemRelease(o->handle));
}

/* ---- arrays */

static CUresult array_make(struct walker *w, struct object *o)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = {
        .Width = 1 + roll(w, 2000), .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 + 3 * (roll(w, 2) != 0)};

    desc.Height = roll(w, 3) ? 1 + roll(w, 2000) : 0;
    desc.Depth = desc.Height && roll(w, 3) == 0 ? 1 + roll(w, 20) : 0;
    return cuArray3DCreate((CUarray *)&o->handle, &desc);
}

static void array_end(struct walker *w, struct object *o)
{
    (void)w;
    t_cuda(cuArrayDestroy((CUarray)(uintptr_t)o->handle));
}

static CUresult mipmap_make(struct walker *w, struct object *o)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = {
        .Width = 1 + roll(w, 2000), .Height = 1 + roll(w, 2000), .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4};

    return cuMipmappedArrayCreate((CUmipmappedArray *)&o->handle, &desc, 1 + (unsigned)roll(w, 4));
}

static void mipmap_end(struct walker *w, struct object *o)
{
    (void)w;
    t_cuda(cuMipmappedArrayDestroy((CUmipmappedArray)(uintptr_t)o->handle));
}

/* ---- graphs with memory of their own: allocated and freed within, replayed */

static CUresult graph_make(struct walker *w, struct object *o)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, (int)o->gpu}}};
    CUgraphNode before = NULL, node;
    CUgraphExec exec;
    CUgraph graph;
    CUresult result;

    t_cuda(cuGraphCreate(&graph, 0));
    for (uint64_t blocks = 1 + roll(w, 3); blocks; blocks--) {
        params.bytesize = some_size(w);
        t_cuda(cuGraphAddMemAllocNode(&node, graph, before ? &before : NULL, before != NULL, &params));
        t_cuda(cuGraphAddMemFreeNode(&before, graph, &node, 1, params.dptr));
    }
    result = cuGraphInstantiate(&exec, graph, 0);
    t_cuda(cuGraphDestroy(graph));
    if (result != CUDA_SUCCESS)
        return result;
    result = cuGraphLaunch(exec, w->stream[o->gpu]);
    if (result != CUDA_SUCCESS)
        t_cuda(cuGraphExecDestroy(exec));
    o->handle = (uint64_t)(uintptr_t)exec;
    return result;
}

static void graph_end(struct walker *w, struct object *o)
{
    CUgraphExec exec = (CUgraphExec)(uintptr_t)o->handle;
    CUresult result = cuGraphLaunch(exec, w->stream[o->gpu]); /* once more: its memory may have been trimmed and lost since */

    t_check(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY, "a replay returned %d", (int)result);
    t_cuda(cuStreamSynchronize(w->stream[o->gpu]));
    t_cuda(cuGraphExecDestroy(exec));
    if (roll(w, 3) == 0)
        t_cuda(cuDeviceGraphMemTrim((int)o->gpu));
}

/* ---- what grows inside the driver */

static CUresult module_make(struct walker *w, struct object *o)
{
    (void)w;
    return cuModuleLoadData((CUmodule *)&o->handle, "image");
}

static void module_end(struct walker *w, struct object *o)
{
    (void)w;
    t_cuda(cuModuleUnload((CUmodule)(uintptr_t)o->handle));
}

static CUresult context_make(struct walker *w, struct object *o)
{
    CUresult result = cuCtxCreate((CUcontext *)&o->handle, NULL, 0, (int)o->gpu);

    if (result != CUDA_SUCCESS)
        return result;
    if (cuMemAlloc((CUdeviceptr *)&o->second, some_size(w)) != CUDA_SUCCESS) /* goes with its context */
        o->second = 0;
    t_cuda(cuCtxPopCurrent(NULL));
    return result;
}

static void context_end(struct walker *w, struct object *o)
{
    (void)w;
    t_cuda(cuCtxDestroy((CUcontext)(uintptr_t)o->handle));
}

static const struct family families[] = {
    {"linear", true, false, linear_make, linear_end},    {"pitch", true, false, pitch_make, linear_end},
    {"managed", true, false, managed_make, linear_end},  {"async", false, false, async_make, async_end},
    {"pool", false, false, pool_make, pool_end},         {"virtual", false, false, virtual_make, virtual_end},
    {"array", true, true, array_make, array_end}, /* small ones: whose granules, nobody says */
    {"mipmap", true, true, mipmap_make, mipmap_end},     {"graph", false, false, graph_make, graph_end},
    {"module", true, true, module_make, module_end}, /* while other threads allocate */
    {"context", false, true, context_make, context_end},
};
enum { FAMILIES = sizeof(families) / sizeof(families[0]) };

static const struct family *chosen[FAMILIES];
static unsigned choices;
static uint64_t untold; /* 0 where all that is chosen is told */

static void model_choose(int count, char **names)
{
    for (unsigned i = 0; i < FAMILIES; i++) {
        bool wanted = count == 0;
        for (int n = 0; n < count; n++)
            wanted |= strcmp(names[n], families[i].name) == 0;
        if (!wanted)
            continue;
        chosen[choices++] = &families[i];
        if (families[i].untold)
            untold = UNTOLD;
    }
    t_check(choices, "no such family");
}

/* False, and without a context there, where the budget has no room for one. */
static bool open_context(struct walker *w, unsigned gpu)
{
    CUresult result = cuCtxCreate(&w->context[gpu], NULL, 0, (int)gpu);

    if (result != CUDA_SUCCESS) {
        t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
        w->context[gpu] = NULL;
        return false;
    }
    t_cuda(cuStreamCreate(&w->stream[gpu], CU_STREAM_NON_BLOCKING));
    return true;
}

/* After this call softslice has read what the driver shows for the process. A refusal says that this is over the budget, and charged all the same. */
static void have_read(CUcontext context)
{
    size_t heap;

    t_cuda(cuCtxSetCurrent(context));
    t_cuda(cuCtxGetLimit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
    CUresult result = cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap);
    t_check(result == CUDA_SUCCESS || (untold && result == CUDA_ERROR_OUT_OF_MEMORY), "cuCtxSetLimit returned %d", (int)result);
}

static void make(struct walker *w, struct object *o)
{
    *o = (struct object){.gpu = (unsigned)roll(w, GPUS)};
    const struct family *family = chosen[roll(w, choices)];

    if (!w->context[o->gpu] && !open_context(w, o->gpu))
        return;
    t_cuda(cuCtxSetCurrent(w->context[o->gpu]));
    CUresult result = family->make(w, o);
    if (result == CUDA_SUCCESS) {
        o->family = family;
        w->loose[o->gpu] += o->loose;
        w->made++;
        return;
    }
    t_check(result == CUDA_ERROR_OUT_OF_MEMORY, "%s: error %d, a refusal is %d", family->name, (int)result,
            CUDA_ERROR_OUT_OF_MEMORY);
    w->refused++;
}

static void end(struct walker *w, struct object *o)
{
    t_cuda(cuCtxSetCurrent(w->context[o->gpu]));
    o->family->end(w, o);
    w->loose[o->gpu] -= o->loose;
    o->family = NULL;
}

/* The context goes with all that it owns, and another comes. */
static void renew_context(struct walker *w, unsigned gpu)
{
    if (!w->context[gpu])
        return;
    for (unsigned i = 0; i < OBJECTS; i++) {
        struct object *o = &w->object[i];
        if (!o->family || o->gpu != gpu)
            continue;
        if (o->family->of_context) {
            w->loose[gpu] -= o->loose;
            o->family = NULL;
        } else {
            end(w, o);
        }
    }
    t_cuda(cuCtxSetCurrent(w->context[gpu]));
    t_cuda(cuStreamSynchronize(w->stream[gpu]));
    t_cuda(cuCtxDestroy(w->context[gpu]));
    open_context(w, gpu);
}

T_UNUSED static void model_begin(struct walker *w, unsigned seed)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};

    w->seed = seed;
    for (unsigned gpu = 0; gpu < GPUS; gpu++) {
        t_check(open_context(w, gpu), "no room for the first contexts");
        props.location.id = (int)gpu;
        t_cuda(cuMemPoolCreate(&w->pool[gpu], &props));
    }
}

static void model_step(struct walker *w)
{
    struct object *o = &w->object[roll(w, OBJECTS)];

    if (roll(w, 5000) == 0)
        renew_context(w, (unsigned)roll(w, GPUS));
    else if (o->family)
        end(w, o);
    else
        make(w, o);
}

/* Nothing is on its way: what was freed in stream order is freed, and what pools keep is what they keep. */
static void model_rest(struct walker *w)
{
    for (unsigned gpu = 0; gpu < GPUS; gpu++) {
        CUmemoryPool pool;

        if (!w->context[gpu])
            continue;
        t_cuda(cuCtxSetCurrent(w->context[gpu]));
        t_cuda(cuStreamSynchronize(w->stream[gpu]));
        t_cuda(cuDeviceGetDefaultMemPool(&pool, (int)gpu));
        t_cuda(cuMemPoolTrimTo(pool, 0));
        t_cuda(cuMemPoolTrimTo(w->pool[gpu], 0));
    }
}

static void model_end(struct walker *w)
{
    for (unsigned i = 0; i < OBJECTS; i++)
        if (w->object[i].family)
            end(w, &w->object[i]);
}

T_UNUSED static void model_tell(const struct walker *walkers, unsigned count)
{
    unsigned long made = 0, refused = 0;

    for (unsigned i = 0; i < count; i++)
        made += walkers[i].made, refused += walkers[i].refused;
    printf("%lu made, %lu refused\n", made, refused);
    t_check(made && refused, "the walk took nothing, or was refused nothing");
}

#endif
