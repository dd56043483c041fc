/* SPDX-License-Identifier: Apache-2.0 */
/* What PyTorch's allocator does when memory runs out works with a budget: it gives its cached blocks back, asks again, and has it; the refusal
 * before left nothing behind, neither in its outputs nor in what comes after. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- blocks
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- segments
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- pool
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=oom -- blocks
#include "vmm_helper.h"

#define SEGMENT (20 * T_MIB)

enum { MOST = 256 };

/* One way of getting and giving memory, with a cache of free segments before it. */
static struct road {
    CUdeviceptr (*get)(size_t size); /* 0: refused as it has to be */
    void (*give)(CUdeviceptr pointer);
} road;

static CUdeviceptr cache[MOST];
static unsigned cached;
static unsigned flushes;
static CUstream stream;
static CUfunction function;
static uint64_t at_rest; /* in use with nothing allocated */

/* ---- the roads */

static void give_block(CUdeviceptr pointer)
{
    t_cuda(cuMemFree(pointer));
}

static CUdeviceptr get_drawn(size_t size)
{
    CUdeviceptr pointer = T_UNTOUCHED;
    CUresult result = cuMemAllocAsync(&pointer, size, stream);

    if (result == CUDA_SUCCESS)
        return pointer;
    t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
    t_check(pointer == T_UNTOUCHED, "a refused cuMemAllocAsync wrote its output");
    return 0;
}

static void give_drawn(CUdeviceptr pointer)
{
    t_cuda(cuMemFreeAsync(pointer, stream));
}

/* Expandable segments: addresses once, chunks of 2 MiB as they are needed. A chunk that is refused has those before it unmapped again. */
static CUdeviceptr space;
static bool taken[MOST];

static CUdeviceptr get_segment(size_t size)
{
    unsigned slot = 0;

    if (!space)
        space = t_reserve(MOST * SEGMENT * 2);
    while (taken[slot])
        slot++;
    CUdeviceptr place = space + slot * 2 * SEGMENT;
    for (size_t done = 0; done < size; done += 2 * T_MIB) {
        if (t_map(place + done, 0, 2 * T_MIB))
            continue;
        for (size_t undo = 0; undo < done; undo += 2 * T_MIB)
            t_cuda(cuMemUnmap(place + undo, 2 * T_MIB));
        return 0;
    }
    taken[slot] = true;
    return place;
}

/* How large it was is known here, for all have one size but the last. */
static size_t last_size;
static CUdeviceptr last;

static void give_segment(CUdeviceptr place)
{
    t_cuda(cuCtxSynchronize());
    t_cuda(cuMemUnmap(place, place == last ? last_size : SEGMENT));
    taken[(place - space) / (2 * SEGMENT)] = false;
}

/* ---- the allocator */

static void flush_cache(void)
{
    t_cuda(cuCtxSynchronize());
    while (cached)
        road.give(cache[--cached]);
    t_cuda(cuStreamSynchronize(stream));
    flushes++;
}

/* In PyTorch's order: ask, give the cache back, ask again. 0: out of memory for good. */
static CUdeviceptr allocate(size_t size)
{
    CUdeviceptr pointer = size == SEGMENT && cached ? cache[--cached] : road.get(size);

    if (!pointer) {
        flush_cache();
        pointer = road.get(size);
    }
    return pointer;
}

/* Nothing of a refusal is left: all that a program does next is as it was. */
static void nothing_sticky(CUdeviceptr memory)
{
    size_t free_bytes, total;
    unsigned seen = 0;

    t_cuda(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    t_cuda(cuMemsetD32Async(memory, 0x12345678, 1024, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuStreamQuery(stream));
    t_cuda(cuMemcpyDtoH(&seen, memory + 1023 * 4, 4));
    t_equal(seen, 0x12345678);
    t_cuda(cuCtxSynchronize());
    t_cuda(cuMemGetInfo(&free_bytes, &total));
    t_equal(total, T_GIB);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "blocks";
    CUdeviceptr live[MOST];
    unsigned count = 0, room;
    CUmodule module;

    road = *how == 'b'   ? (struct road){t_alloc, give_block}
           : *how == 's' ? (struct road){get_segment, give_segment}
                         : (struct road){get_drawn, give_drawn};
    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuModuleLoadData(&module, "an image"));
    t_cuda(cuModuleGetFunction(&function, module, "f"));
    t_cuda(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    t_cuda(cuCtxSynchronize());
    at_rest = t_used(0);
    room = (unsigned)((T_GIB - at_rest) / SEGMENT);
    if (*how == 'p') { /* keeps all that it has, as PyTorch's backend of that name sets it */
        CUmemoryPool pool;
        t_cuda(cuDeviceGetDefaultMemPool(&pool, 0));
        t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &(cuuint64_t){UINT64_MAX}));
    }

    /* The budget, to the last segment; each refusal is one, and the memory that is there works on. */
    for (unsigned round = 0; round < 3; round++) {
        while ((live[count] = allocate(SEGMENT))) {
            count++;
            t_check(count <= room, "more was granted than the budget has");
        }
        t_check(count == room || (*how == 'p' && count >= room - 2), "%u segments of %u were to be had", count, room);
        nothing_sticky(live[0]);
        t_check(!road.get(400 * T_MIB) && !road.get(2 * SEGMENT), "more was granted than the budget has");
        nothing_sticky(live[count - 1]);

        /* Half of it becomes cache; what is asked for now is in one piece, and is had only when the cache goes. */
        unsigned half = count / 2, before = flushes;
        while (count > half)
            cache[cached++] = live[--count];
        last_size = 2 * SEGMENT;
        last = allocate(last_size);
        t_check(last, "refused after the cache was given back");
        t_equal(flushes, before + 1);
        nothing_sticky(last);
        live[count] = allocate(SEGMENT);
        t_check(live[count], "refused after the recovery");
        nothing_sticky(live[count++]);
        road.give(last);
        last = 0;
        while (count)
            cache[cached++] = live[--count];
        flush_cache();
        if (*how != 'p')
            t_equal(t_used(0), at_rest);
    }
    return 0;
}
