/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays and mipmapped arrays fill the budget and no more, the small ones together; they give all of it back, and what is wrong about a call is told
 * by the driver. With a driver that cannot tell sizes, likewise. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_FAIL=cuArrayGetMemoryRequirements:1+:801,cuMipmappedArrayGetMemoryRequirements:1+:801
// run: SOFTSLICE_VRAM=777MiB SOFTSIM_CONTEXT_BYTES=301M SOFTSIM_GRANULARITY=64K
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_GRANULARITY=4M
#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include <pthread.h>

#include "../helper.h"

#include <cuda.h>

#define REAL(symbol) ((__typeof__(&symbol))t_real(#symbol))
#define NOBODY       ((void *)0xdeadbeef0)

enum { MOST = 4000, THREADS = 8, ROUNDS = 300 };

static CUarray held[MOST];
static uint64_t limit, granule;

static uint64_t free_now(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    t_equal(total, limit);
    return free_bytes;
}

/* What is charged covers what the GPU has given. */
static void covered(void)
{
    uint64_t charged = limit - free_now();

    t_check(t_used(0) <= charged && charged <= limit, "%llu bytes are charged, the GPU says %llu", (unsigned long long)charged,
            (unsigned long long)t_used(0));
}

static CUarray make(size_t width, size_t height, CUarray_format format, unsigned channels)
{
    CUarray array = NOBODY;
    CUresult result = cuArrayCreate_v2(
        &array, &(CUDA_ARRAY_DESCRIPTOR){.Width = width, .Height = height, .Format = format, .NumChannels = channels});

    if (result == CUDA_SUCCESS)
        return array;
    t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
    t_check(array == NOBODY, "a refused cuArrayCreate wrote its output");
    return NULL;
}

static void fill_large(void)
{
    uint64_t before = free_now(), count = 0;

    while ((held[count] = make(1024, 1024, CU_AD_FORMAT_FLOAT, 1)))
        count++;
    t_equal(count, before / (4 * T_MIB));
    t_equal(free_now(), before - count * 4 * T_MIB);
    t_equal(t_used(0), limit - free_now());
    t_cuda(cuArrayDestroy(held[--count]));
    held[count] = make(1024, 512, CU_AD_FORMAT_HALF, 4);
    t_check(held[count++], "an array of the size of one that was destroyed was refused");
    while (count)
        t_cuda(cuArrayDestroy(held[--count]));
    t_equal(free_now(), before);
}

static void fill_small(void)
{
    uint64_t before = free_now(), count = 0;

    /* A thousand arrays of 4 KiB are 4 MiB, not a thousand granules. */
    while (count < 1000) {
        t_check((held[count] = make(64, 64, CU_AD_FORMAT_UNSIGNED_INT8, 1)), "a small array was refused");
        count++;
        if (count % 100 == 0)
            covered();
    }
    uint64_t taken = before - free_now();
    t_check(taken >= 1000 * 4096 && taken <= 1000 * 4096 + granule, "a thousand arrays of 4 KiB are charged %llu bytes",
            (unsigned long long)taken);
    while (count)
        t_cuda(cuArrayDestroy(held[--count]));
    t_equal(free_now(), before);

    /* Ones that leave a part of each granule unused. */
    while (count < MOST && (held[count] = make(1000, 700, CU_AD_FORMAT_UNSIGNED_INT8, 1)))
        count++;
    t_check(count > before / T_MIB / 2 && count < MOST, "%llu arrays of 700 KB", (unsigned long long)count);
    covered();
    while (count)
        t_cuda(cuArrayDestroy(held[--count]));
    t_equal(free_now(), before);
}

static void mipmaps(void)
{
    CUDA_ARRAY3D_DESCRIPTOR d = {.Width = 2048, .Height = 2048, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4};
    uint64_t before = free_now(), count = 0;
    CUmipmappedArray mipmap[256];
    CUarray level;

    for (;; count++) {
        mipmap[count] = NOBODY;
        CUresult result = cuMipmappedArrayCreate(&mipmap[count], &d, 12);
        covered();
        if (result != CUDA_SUCCESS) {
            t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
            t_check(mipmap[count] == NOBODY, "a refused cuMipmappedArrayCreate wrote its output");
            break;
        }
    }
    t_check(count >= before / (24 * T_MIB) && count <= before / (21 * T_MIB), "%llu mipmapped arrays of 21 1/3 MiB",
            (unsigned long long)count);
    uint64_t full = free_now();
    t_cuda(cuMipmappedArrayGetLevel(&level, mipmap[0], 1));
    t_result(cuArrayDestroy(level), REAL(cuArrayDestroy)(level));
    t_equal(free_now(), full);
    while (count)
        t_cuda(cuMipmappedArrayDestroy(mipmap[--count]));
    t_equal(free_now(), before);
    t_result(cuMipmappedArrayDestroy(mipmap[0]), REAL(cuMipmappedArrayDestroy)(mipmap[0]));

    /* Layers, a cube, one without memory. */
    for (int kind = 0; kind < 3; kind++) {
        static const unsigned flags[] = {CUDA_ARRAY3D_LAYERED, CUDA_ARRAY3D_CUBEMAP, CUDA_ARRAY3D_DEFERRED_MAPPING};
        CUDA_ARRAY3D_DESCRIPTOR several = {1024, 1024, 6, CU_AD_FORMAT_FLOAT, 1, flags[kind]};
        CUarray array;

        t_cuda(cuArray3DCreate_v2(&array, &several));
        t_equal(free_now(), before - (kind == 2 ? 0 : 24 * T_MIB));
        covered();
        t_cuda(cuArrayDestroy(array));
        t_cuda(cuMipmappedArrayCreate(&mipmap[0], &several, 3));
        if (kind == 2)
            t_equal(free_now(), before);
        covered();
        t_cuda(cuMipmappedArrayDestroy(mipmap[0]));
        t_equal(free_now(), before);
    }
}

/* The driver's own answer, output and all, and nothing charged. */
static void told(const CUDA_ARRAY3D_DESCRIPTOR *d, bool output, unsigned levels)
{
    uint64_t before = free_now();
    CUmipmappedArray mipmap = NOBODY;
    CUarray array = NOBODY;

    if (levels)
        t_result(cuMipmappedArrayCreate(output ? &mipmap : NULL, d, levels - 1),
                 REAL(cuMipmappedArrayCreate)(output ? &mipmap : NULL, d, levels - 1));
    else
        t_result(cuArray3DCreate_v2(output ? &array : NULL, d), REAL(cuArray3DCreate_v2)(output ? &array : NULL, d));
    t_check(array == NOBODY && mipmap == NOBODY, "a failed creation wrote its output");
    t_equal(free_now(), before);
}

static void wrong(void)
{
    static const CUDA_ARRAY3D_DESCRIPTOR descriptions[] = {
        {0, 0, 0, CU_AD_FORMAT_FLOAT, 1, 0},
        {1024, 1024, 0, CU_AD_FORMAT_FLOAT, 3, 0},
        {4096, 4096, 0, CU_AD_FORMAT_FLOAT, 7, 0},
        {16384, 16384, 0, CU_AD_FORMAT_FLOAT, 7, 0}, /* more than the budget, less than the card */
        {4096, 4096, 0, (CUarray_format)0x7e, 1, 0},
        {(size_t)1 << 33, 1, 0, CU_AD_FORMAT_FLOAT, 4, 0},
        {(size_t)1 << 62, (size_t)1 << 62, 4, CU_AD_FORMAT_FLOAT, 4, 0},
        {SIZE_MAX, SIZE_MAX, SIZE_MAX, CU_AD_FORMAT_FLOAT, 4, 0},
        {(size_t)1 << 63, 2, 1, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0},
        {1 << 20, 1 << 20, 1 << 20, CU_AD_FORMAT_FLOAT, 4, 0},
    };
    CUDA_ARRAY_DESCRIPTOR flat = {.Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    CUDA_ARRAY_DESCRIPTOR_v1 flat_v1 = {.Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    CUDA_ARRAY3D_DESCRIPTOR_v1 solid_v1 = {.Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    uint64_t before = free_now();
    CUarray array = NOBODY;

    for (size_t i = 0; i < sizeof(descriptions) / sizeof(descriptions[0]); i++)
        for (unsigned levels = 0; levels < 14; levels += 3) {
            told(&descriptions[i], true, levels);
            told(&descriptions[i], false, levels);
        }
    told(NULL, true, 0);
    told(NULL, true, 3);
    told(&(CUDA_ARRAY3D_DESCRIPTOR){1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0}, false, 0);
    told(&(CUDA_ARRAY3D_DESCRIPTOR){1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0}, true, 1);
    t_result(cuArrayCreate_v2(NULL, &flat), REAL(cuArrayCreate_v2)(NULL, &flat));
    t_result(cuArrayCreate_v2(&array, NULL), REAL(cuArrayCreate_v2)(&array, NULL));
    t_result(cuArrayCreate(&array, &flat_v1), CUDA_ERROR_INVALID_CONTEXT);
    t_result(cuArray3DCreate(&array, &solid_v1), CUDA_ERROR_INVALID_CONTEXT);
    t_check(array == NOBODY, "a failed creation wrote its output");
    t_result(cuArrayDestroy(NULL), REAL(cuArrayDestroy)(NULL));
    t_result(cuArrayDestroy(NOBODY), REAL(cuArrayDestroy)(NOBODY));
    array = make(1024, 1024, CU_AD_FORMAT_FLOAT, 1);
    t_result(cuMipmappedArrayDestroy((CUmipmappedArray)array), REAL(cuMipmappedArrayDestroy)((CUmipmappedArray)array));
    t_equal(free_now(), before - 4 * T_MIB);
    t_cuda(cuArrayDestroy(array));
    t_result(cuArrayDestroy(array), REAL(cuArrayDestroy)(array));
    t_equal(free_now(), before);
}

/* Every format that cuda.h names is charged at least what its elements come to: half bytes of one, by number. */
static void formats(void)
{
    static const unsigned char known[] = {0x01, 0x02, 0x03, 0x08, 0x09, 0x0a, 0x10, 0x20};
    uint64_t before = free_now();

    for (size_t i = 0; i < sizeof(known); i++)
        for (unsigned channels = 1; channels <= 4; channels *= 2) {
            CUarray array = make(2000, 3000, (CUarray_format)known[i], channels);
            covered();
            t_cuda(cuArrayDestroy(array));
            t_equal(free_now(), before);
        }
}

/* Small arrays that are left over keep more granules than they would fill: the driver's figure shows that after a while. */
static void left_over(void)
{
    uint64_t before = free_now(), end = t_now_ms() + 20000, count = 0;

    while (count < MOST && (held[count] = make(64, 64, CU_AD_FORMAT_UNSIGNED_INT8, 1)))
        count++;
    t_equal(count, MOST);
    for (uint64_t i = 0; i < count; i++)
        if (i % 500)
            t_cuda(cuArrayDestroy(held[i]));
    while (t_used(0) > limit - free_now() && t_now_ms() < end)
        usleep(10000);
    covered();
    for (uint64_t i = 0; i < count; i += 500)
        t_cuda(cuArrayDestroy(held[i]));
    while (free_now() != before && t_now_ms() < end)
        usleep(10000);
    t_equal(free_now(), before);
}

/* An array ends with its context, and can be destroyed in whichever is current. */
static void contexts(void)
{
    uint64_t before = free_now();
    CUcontext first, second;
    CUarray large, small;

    t_cuda(cuCtxGetCurrent(&first));
    t_cuda(cuCtxCreate_v2(&second, 0, 0));
    uint64_t with = free_now();
    large = make(1024, 1024, CU_AD_FORMAT_FLOAT, 1);
    small = make(16, 16, CU_AD_FORMAT_FLOAT, 1);
    t_equal(free_now(), with - 4 * T_MIB - granule);
    covered();
    t_cuda(cuCtxSetCurrent(first));
    CUarray mine = make(16, 16, CU_AD_FORMAT_FLOAT, 1); /* in no granule of the other context's */
    t_equal(free_now(), with - 4 * T_MIB - 2 * granule);
    covered();
    t_cuda(cuArrayDestroy(small));
    t_equal(free_now(), with - 4 * T_MIB - granule);
    t_cuda(cuCtxDestroy_v2(second));
    t_equal(free_now(), before - granule);
    t_result(cuArrayDestroy(large), REAL(cuArrayDestroy)(large));
    t_cuda(cuArrayDestroy(mine));
    t_equal(free_now(), before);
}

static CUcontext context;

static void *worker(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    CUarray mine[16] = {NULL};

    t_cuda(cuCtxSetCurrent(context));
    for (int i = 0; i < ROUNDS; i++) {
        CUarray *slot = &mine[(unsigned)rand_r(&seed) % 16];

        if (*slot) {
            t_cuda(cuArrayDestroy(*slot));
            *slot = NULL;
        } else if (rand_r(&seed) % 4) {
            *slot = make(1 + (unsigned)rand_r(&seed) % 1000, 1 + (unsigned)rand_r(&seed) % 800, CU_AD_FORMAT_UNSIGNED_INT8, 1);
        } else {
            *slot = make(2048, 1024, CU_AD_FORMAT_FLOAT, 4);
        }
    }
    for (int i = 0; i < 16; i++)
        if (mine[i])
            t_cuda(cuArrayDestroy(mine[i]));
    return NULL;
}

/* What small arrays hold beyond their sum is charged when the driver's figure is read, as it is around this call, unless the thread that reads it now and then
 * is at it in that moment. */
static void read_figure(void)
{
    size_t heap;

    t_cuda(cuCtxGetLimit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
    for (int i = 0; i < 100; i++) {
        t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap));
        if (free_now() == limit - t_used(0))
            return;
        usleep(1000);
    }
}

static void threads(void)
{
    uint64_t before = (read_figure(), free_now());
    pthread_t thread[THREADS];

    t_cuda(cuCtxGetCurrent(&context));
    for (uintptr_t i = 0; i < THREADS; i++)
        t_check(!pthread_create(&thread[i], NULL, worker, (void *)(i + 1)), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    read_figure();
    t_equal(free_now(), before);
    fill_large();
}

int main(void)
{
    CUcontext first;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate_v2(&first, 0, 0));
    limit = t_bytes("SOFTSLICE_VRAM", 0);
    granule = t_bytes("SOFTSIM_GRANULARITY", 2 * T_MIB);
    t_equal(free_now(), limit - t_used(0));
    fill_large();
    fill_small();
    mipmaps();
    wrong();
    formats();
    contexts();
    left_over();
    threads();
    return 0;
}
