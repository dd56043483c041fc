/* SPDX-License-Identifier: Apache-2.0 */
/* Physical allocations are charged to the device that they are on, for as long as a reference to their handle or a mapping is left, whatever goes
 * last, in however many threads; and what the driver refuses it refuses in its own words. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- lives
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- errors
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=vmm -- races
// run: SOFTSLICE_VRAM=0=1GiB,1=2GiB SOFTSIM_GPUS=2 SOFTSIM_CONTEXT_BYTES=100M -- devices
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- endings
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=vmm -- fork
#include <pthread.h>

#include "vmm_helper.h"

#define CONTEXT (100 * T_MIB)

/* What is charged is what the GPU has given. */
static void charged(uint64_t bytes)
{
    t_equal(t_used(0), CONTEXT + bytes);
    t_equal(t_free(), t_bytes("SOFTSLICE_VRAM", 0) - CONTEXT - bytes);
}

/* ---- what holds an allocation */

static void lives(void)
{
    CUmemGenericAllocationHandle handle, again;
    CUdeviceptr place[2];

    t_context(0);
    for (int i = 0; i < 2; i++)
        place[i] = t_reserve(64 * T_MIB);
    charged(0); /* addresses cost nothing */

    t_check((handle = t_create(0, 64 * T_MIB)), "refused within the budget");
    charged(64 * T_MIB);
    t_cuda(cuMemRelease(handle));
    charged(0);

    /* Each mapping, and each reference. */
    t_check((handle = t_create(0, 64 * T_MIB)), "refused within the budget");
    t_cuda(cuMemMap(place[0], 64 * T_MIB, 0, handle, 0));
    t_cuda(cuMemMap(place[1], 64 * T_MIB, 0, handle, 0));
    t_cuda(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(place[0] + 3 * T_MIB)));
    t_equal(again, handle);
    charged(64 * T_MIB);
    t_cuda(cuMemRelease(handle));
    charged(64 * T_MIB);
    t_cuda(cuMemUnmap(place[0], 64 * T_MIB));
    charged(64 * T_MIB);
    t_cuda(cuMemRelease(again));
    charged(64 * T_MIB);
    t_cuda(cuMemUnmap(place[1], 64 * T_MIB));
    charged(0);

    /* A reference after everything else is gone. */
    t_check((handle = t_create(0, 64 * T_MIB)), "refused within the budget");
    t_cuda(cuMemMap(place[0], 64 * T_MIB, 0, handle, 0));
    t_cuda(cuMemRelease(handle));
    t_cuda(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)place[0]));
    t_cuda(cuMemUnmap(place[0], 64 * T_MIB));
    charged(64 * T_MIB);
    t_cuda(cuMemMap(place[1], 64 * T_MIB, 0, again, 0)); /* and mapped from it once more */
    t_cuda(cuMemRelease(again));
    charged(64 * T_MIB);
    t_cuda(cuMemUnmap(place[1], 64 * T_MIB));
    charged(0);

    /* Many chunks, one unmapping. */
    for (unsigned i = 0; i < 32; i++) {
        t_check((handle = t_create(0, 2 * T_MIB)), "refused within the budget");
        t_cuda(cuMemMap(place[0] + i * 2 * T_MIB, 2 * T_MIB, 0, handle, 0));
        t_cuda(cuMemRelease(handle));
    }
    charged(64 * T_MIB);
    t_cuda(cuMemUnmap(place[0], 32 * T_MIB));
    charged(32 * T_MIB);
    t_cuda(cuMemUnmap(place[0] + 32 * T_MIB, 32 * T_MIB));
    charged(0);

    /* To the last byte, and not one granule more. */
    unsigned blocks = 0;
    while ((handle = t_create(0, 2 * T_MIB)))
        blocks++;
    t_equal(blocks, (T_GIB - CONTEXT) / (2 * T_MIB));
}

/* ---- the driver's own words */

#define DRIVER(function) ((__typeof__(&function))t_real(#function))

static bool spent; /* there is nothing left of the budget */

static void creation(size_t size, const CUmemAllocationProp *prop, unsigned long long flags)
{
    CUmemGenericAllocationHandle by_driver = 0xdead, by_us = 0xdead;
    CUresult expected = DRIVER(cuMemCreate)(&by_driver, size, prop, flags);

    if (expected == CUDA_SUCCESS) {
        t_cuda(DRIVER(cuMemRelease)(by_driver));
        if (spent && prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
            t_check(!t_create(0, size), "a block beyond the budget was granted");
            return;
        }
        t_cuda(cuMemCreate(&by_us, size, prop, flags));
        t_cuda(cuMemRelease(by_us));
        return;
    }
    t_result(cuMemCreate(&by_us, size, prop, flags), expected);
    t_equal(by_us, by_driver);
}

static void bad_creations(void)
{
    static const size_t sizes[] = {
        0, 1, 4096, (2 << 20) + 1, 2 << 20, SIZE_MAX, SIZE_MAX & ~(size_t)(2 * T_MIB - 1), (size_t)1 << 62};
    CUmemAllocationProp good = t_prop(0), bad[7];

    for (unsigned i = 0; i < 7; i++)
        bad[i] = good;
    bad[0].type = 0;
    bad[1].type = (CUmemAllocationType)77;
    bad[2].location.id = 99;
    bad[3].location.id = -1;
    bad[4].location.type = (CUmemLocationType)77;
    bad[5].requestedHandleTypes = CU_MEM_HANDLE_TYPE_WIN32;
    bad[6].location.type = CU_MEM_LOCATION_TYPE_HOST; /* is none: costs nothing here */
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        creation(sizes[i], &good, 0);
        creation(sizes[i], &good, 1);
        creation(sizes[i], NULL, 0);
        for (unsigned k = 0; k < 6; k++)
            creation(sizes[i], &bad[k], 0);
    }
    creation(2 << 20, &bad[6], 0);
    t_result(cuMemCreate(NULL, 2 << 20, &good, 0), DRIVER(cuMemCreate)(NULL, 2 << 20, &good, 0));
}

static void errors(void)
{
    CUmemGenericAllocationHandle handle, out = 0xdead, none = 0x1234560;
    CUmemAllocationProp host = t_prop(0);
    CUdeviceptr place;

    t_result(cuMemCreate(&out, 2 << 20, &host, 0), CUDA_ERROR_NOT_INITIALIZED);
    t_equal(out, 0xdead);
    t_context(0);
    bad_creations();
    charged(0);

    place = t_reserve(64 * T_MIB);
    t_result(cuMemRelease(none), DRIVER(cuMemRelease)(none));
    t_result(cuMemRelease(0), DRIVER(cuMemRelease)(0));
    t_result(cuMemMap(place, 2 << 20, 0, none, 0), DRIVER(cuMemMap)(place, 2 << 20, 0, none, 0));
    t_result(cuMemUnmap(place, 2 << 20), DRIVER(cuMemUnmap)(place, 2 << 20));
    t_result(cuMemUnmap(place, 0), DRIVER(cuMemUnmap)(place, 0));
    t_result(cuMemRetainAllocationHandle(&out, (void *)(uintptr_t)place),
             DRIVER(cuMemRetainAllocationHandle)(&out, (void *)(uintptr_t)place));
    t_equal(out, 0xdead);

    /* What fails changes nothing. */
    t_check((handle = t_create(0, 64 * T_MIB)), "refused within the budget");
    t_check(cuMemMap(place, 64 * T_MIB, 0, handle, 1) != CUDA_SUCCESS, "a mapping with flags");
    t_check(cuMemMap(place, 2 * T_MIB, 64 * T_MIB, handle, 0) != CUDA_SUCCESS, "a mapping behind the end");
    t_check(cuMemMap(place + 1, 64 * T_MIB, 0, handle, 0) != CUDA_SUCCESS, "a misaligned mapping");
    charged(64 * T_MIB);
    t_cuda(cuMemMap(place, 64 * T_MIB, 0, handle, 0));
    t_check(cuMemMap(place, 64 * T_MIB, 0, handle, 0) != CUDA_SUCCESS, "a mapping over a mapping");
    t_check(cuMemUnmap(place, 2 * T_MIB) != CUDA_SUCCESS, "half an unmapping");
    t_check(cuMemUnmap(place, 128 * T_MIB) != CUDA_SUCCESS, "an unmapping of too much");
    t_cuda(cuMemRelease(handle));
    t_check(cuMemRelease(handle) != CUDA_SUCCESS, "a second release");
    t_check(cuMemAddressFree(place, 64 * T_MIB) != CUDA_SUCCESS, "addresses were freed that are mapped");
    charged(64 * T_MIB);
    t_cuda(cuMemUnmap(place, 64 * T_MIB));
    charged(0);
    t_check(cuMemUnmap(place, 64 * T_MIB) != CUDA_SUCCESS, "a second unmapping");
    t_cuda(cuMemAddressFree(place, 64 * T_MIB));
    charged(0);

    /* With nothing left of the budget, too: what is invalid is not too much. */
    while (t_create(0, 2 * T_MIB))
        continue;
    spent = true;
    uint64_t used = t_used(0);
    bad_creations();
    t_equal(t_used(0), used);
    t_equal(t_free(), 0);

    /* Memory of the host costs nothing, and is to be had where the budget is spent. */
    host.location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_HOST_NUMA};
    t_cuda(cuMemCreate(&out, 64 * T_MIB, &host, 0));
    t_equal(t_used(0), used);
    place = t_reserve(64 * T_MIB);
    t_cuda(cuMemMap(place, 64 * T_MIB, 0, out, 0));
    t_cuda(cuMemRelease(out));
    t_cuda(cuMemUnmap(place, 64 * T_MIB));
    t_equal(t_free(), 0);
}

/* ---- threads */

enum { THREADS = 8, HELD = 24 };

static CUcontext context;
static int64_t granted, most;
static uint64_t grants, refusals;

static void count(int64_t bytes)
{
    int64_t now = __atomic_add_fetch(&granted, bytes, __ATOMIC_SEQ_CST), top = __atomic_load_n(&most, __ATOMIC_RELAXED);

    while (now > top && !__atomic_compare_exchange_n(&most, &top, now, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}

struct block {
    CUmemGenericAllocationHandle handle; /* 0: released */
    CUdeviceptr place;
    size_t size; /* 0: none */
    bool mapped;
};

/* One step on its way: created, perhaps mapped, retained, released, unmapped in either order. */
static void step(struct block *b, unsigned *seed)
{
    unsigned dice = (unsigned)rand_r(seed) % 4;
    CUmemGenericAllocationHandle again;

    if (!b->size) {
        size_t size = (size_t)(1 + (unsigned)rand_r(seed) % 16) * 4 * T_MIB;

        b->handle = t_create(0, size);
        if (!b->handle) {
            __atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED);
            return;
        }
        count((int64_t)size);
        __atomic_fetch_add(&grants, 1, __ATOMIC_RELAXED);
        b->size = size;
    } else if (b->handle && !b->mapped && dice) {
        t_cuda(cuMemMap(b->place, b->size, 0, b->handle, 0));
        b->mapped = true;
    } else if (b->mapped && dice == 1) {
        t_cuda(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)b->place));
        if (b->handle)
            t_cuda(cuMemRelease(again));
        else
            b->handle = again;
    } else if (b->handle && dice != 2) {
        if (!b->mapped)
            count(-(int64_t)b->size);
        t_cuda(cuMemRelease(b->handle));
        b->handle = 0;
    } else if (b->mapped) {
        if (!b->handle)
            count(-(int64_t)b->size);
        t_cuda(cuMemUnmap(b->place, b->size));
        b->mapped = false;
    }
    if (!b->handle && !b->mapped)
        b->size = 0;
}

static void *racer(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument * 7919u + 1;
    struct block block[HELD] = {{0}};

    t_cuda(cuCtxSetCurrent(context));
    for (unsigned i = 0; i < HELD; i++)
        block[i].place = t_reserve(64 * T_MIB);
    for (unsigned i = 0; i < 6000; i++)
        step(&block[(unsigned)rand_r(&seed) % HELD], &seed);
    for (unsigned i = 0; i < HELD; i++) {
        if (block[i].size)
            count(-(int64_t)block[i].size);
        if (block[i].handle)
            t_cuda(cuMemRelease(block[i].handle));
        if (block[i].mapped)
            t_cuda(cuMemUnmap(block[i].place, block[i].size));
        t_cuda(cuMemAddressFree(block[i].place, 64 * T_MIB));
    }
    return NULL;
}

/* All threads at one allocation: one creates, each maps it and unmaps it, and the creator's release comes somewhere in between. */
static CUmemGenericAllocationHandle common;
static pthread_barrier_t barrier;

static void *sharer(void *argument)
{
    CUdeviceptr place;

    t_cuda(cuCtxSetCurrent(context));
    place = t_reserve(4 * T_MIB);
    for (unsigned round = 0; round < 300; round++) {
        if (!argument)
            t_check((common = t_create(0, 4 * T_MIB)), "refused within the budget");
        pthread_barrier_wait(&barrier);
        if (!argument)
            t_cuda(cuMemRelease(common));
        else if (cuMemMap(place, 4 * T_MIB, 0, common, 0) == CUDA_SUCCESS)
            t_cuda(cuMemUnmap(place, 4 * T_MIB));
        pthread_barrier_wait(&barrier);
    }
    t_cuda(cuMemAddressFree(place, 4 * T_MIB));
    return NULL;
}

static void run(void *(*function)(void *))
{
    pthread_t thread[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++)
        t_check(!pthread_create(&thread[i], NULL, function, (void *)i), "pthread_create");
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
}

static void races(void)
{
    context = t_context(0);
    t_check(t_free(), "nothing is free"); /* the hooks are there before the threads are */
    t_cuda(cuMemRelease(t_create(0, 2 * T_MIB)));
    run(racer);
    printf("%llu grants, %llu refusals, at most %lld MiB\n", (unsigned long long)grants, (unsigned long long)refusals,
           (long long)(most / (int64_t)T_MIB));
    t_check(grants && refusals, "there was no race");
    t_check((uint64_t)most <= T_GIB - CONTEXT, "more was granted than the budget has");
    charged(0);
    pthread_barrier_init(&barrier, NULL, THREADS);
    run(sharer);
    charged(0);
}

/* ---- devices */

static void devices(void)
{
    CUmemGenericAllocationHandle handle;
    CUcontext other;
    unsigned blocks = 0;

    t_context(0);
    t_cuda(cuCtxCreate(&other, NULL, 0, 1));
    /* Device 1 is current: the location decides. */
    while ((handle = t_create(0, 4 * T_MIB)))
        blocks++;
    t_equal(blocks, (T_GIB - CONTEXT) / (4 * T_MIB));
    t_equal(t_free(), 2 * T_GIB - CONTEXT);
    blocks = 0;
    CUcontext gone;
    t_cuda(cuCtxPopCurrent(&gone)); /* now device 0 */
    while ((handle = t_create(1, 4 * T_MIB)))
        blocks++;
    t_equal(blocks, (2 * T_GIB - CONTEXT) / (4 * T_MIB));
    t_equal(t_used(0), CONTEXT + (T_GIB - CONTEXT) / (4 * T_MIB) * 4 * T_MIB);
    t_equal(t_used(1), CONTEXT + (2 * T_GIB - CONTEXT) / (4 * T_MIB) * 4 * T_MIB);
    /* With no context current at all. */
    t_cuda(cuCtxSetCurrent(NULL));
    t_check(!t_create(0, 4 * T_MIB) && !t_create(1, 4 * T_MIB), "granted beyond the budget without a context");
}

/* ---- contexts and processes */

static void endings(void)
{
    CUmemGenericAllocationHandle handle;
    CUcontext made = t_context(0);

    t_check((handle = t_create(0, 64 * T_MIB)), "refused within the budget");
    CUdeviceptr place = t_reserve(64 * T_MIB);
    t_cuda(cuMemMap(place, 64 * T_MIB, 0, handle, 0));
    t_cuda(cuCtxDestroy(made));
    t_context(0);
    charged(64 * T_MIB); /* belongs to no context */
    t_cuda(cuMemRelease(handle));
    charged(64 * T_MIB);
    t_cuda(cuMemUnmap(place, 64 * T_MIB));
    charged(0);
}

/* A child that uses CUDA knows nothing of its parent's allocations, though its handles may have the same values. */
static void forks(void)
{
    int go[2], done[2];
    char byte;

    if (getenv("TEST_EMULATED"))
        t_skip("rests on MADV_WIPEONFORK, which the emulator does not pass to the kernel");
    t_check(pipe(go) == 0 && pipe(done) == 0, "pipe");
    pid_t child = t_fork();
    if (child == 0) {
        t_check(read(go[0], &byte, 1) == 1, "pipe");
        t_context(0);
        CUmemGenericAllocationHandle own = t_create(0, 32 * T_MIB);
        t_check(own, "the child was refused");
        t_equal(t_free(), T_GIB - 2 * CONTEXT - 96 * T_MIB);
        t_cuda(cuMemRelease(own));
        t_equal(t_free(), T_GIB - 2 * CONTEXT - 64 * T_MIB);
        _exit(0);
    }
    t_context(0);
    CUmemGenericAllocationHandle handle = t_create(0, 64 * T_MIB);
    t_check(handle, "refused within the budget");
    pid_t late = t_fork(); /* of a process that has allocations: none of the child's business */
    if (late == 0)
        _exit(cuMemRelease(handle) == CUDA_SUCCESS);
    t_join(late);
    charged(64 * T_MIB);
    t_check(write(go[1], "", 1) == 1, "pipe");
    t_join(child);
    for (uint64_t end = t_now_ms() + 10000; t_now_ms() < end && t_free() != T_GIB - CONTEXT - 64 * T_MIB;)
        usleep(1000);
    charged(64 * T_MIB);
    t_cuda(cuMemRelease(handle));
    charged(0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*test)(void);
    } tests[] = {{"lives", lives},     {"errors", errors},   {"races", races},
                 {"devices", devices}, {"endings", endings}, {"fork", forks}};

    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        if (argc > 1 && !strcmp(argv[1], tests[i].name)) {
            tests[i].test();
            return 0;
        }
    t_fail("which?");
}
