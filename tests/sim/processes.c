/* SPDX-License-Identifier: Apache-2.0 */
/* Several processes on one simulated GPU: they fill it together, and what a killed one had comes back. */
#include "helper.h"
#include <cuda.h>
#include <dirent.h>

#define CHILDREN 4

static void use_gpu(void)
{
    CUcontext ctx;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
}

static void settle(uint64_t expected, const char *when)
{
    uint64_t until = t_now_ms() + 10000;

    while (t_used(0) != expected) {
        t_check(t_now_ms() < until, "%llu bytes are still used %s, expected %llu", (unsigned long long)t_used(0), when,
                (unsigned long long)expected);
        usleep(1000);
    }
}

/* Says that it has a context, waits until `go` is closed, takes what it gets, says how much, and waits to be killed. */
static void fill(int out, int go)
{
    uint64_t granted = 0;
    CUdeviceptr p;

    use_gpu();
    if (write(out, &granted, sizeof(granted)) != sizeof(granted) || read(go, &granted, 1) != 0)
        _exit(1);
    while (cuMemAlloc(&p, 2 * T_MIB) == CUDA_SUCCESS)
        granted += 2 * T_MIB;
    if (write(out, &granted, sizeof(granted)) != sizeof(granted))
        _exit(1);
    for (;;)
        pause();
}

static void check_fullness(void)
{
    pid_t child[CHILDREN];
    uint64_t sum = 0, granted;
    int pipes[2], go[2];

    t_check(pipe(pipes) == 0 && pipe(go) == 0, "pipe: %s", strerror(errno));
    for (int i = 0; i < CHILDREN; i++) {
        child[i] = t_fork();
        if (child[i] == 0) {
            close(go[1]);
            fill(pipes[1], go[0]);
        }
    }
    close(pipes[1]);
    for (int i = 0; i < CHILDREN; i++)
        t_check(read(pipes[0], &granted, sizeof(granted)) == sizeof(granted), "a child said nothing");
    close(go[1]);
    for (int i = 0; i < CHILDREN; i++) {
        t_check(read(pipes[0], &granted, sizeof(granted)) == sizeof(granted), "a child said nothing");
        sum += granted;
    }
    t_equal(sum, T_GIB - CHILDREN * 100 * T_MIB);
    t_equal(t_used(0), T_GIB);
    for (int i = 0; i < CHILDREN; i++) {
        kill(child[i], SIGKILL);
        waitpid(child[i], NULL, 0);
    }
    settle(0, "after all were killed");
}

/* Files beside the machine's own: those of exported memory. */
static unsigned files(void)
{
    char folder[4096];
    DIR *dir;
    unsigned count = 0;
    char *slash;

    snprintf(folder, sizeof(folder), "%s", getenv("SOFTSIM_STATE"));
    slash = strrchr(folder, '/');
    *slash = '\0';
    dir = opendir(folder);
    t_check(dir, "%s: %s", folder, strerror(errno));
    for (struct dirent *e; (e = readdir(dir));)
        count += strncmp(e->d_name, slash + 1, strlen(slash + 1)) == 0 && strcmp(e->d_name, slash + 1) != 0;
    closedir(dir);
    return count;
}

static void export_memory(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle h;
    int fd;

    t_cuda(cuMemCreate(&h, 2 * T_MIB, &prop, 0));
    t_cuda(cuMemExportToShareableHandle(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    close(fd);
    t_cuda(cuMemRelease(h));
}

/* A process killed at a random moment of allocating, exporting and freeing leaves nothing and stops nobody. */
static void check_kills(void)
{
    unsigned seed = 1;

    for (int round = 0; round < 200; round++) {
        pid_t child = t_fork();
        CUdeviceptr p;

        if (child == 0) {
            use_gpu();
            for (;;) {
                t_cuda(cuMemAlloc(&p, 4 * T_MIB));
                export_memory();
                t_cuda(cuMemFree(p));
            }
        }
        usleep((useconds_t)(rand_r(&seed) % 3000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    settle(0, "after 200 kills");
    t_equal(files(), 0);
}

struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

static int list(unsigned *count, struct process *out)
{
    return ((int (*)(void *, unsigned *, struct process *))t_real_nvml("nvmlDeviceGetComputeRunningProcesses_v3"))(t_nvml_device(0),
                                                                                                                   count, out);
}

/* NVML says who has how much, and how much room it needs to say so. */
static void check_list(void)
{
    struct process found[4];
    unsigned count = 0;
    CUdeviceptr p;
    pid_t child;

    use_gpu();
    t_cuda(cuMemAlloc(&p, 8 * T_MIB));
    child = t_again("hold");
    for (uint64_t until = t_now_ms() + 10000; count < 2;) {
        count = 0;
        t_result(list(&count, NULL), 7);
        t_check(t_now_ms() < until, "the second process never appeared");
    }
    count = 1;
    t_result(list(&count, found), 7);
    t_equal(count, 2);
    count = 4;
    t_result(list(&count, found), 0);
    t_equal(count, 2);
    for (unsigned i = 0; i < count; i++) {
        t_check(found[i].pid == (unsigned)getpid() || found[i].pid == (unsigned)child, "pid %u is nobody's", found[i].pid);
        t_equal(found[i].used, found[i].pid == (unsigned)child ? 100 * T_MIB : 108 * T_MIB);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    settle(108 * T_MIB, "beside this process");
}

/* SOFTSIM_RELEASE_DELAY_MS keeps a killed process' memory for a while; one that exits gives it back at once. */
static void check_delay(void)
{
    struct process found[4];
    unsigned count;
    pid_t child = t_fork();
    uint64_t seen;
    int pipes[2], go[2];

    if (child == 0) {
        use_gpu();
        exit(0);
    }
    t_join(child);
    t_equal(t_used(0), 0);
    t_check(pipe(pipes) == 0 && pipe(go) == 0, "pipe: %s", strerror(errno));
    close(go[1]);
    child = t_fork();
    if (child == 0)
        fill(pipes[1], go[0]);
    close(pipes[1]);
    t_check(read(pipes[0], &seen, sizeof(seen)) == sizeof(seen), "the child said nothing");
    t_check(read(pipes[0], &seen, sizeof(seen)) == sizeof(seen), "the child said nothing");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    seen = t_now_ms();
    t_equal(t_used(0), T_GIB);
    /* Until then it is listed with all that it had, as a real one is while the driver tears it down. */
    count = 4;
    t_result(list(&count, found), 0);
    t_equal(count, 1);
    t_equal(found[0].pid, child);
    t_equal(found[0].used, T_GIB);
    settle(0, "after the delay");
    t_check(t_now_ms() - seen >= 290, "released after %llu ms", (unsigned long long)(t_now_ms() - seen));
    count = 4;
    t_result(list(&count, found), 0);
    t_equal(count, 0);
}

/* Drawn between two bounds for each death: never below the one, and not always that one. */
static void check_random_delay(void)
{
    uint64_t least = UINT64_MAX, most = 0;

    for (int i = 0; i < 10; i++) {
        pid_t child = t_again("hold");
        uint64_t killed;

        while (t_used(0) != 100 * T_MIB)
            usleep(200);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        killed = t_now_ms();
        settle(0, "after a random delay");
        killed = t_now_ms() - killed;
        least = killed < least ? killed : least;
        most = killed > most ? killed : most;
    }
    t_check(least >= 19, "released after %llu ms", (unsigned long long)least);
    t_check(most >= 50, "none after more than %llu ms", (unsigned long long)most);
}

static void in_child(void (*check)(void), const char *variable, const char *value)
{
    pid_t child = t_fork();

    if (child == 0) {
        if (variable)
            setenv(variable, value, 1);
        check();
        fflush(stdout);
        _exit(0);
    }
    t_join(child);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "hold") == 0) {
        use_gpu();
        for (;;)
            pause();
    }
    setenv("SOFTSIM_MEM", "1G", 1);
    setenv("SOFTSIM_CONTEXT_BYTES", "100M", 1);
    in_child(check_fullness, NULL, NULL);
    in_child(check_kills, NULL, NULL);
    in_child(check_list, NULL, NULL);
    in_child(check_delay, "SOFTSIM_RELEASE_DELAY_MS", "300");
    in_child(check_random_delay, "SOFTSIM_RELEASE_DELAY_MS", "RANDOM:20:100");
    return 0;
}
