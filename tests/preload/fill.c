/* SPDX-License-Identifier: Apache-2.0 */
/* A budget is used up to the last block: so many blocks fit as fit beside the context, not one more or less, and frees give all of it back. */
// run: SOFTSLICE_VRAM=1GiB -- 1M
// run: SOFTSLICE_VRAM=1GiB -- 2M
// run: SOFTSLICE_VRAM=1GiB -- 3M
// run: SOFTSLICE_VRAM=1GiB -- 64K
// run: SOFTSLICE_VRAM=1GiB -- 700K
// run: SOFTSLICE_VRAM=1GiB -- 680K
// run: SOFTSLICE_VRAM=1GiB -- 75000
// run: SOFTSLICE_VRAM=600MiB -- 1000
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=fill SOFTSIM_CONTEXT_BYTES=300M -- 1M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=700M -- 1500K
// run: SOFTSLICE_VRAM=777MiB SOFTSIM_GRANULARITY=64K SOFTSIM_CONTEXT_BYTES=301M -- 100K
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_GRANULARITY=4M -- 2M
// run: SOFTSLICE_VRAM=50% SOFTSIM_MEM=2G -- 2M
#include "../cuda_helper.h"

#define MOST_BLOCKS 200000

static CUdeviceptr block[MOST_BLOCKS];
static uint64_t limit, granule, size;

static uint64_t size_of(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    return *end == 'K' ? value * T_KIB : *end == 'M' ? value * T_MIB : value;
}

static bool is_small(void)
{
    return size <= granule / 2 && size <= T_MIB;
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* Small blocks share a granule, in units of 512 bytes; others take whole granules. */
static uint64_t fitting(uint64_t bytes)
{
    if (is_small())
        return bytes / granule * (granule / round_up(size, 512));
    return bytes / round_up(size, granule);
}

static uint64_t fill(uint64_t context)
{
    uint64_t count = 0, expected = fitting(limit - context);

    while (count < MOST_BLOCKS && (block[count] = t_alloc(size)))
        count++;
    t_equal(count, expected);
    t_check(t_used(0) <= limit, "the GPU says %llu bytes are in use, the limit is %llu", (unsigned long long)t_used(0),
            (unsigned long long)limit);
    uint64_t left = limit - t_used(0), next = is_small() ? granule : round_up(size, granule);
    t_check(left < next, "%llu bytes were left although a block takes %llu", (unsigned long long)left, (unsigned long long)next);
    t_equal(t_free(), left);
    return count;
}

static void empty(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) /* neither in order nor the other way round */
        t_cuda(cuMemFree(block[(i * 7919) % count]));
}

int main(int argc, char **argv)
{
    size = size_of(argc > 1 ? argv[1] : "1M");
    CUcontext context = t_context(0);
    uint64_t with_context = t_used(0);

    limit = t_total();
    if (!strchr(getenv("SOFTSLICE_VRAM"), '%'))
        t_equal(limit, t_bytes("SOFTSLICE_VRAM", 0));
    else
        t_equal(limit, t_physical(0) * strtoull(getenv("SOFTSLICE_VRAM"), NULL, 10) / 100);
    granule = t_granule();
    t_equal(with_context, round_up(t_bytes("SOFTSIM_CONTEXT_BYTES", 512 * T_MIB), granule));
    t_equal(t_free(), limit - with_context);

    uint64_t count = fill(with_context);
    t_cuda(cuMemFree(block[count - 1]));
    block[count - 1] = t_alloc(size);
    t_check(block[count - 1], "a block that was freed could not be had again");
    t_check(!t_alloc(size), "a block beyond the budget was granted");

    while (count % 7919 == 0) /* so that empty() reaches each */
        t_cuda(cuMemFree(block[--count]));
    empty(count);
    t_equal(t_used(0), with_context);
    t_equal(t_free(), limit - with_context);
    fill(with_context);

    /* The context takes its allocations with it. */
    t_cuda(cuCtxDestroy(context));
    t_equal(t_used(0), 0);
    context = t_context(0);
    t_equal(t_free(), limit - with_context);
    fill(with_context);
    t_cuda(cuCtxDestroy(context));
    return 0;
}
