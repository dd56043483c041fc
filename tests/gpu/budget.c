/* SPDX-License-Identifier: Apache-2.0 */
/* Behaviour of a budget, for a driver-API program, on any driver: real or simulated.
 *
 *   budget single                the largest total of 1 MiB blocks, twice, and the refusal after it
 *   budget story                 one line: the sizes that the driver and NVML tell
 *   budget hold MIB SECONDS      take MIB, say "holding", keep it
 *   budget take MIB SECONDS      try until MIB can be had, for at most SECONDS
 *   budget race SECONDS          8 processes of 8 threads take and give back at random
 *   budget watch MIB CMD...      run CMD without being limited itself; the largest sum of GPU memory
 *                                that NVML shows for CMD's session must not exceed MIB
 *
 * Exits 0 when what must hold held, 1 with a line saying what did not, 77 when it cannot tell. */
#include "probe.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 8, THREADS = 8, SLOTS = 64, MAX_BLOCKS = 200000 };
#define GRANULE (2 * MIB)

static int fail(const char *why)
{
    probe_row("failed", "%s", why);
    return 1;
}

static uint64_t reported_total(void)
{
    size_t f = 0, t = 0;

    cu.cuMemGetInfo_v2(&f, &t);
    return t;
}

/* Takes 1 MiB blocks until one is refused; returns how many, and the refusal. */
static unsigned int fill(CUdeviceptr *block, CUresult *res)
{
    unsigned int n = 0;

    while (n < MAX_BLOCKS && (*res = cu.cuMemAlloc_v2(&block[n], MIB)) == CUDA_SUCCESS)
        n++;
    return n;
}

static int single(void)
{
    CUdeviceptr *block = calloc(MAX_BLOCKS, sizeof(*block)), p;
    unsigned int n[2];
    CUresult res = CUDA_SUCCESS;

    if (!block)
        return 77;
    probe_context(probe_device());
    uint64_t total = reported_total(), free_before = probe_free();
    for (int round = 0; round < 2; round++) {
        n[round] = fill(block, &res);
        probe_row("single", "total %llu free %llu: %u blocks, then %s", (unsigned long long)total, (unsigned long long)free_before,
                  n[round], probe_result(res));
        if (res != CUDA_ERROR_OUT_OF_MEMORY)
            return fail("the refusal is not CUDA_ERROR_OUT_OF_MEMORY");
        if (n[round] * MIB > free_before)
            return fail("more was granted than cuMemGetInfo called free");
        if (n[round] * MIB + GRANULE <= free_before)
            return fail("refused although a whole granule was free");
        for (unsigned int i = 0; i < n[round]; i++)
            cu.cuMemFree_v2(block[i]);
        if (cu.cuMemAlloc_v2(&p, MIB) != CUDA_SUCCESS || cu.cuMemFree_v2(p) != CUDA_SUCCESS ||
            cu.cuCtxSynchronize() != CUDA_SUCCESS)
            return fail("the refusal left something behind");
    }
    if (n[0] != n[1])
        return fail("the second round got another number of blocks");
    return 0;
}

static int story(void)
{
    CUdevice dev = probe_device();
    nvml_device nd = probe_nvml_device();
    struct nvml_memory m = {0, 0, 0};
    struct nvml_memory_v2 m2;
    size_t f = 0, t = 0, total = 0;

    probe_context(dev);
    memset(&m2, 0, sizeof(m2));
    m2.version = (unsigned int)(sizeof(m2) | (2u << 24));
    cu.cuDeviceTotalMem_v2(&total, dev);
    cu.cuMemGetInfo_v2(&f, &t);
    if (nd && nv.memory)
        nv.memory(nd, &m);
    if (nd && nv.memory_v2)
        nv.memory_v2(nd, &m2);
    probe_row("story", "cuDeviceTotalMem %zu cuMemGetInfo %zu nvml_v1 %llu nvml_v2 %llu", total, t, m.total, m2.total);
    probe_row("story_free", "cuMemGetInfo %zu nvml_v1 %llu nvml_v2 %llu", f, m.free, m2.free);
    if (total != t)
        return fail("cuDeviceTotalMem and cuMemGetInfo differ");
    if (nd && (m.total != t || (nv.memory_v2 && m2.total != t)))
        return fail("NVML and cuMemGetInfo differ");
    if (nd && (m.used + m.free != m.total))
        return fail("NVML's used and free do not add up to total");
    return 0;
}

static int hold(size_t mib, unsigned int seconds)
{
    CUdeviceptr p;

    probe_context(probe_device());
    CUresult res = cu.cuMemAlloc_v2(&p, mib * MIB);
    if (res != CUDA_SUCCESS)
        return fail(probe_result(res));
    puts("holding");
    fflush(stdout);
    sleep(seconds);
    return 0;
}

static int take(size_t mib, unsigned int seconds)
{
    CUdeviceptr p;
    CUresult res;
    unsigned int tries = 0;

    probe_context(probe_device());
    uint64_t begin = probe_ns();
    do {
        res = cu.cuMemAlloc_v2(&p, mib * MIB);
        tries++;
    } while (res == CUDA_ERROR_OUT_OF_MEMORY && probe_ns() - begin < seconds * 1000000000ull);
    probe_row("take", "%s after %u tries, %llu us", probe_result(res), tries, (unsigned long long)((probe_ns() - begin) / 1000));
    return res == CUDA_SUCCESS ? 0 : fail(probe_result(res));
}

struct tally {
    atomic_ullong granted, most, grants, refusals;
    atomic_uint ready;
    atomic_int go, stop, broken;
};
static struct tally *tally;

static void grant(uint64_t bytes)
{
    unsigned long long now = atomic_fetch_add(&tally->granted, bytes) + bytes;
    unsigned long long most = atomic_load(&tally->most);

    while (now > most && !atomic_compare_exchange_weak(&tally->most, &most, now))
        ;
    atomic_fetch_add(&tally->grants, 1);
}

/* Whole granules only, so that the sum of what was granted is the sum of what is held. */
static void *racer(void *arg)
{
    CUdeviceptr block[SLOTS] = {0};
    size_t size[SLOTS] = {0};
    unsigned int seed = (unsigned int)(uintptr_t)arg ^ (unsigned int)getpid();

    cu.cuCtxSetCurrent(probe_context(0));
    while (!atomic_load(&tally->stop)) {
        unsigned int i = (unsigned int)rand_r(&seed) % SLOTS;

        if (size[i]) {
            /* Out of the tally first: the memory may be another's before cuMemFree returns. */
            atomic_fetch_sub(&tally->granted, size[i]);
            size[i] = 0;
            if (cu.cuMemFree_v2(block[i]) != CUDA_SUCCESS)
                atomic_store(&tally->broken, 1);
            continue;
        }
        size_t want = GRANULE << ((unsigned int)rand_r(&seed) % 6);
        CUresult res = cu.cuMemAlloc_v2(&block[i], want);
        if (res == CUDA_SUCCESS) {
            size[i] = want;
            grant(want);
        } else if (res == CUDA_ERROR_OUT_OF_MEMORY) {
            atomic_fetch_add(&tally->refusals, 1);
        } else {
            probe_row("race", "%s", probe_result(res));
            atomic_store(&tally->broken, 1);
        }
    }
    for (int i = 0; i < SLOTS; i++) {
        if (size[i]) {
            atomic_fetch_sub(&tally->granted, size[i]);
            cu.cuMemFree_v2(block[i]);
        }
    }
    return NULL;
}

static void racing_process(void)
{
    pthread_t thread[THREADS];
    unsigned int n = 0;

    probe_context(probe_device());
    atomic_fetch_add(&tally->ready, 1);
    while (!atomic_load(&tally->go))
        usleep(1000);
    while (n < THREADS && !pthread_create(&thread[n], NULL, racer, (void *)(uintptr_t)(n * 7919u)))
        n++;
    for (unsigned int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    _exit(n == THREADS ? 0 : 1);
}

/* The contexts of all racers stand when the race begins, so what is free then is what may be granted. */
static int race(unsigned int seconds)
{
    pid_t pid[PROCESSES];
    int status, bad = 0;

    tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED)
        return 77;
    fflush(stdout);
    for (int i = 0; i < PROCESSES; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            probe_die_with_parent();
            racing_process();
        }
    }
    probe_context(probe_device());
    while (atomic_load(&tally->ready) < PROCESSES) {
        usleep(1000);
        if (waitpid(-1, &status, WNOHANG) > 0) {
            atomic_store(&tally->stop, 1);
            atomic_store(&tally->go, 1);
            return fail("a racer ended before the race: is the budget smaller than nine contexts?");
        }
    }
    uint64_t room = probe_free();
    atomic_store(&tally->go, 1);
    sleep(seconds);
    atomic_store(&tally->stop, 1);
    for (int i = 0; i < PROCESSES; i++) {
        waitpid(pid[i], &status, 0);
        bad |= status;
    }
    probe_row("race", "room %llu, most granted at once %llu, %llu grants, %llu refusals", (unsigned long long)room,
              (unsigned long long)atomic_load(&tally->most), (unsigned long long)atomic_load(&tally->grants),
              (unsigned long long)atomic_load(&tally->refusals));
    if (bad || atomic_load(&tally->broken))
        return fail("a racer failed");
    if (atomic_load(&tally->most) > room)
        return fail("more was granted than there was room for");
    if (!atomic_load(&tally->refusals))
        return fail("nothing was refused: the race never reached the budget");
    CUdeviceptr p;
    if (cu.cuMemAlloc_v2(&p, room / GRANULE * GRANULE) != CUDA_SUCCESS)
        return fail("what was free before the race cannot be had after it");
    return 0;
}

/* The sum of NVML's figures for the processes of one session. */
static uint64_t session_used(pid_t session, int *known)
{
    struct nvml_process_v2 p[256];
    unsigned int n = 256;
    uint64_t sum = 0;
    nvml_device dev = probe_nvml_device();

    if (!dev || !nv.processes_v3 || nv.processes_v3(dev, &n, p) != 0)
        return 0;
    for (unsigned int i = 0; i < n; i++) {
        if (getsid((pid_t)p[i].pid) != session || p[i].used == PROBE_UNKNOWN)
            continue;
        *known = 1;
        sum += p[i].used;
    }
    return sum;
}

static int watch(size_t mib, char **command)
{
    uint64_t most = 0;
    int status = 0, known = 0;

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        probe_die_with_parent();
        setsid();
        execvp(command[0], command);
        perror(command[0]);
        _exit(127);
    }
    probe_device();
    while (waitpid(pid, &status, WNOHANG) == 0) {
        uint64_t now = session_used(pid, &known);

        most = now > most ? now : most;
        usleep(2000);
    }
    probe_row("watch", "most %llu of %llu, exit %d", (unsigned long long)most, (unsigned long long)(mib * MIB),
              WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (!known) {
        probe_row("watch", "NVML does not say what these processes hold");
        return 77;
    }
    return most <= mib * MIB ? 0 : fail("NVML shows more than the budget");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    size_t first = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
    unsigned int second = argc > 3 ? (unsigned int)strtoul(argv[3], NULL, 0) : 0;

    probe_open("budget");
    if (!strcmp(what, "single"))
        return single();
    if (!strcmp(what, "story"))
        return story();
    if (!strcmp(what, "hold") && argc > 3)
        return hold(first, second);
    if (!strcmp(what, "take") && argc > 3)
        return take(first, second);
    if (!strcmp(what, "race") && argc > 2)
        return race((unsigned int)first);
    if (!strcmp(what, "watch") && argc > 3)
        return watch(first, argv + 3);
    fputs("usage: budget single | story | hold MIB S | take MIB S | race S | watch MIB CMD...\n", stderr);
    return 64;
}
