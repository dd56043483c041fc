/* SPDX-License-Identifier: Apache-2.0 */
/* While processes and threads of a tenant take and free memory, whatever is told stays within what they move; when all rest, cuMemGetInfo,
 * cuDeviceTotalMem, NVML's memory calls and its lists of processes say the same to the byte, in each of them. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=story-race SOFTSIM_CONTEXT_BYTES=300M
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "../cuda_helper.h"

enum { PROCESSES = 3, THREADS = 2, ROUNDS = 8, ROOM = 16, BLOCK = 32 };

/* Between this process and those that it starts. */
struct shared {
    int phase; /* even: rest; odd: move; -1: end */
    int resting, looked;
};
static struct shared *shared;
static CUcontext context;
static uint64_t limit;

struct figures {
    uint64_t total, free_bytes, device_total, nvml_total, nvml_used, v2_total, v2_used, v2_free, list, details;
};

static uint64_t sum(const void *entries, size_t size, unsigned count)
{
    uint64_t all = 0;

    for (unsigned i = 0; i < count; i++)
        all += *(const unsigned long long *)((const char *)entries + i * size + 8); /* usedGpuMemory */
    return all;
}

static struct figures figures(void)
{
    struct {
        unsigned version;
        unsigned long long total, reserved, free, used;
    } v2 = {.version = 0x02000028};
    struct {
        unsigned version, mode, count;
        void *list;
    } details;
    unsigned char room[ROOM * 32];
    unsigned long long v1[3];
    unsigned count = ROOM;
    struct figures f;
    size_t device_total;
    CUdevice device;
    void *nvml = t_library("libnvidia-ml.so.1"), *handle = t_nvml_device(0);

    f.total = t_total();
    f.free_bytes = t_free();
    t_cuda(cuCtxGetDevice(&device));
    t_cuda(cuDeviceTotalMem(&device_total, device));
    f.device_total = device_total;
    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(handle, v1), 0);
    f.nvml_total = v1[0];
    f.nvml_used = v1[2];
    t_equal(v1[1] + v1[2], v1[0]);
    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo_v2"))(handle, &v2), 0);
    f.v2_total = v2.total;
    f.v2_used = v2.used;
    f.v2_free = v2.free;
    t_result(((int (*)(void *, unsigned *, void *))dlsym(nvml, "nvmlDeviceGetComputeRunningProcesses_v3"))(handle, &count, room),
             0);
    f.list = sum(room, 24, count);
    details.version = 0x01000018;
    details.mode = 0;
    details.count = ROOM;
    details.list = room;
    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetRunningProcessDetailList"))(handle, &details), 0);
    f.details = sum(room, 32, details.count);
    return f;
}

static void look_at_rest(void)
{
    struct figures f = figures();

    t_equal(f.total, limit);
    t_equal(f.device_total, limit);
    t_equal(f.nvml_total, limit);
    t_equal(f.v2_total, limit);
    t_equal(f.nvml_used, f.total - f.free_bytes);
    t_equal(f.v2_used, f.nvml_used);
    t_equal(f.v2_free, f.free_bytes);
    t_equal(f.list, f.nvml_used);
    t_equal(f.details, f.list);
    t_equal(f.list, t_used(0)); /* what the simulated GPU has in use */
}

/* A block may be counted twice while its charge is settled: tentative and committed. */
static void look_while_moving(uint64_t least)
{
    uint64_t most = least + UINT64_C(2) * PROCESSES * THREADS * BLOCK * T_MIB;
    struct figures f = figures();
    uint64_t used[] = {f.total - f.free_bytes, f.nvml_used, f.v2_used, f.list, f.details};

    t_check(f.total == limit && f.device_total == limit && f.nvml_total == limit && f.v2_total == limit, "the limit moves");
    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
        t_check(used[i] >= least && used[i] <= most, "figure %zu is %llu, not of %llu to %llu", i, (unsigned long long)used[i],
                (unsigned long long)least, (unsigned long long)most);
}

static int phase(void)
{
    return __atomic_load_n(&shared->phase, __ATOMIC_SEQ_CST);
}

static void *mover(void *first)
{
    int at = 0;

    t_cuda(cuCtxSetCurrent(context));
    while (phase() >= 0) {
        if (phase() == at) {
            usleep(200);
            continue;
        }
        at = phase();
        while (at > 0 && at % 2 && phase() == at) {
            CUdeviceptr block = t_alloc(BLOCK * T_MIB);
            t_check(block, "an allocation was refused");
            t_cuda(cuMemFree(block));
        }
        if (at > 0 && at % 2 == 0)
            __atomic_fetch_add(&shared->resting, 1, __ATOMIC_SEQ_CST);
        if (first && at > 0 && at % 2 == 0) {
            while (__atomic_load_n(&shared->resting, __ATOMIC_SEQ_CST) < PROCESSES * THREADS)
                usleep(200);
            look_at_rest();
            __atomic_fetch_add(&shared->looked, 1, __ATOMIC_SEQ_CST);
        }
    }
    return NULL;
}

static void map(void)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/shared", getenv("TEST_TMP"));
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    t_check(fd >= 0 && ftruncate(fd, sizeof(*shared)) == 0, "%s: %s", path, strerror(errno));
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    t_check(shared != MAP_FAILED, "mmap: %s", strerror(errno));
    close(fd);
}

int main(int argc, char **argv)
{
    pid_t child[PROCESSES];
    pthread_t thread[THREADS];

    (void)argv;
    limit = t_bytes("SOFTSLICE_VRAM", 0);
    map();
    context = t_context(0);
    if (argc > 1) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        figures(); /* bind what the threads call */
        t_cuda(cuMemFree(t_alloc(BLOCK * T_MIB)));
        __atomic_fetch_add(&shared->resting, 1, __ATOMIC_SEQ_CST);
        for (int i = 0; i < THREADS; i++)
            t_check(pthread_create(&thread[i], NULL, mover, i ? NULL : &shared) == 0, "pthread_create");
        for (int i = 0; i < THREADS; i++)
            pthread_join(thread[i], NULL);
        return 0;
    }
    for (int i = 0; i < PROCESSES; i++)
        child[i] = t_again("mover");
    while (__atomic_load_n(&shared->resting, __ATOMIC_SEQ_CST) < PROCESSES)
        usleep(1000);
    uint64_t least = t_used(0);
    for (int round = 0; round < ROUNDS; round++) {
        __atomic_store_n(&shared->phase, 2 * round + 1, __ATOMIC_SEQ_CST);
        for (int i = 0; i < 50; i++)
            look_while_moving(least);
        __atomic_store_n(&shared->resting, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&shared->looked, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&shared->phase, 2 * round + 2, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&shared->looked, __ATOMIC_SEQ_CST) < PROCESSES) {
            usleep(200);
            for (int i = 0; i < PROCESSES; i++)
                t_check(waitpid(child[i], NULL, WNOHANG) == 0, "a child has ended");
        }
        look_at_rest();
        t_equal(t_used(0), least);
    }
    __atomic_store_n(&shared->phase, -1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < PROCESSES; i++)
        t_join(child[i]);
    return 0;
}
