/* SPDX-License-Identifier: Apache-2.0 */
/* keep_asleep: what a process released while it keeps the addresses is nobody else's; it is there when the process wakes, and comes back with the
 * addresses or with the process. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=asleep SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_KEEP_ASLEEP=on -- on
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=asleep SOFTSIM_CONTEXT_BYTES=100M -- off
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=asleep SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_KEEP_ASLEEP=on -- order
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=asleep SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_KEEP_ASLEEP=on -- killed
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=asleep SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_KEEP_ASLEEP=on SOFTSIM_MODULE_BYTES=64M -- growth
#include "vmm_helper.h"

#define ROOM  (T_GIB - 2 * 100 * T_MIB)
#define CHUNK (64 * T_MIB)

enum { CHUNKS = 10 };

/* ---- another process of the tenant */

static int to_other, from_other;

static void other(void)
{
    size_t size;

    t_context(0);
    t_check(write(from_other, "", 1) == 1, "pipe");
    while (read(to_other, &size, sizeof(size)) == sizeof(size)) {
        CUdeviceptr p = t_alloc(size);
        char granted = p != 0;

        if (p)
            t_cuda(cuMemFree(p));
        t_check(write(from_other, &granted, 1) == 1, "pipe");
    }
    _exit(0);
}

static pid_t start_other(void)
{
    int to[2], from[2];
    char byte;

    t_check(pipe(to) == 0 && pipe(from) == 0, "pipe");
    pid_t child = t_fork();
    if (child == 0) {
        close(to[1]);
        to_other = to[0];
        from_other = from[1];
        other();
    }
    close(to[0]);
    to_other = to[1];
    from_other = from[0];
    t_check(read(from_other, &byte, 1) == 1, "the other process ended");
    return child;
}

static bool other_gets(size_t size)
{
    char granted;

    t_check(write(to_other, &size, sizeof(size)) == sizeof(size) && read(from_other, &granted, 1) == 1, "the other process ended");
    return granted;
}

/* It can have this much, and no granule more. */
static void left(size_t size)
{
    t_check(size == 0 || other_gets(size), "%zu MiB are left, and were refused", (size_t)(size / T_MIB));
    t_check(!other_gets(size + 2 * T_MIB), "more than %zu MiB was granted", (size_t)(size / T_MIB));
}

/* ---- sleeping and waking */

static CUdeviceptr place;

/* As vLLM does: a chunk at a time is unmapped and released, its addresses kept. */
static void fall_asleep(CUmemGenericAllocationHandle *handle)
{
    for (unsigned i = 0; i < CHUNKS; i++) {
        t_cuda(cuMemUnmap(place + i * CHUNK, CHUNK));
        t_cuda(cuMemRelease(handle[i]));
    }
}

static void wake(CUmemGenericAllocationHandle *handle, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        t_check((handle[i] = t_create(0, CHUNK)), "what was asleep could not be had again");
        t_cuda(cuMemMap(place + i * CHUNK, CHUNK, 0, handle[i], 0));
    }
}

static void sleeps(bool kept)
{
    CUmemGenericAllocationHandle handle[CHUNKS];
    size_t asleep = kept ? CHUNKS * CHUNK : 0;

    place = t_reserve(CHUNKS * CHUNK);
    wake(handle, 0, CHUNKS);
    left(ROOM - CHUNKS * CHUNK);
    for (unsigned i = 0; i < 20; i++) {
        fall_asleep(handle);
        t_equal(t_used(0), 2 * 100 * T_MIB);
        left(ROOM - asleep);
        wake(handle, 0, 4); /* the weights first */
        left(ROOM - (kept ? asleep : 4 * CHUNK));
        wake(handle, 4, CHUNKS);
        left(ROOM - CHUNKS * CHUNK);
    }
    /* Half awake, and all of the addresses go. */
    fall_asleep(handle);
    wake(handle, 0, 5);
    for (unsigned i = 0; i < 5; i++)
        t_cuda(cuMemRelease(handle[i]));
    left(ROOM - (kept ? asleep : 5 * CHUNK));
    t_cuda(cuMemUnmap(place, 5 * CHUNK));
    left(ROOM - asleep);
    t_check(cuMemAddressFree(place, CHUNK) != CUDA_SUCCESS, "a part of the addresses was freed");
    left(ROOM - asleep);
    t_cuda(cuMemAddressFree(place, CHUNKS * CHUNK));
    left(ROOM);
}

/* In whatever order the handle, the mapping and the addresses go: with the addresses it is not asleep. */
static void orders(void)
{
    CUmemGenericAllocationHandle handle;

    for (unsigned order = 0; order < 3; order++) {
        place = t_reserve(CHUNK);
        t_check((handle = t_create(0, CHUNK)), "refused within the budget");
        t_cuda(cuMemMap(place, CHUNK, 0, handle, 0));
        if (order == 0)
            t_cuda(cuMemRelease(handle));
        t_cuda(cuMemUnmap(place, CHUNK));
        if (order == 1)
            t_cuda(cuMemRelease(handle));
        left(ROOM - CHUNK);
        t_cuda(cuMemAddressFree(place, CHUNK));
        if (order == 2) {
            left(ROOM - CHUNK);
            t_cuda(cuMemRelease(handle));
        }
        left(ROOM);
    }
    /* Never mapped, never asleep. */
    t_check((handle = t_create(0, CHUNK)), "refused within the budget");
    t_cuda(cuMemRelease(handle));
    left(ROOM);

    /* What is kept serves a larger and a smaller allocation, and what these cost beyond it is asked for. */
    place = t_reserve(8 * CHUNK);
    t_check(t_map(place, 0, 2 * CHUNK), "refused within the budget");
    t_cuda(cuMemUnmap(place, 2 * CHUNK));
    t_check(t_map(place, 0, CHUNK), "refused what was asleep");
    left(ROOM - 2 * CHUNK);
    t_check(t_map(place + 2 * CHUNK, 0, 3 * CHUNK), "refused within the budget");
    left(ROOM - 4 * CHUNK);
    t_check(!t_create(0, 16 * CHUNK), "more was granted than the budget has");
    left(ROOM - 4 * CHUNK);
    t_cuda(cuMemUnmap(place, CHUNK));
    t_cuda(cuMemUnmap(place + 2 * CHUNK, 3 * CHUNK));
    t_equal(t_used(0), 2 * 100 * T_MIB);
    t_check(!t_create(0, 16 * CHUNK), "more was granted than the budget has");
    left(ROOM - 4 * CHUNK);
    t_cuda(cuMemAddressFree(place, 8 * CHUNK));
    left(ROOM);
}

/* What the driver takes by itself meanwhile is found, though the process holds less than it is charged for. */
static void grows(void)
{
    CUmodule module;

    place = t_reserve(8 * CHUNK);
    t_check(t_map(place, 0, 8 * CHUNK), "refused within the budget");
    t_cuda(cuMemUnmap(place, 8 * CHUNK));
    left(ROOM - 8 * CHUNK);
    t_cuda(cuModuleLoadData(&module, "an image"));
    left(ROOM - 8 * CHUNK - 64 * T_MIB);
    t_check(t_map(place, 0, 8 * CHUNK), "what was asleep could not be had again");
    left(ROOM - 8 * CHUNK - 64 * T_MIB);
    t_cuda(cuModuleUnload(module));
    left(ROOM - 8 * CHUNK);
    t_cuda(cuMemUnmap(place, 8 * CHUNK));
    t_cuda(cuMemAddressFree(place, 8 * CHUNK));
    left(ROOM);
}

/* The one that sleeps is killed: nobody wakes. */
static void killed(void)
{
    int ready[2];
    char byte;

    t_check(pipe(ready) == 0, "pipe");
    pid_t child = t_fork();
    if (child == 0) {
        t_context(0);
        place = t_reserve(CHUNK);
        t_check(t_map(place, 0, CHUNK), "refused within the budget");
        t_cuda(cuMemUnmap(place, CHUNK));
        t_check(write(ready[1], "", 1) == 1, "pipe");
        for (;;)
            pause();
    }
    t_check(read(ready[0], &byte, 1) == 1, "pipe");
    left(ROOM - CHUNK);
    kill(child, SIGKILL);
    t_check(waitpid(child, NULL, 0) == child, "waitpid");
    for (uint64_t end = t_now_ms() + 20000; t_now_ms() < end && !other_gets(ROOM + 100 * T_MIB);)
        usleep(10000);
    left(ROOM + 100 * T_MIB);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "on";
    pid_t child = start_other();

    if (!strcmp(what, "killed")) {
        killed();
    } else {
        t_context(0);
        if (!strcmp(what, "order"))
            orders();
        else if (!strcmp(what, "growth"))
            grows();
        else
            sleeps(!strcmp(what, "on"));
    }
    close(to_other);
    t_join(child);
    return 0;
}
