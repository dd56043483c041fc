/* SPDX-License-Identifier: Apache-2.0 */
/* NVML names processes by numbers of another PID namespace, or lists them as clients of MPS: a process finds itself all the same where it can be
 * told from others, never takes another's figure for its own, and where it cannot tell goes by what is expected. */
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_NVML_PIDS=host -- alone
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_MPS=1 -- alone
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_MPS=1 SOFTSIM_NVML_PIDS=host -- alone
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_NVML_PIDS=host SOFTSIM_GPUS=2 -- devices
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- mistaken
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_NVML_PIDS=host -- crowd
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- twins
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_NVML_PIDS=host -- twins
#include <sched.h>
#include <sys/mman.h>

#include "../cuda_helper.h"

#define CROWD  6
#define ROUNDS (getenv("TEST_EMULATED") ? 1u : 10u) /* no robust mutexes there: the simulated GPU sees no process die */

static uint64_t told(void)
{
    return t_total() - t_free();
}

static void alone(void)
{
    for (int round = 0; round < 2; round++) {
        CUcontext context = t_context(0);

        t_equal(told(), 300 * T_MIB);
        t_check(t_alloc(100 * T_MIB), "refused");
        t_equal(told(), 400 * T_MIB);
        t_equal(t_used(0), 400 * T_MIB);
        t_cuda(cuCtxDestroy(context));
    }
}

/* The number that was learned on one device is ours on the other. */
static void devices(void)
{
    t_context(1);
    t_equal(told(), 300 * T_MIB);
    t_context(0);
    t_equal(told(), 300 * T_MIB);
}

/* NVML knows an elder process by the number that a younger one knows itself by. */
static void mistaken(void)
{
    int ready[2], go[2];
    char byte;

    t_check(pipe(ready) == 0 && pipe(go) == 0, "pipe");
    pid_t elder = t_fork();
    if (elder == 0) {
        close(go[1]);
        t_context(0);
        t_check(t_alloc(2 * T_GIB), "refused");
        t_check(write(ready[1], "", 1) == 1, "write");
        t_check(read(go[0], &byte, 1) == 0, "read");
        exit(0);
    }
    t_check(read(ready[0], &byte, 1) == 1, "read");
    pid_t younger = t_fork();
    if (younger == 0) {
        char pids[32];

        close(go[1]);
        snprintf(pids, sizeof(pids), "host:%d", (int)(getpid() - elder));
        setenv("SOFTSIM_NVML_PIDS", pids, 1);
        t_context(0);
        t_equal(told(), 300 * T_MIB);
        t_check(t_alloc(500 * T_MIB), "refused");
        t_equal(told(), 800 * T_MIB);
        exit(0);
    }
    t_join(younger);
    close(go[1]);
    t_join(elder);
}

static void together(uint32_t *gate, uint32_t all)
{
    __atomic_fetch_add(gate, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(gate, __ATOMIC_SEQ_CST) < all)
        ;
}

/* Several at once cannot be told apart: none takes another's figure for its own, which shows when that is read again and they hold different
 * amounts. */
static void crowd(void)
{
    uint32_t *gate = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child[CROWD];

    for (unsigned round = 1; round <= ROUNDS; round++) {
        for (unsigned i = 0; i < CROWD; i++) {
            if ((child[i] = t_fork()) == 0) {
                size_t heap;

                t_cuda(cuInit(0));
                together(&gate[0], round * CROWD);
                t_context(0);
                uint64_t context = told();
                t_check(context == 300 * T_MIB || context == 512 * T_MIB, "%llu bytes for a context", (unsigned long long)context);
                t_check(t_alloc((i + 1) * 100 * T_MIB), "refused");
                t_equal(told(), context + (i + 1) * 100 * T_MIB);
                together(&gate[1], round * CROWD);
                t_cuda(cuCtxGetLimit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
                t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap)); /* the driver's figure is read around it */
                t_equal(told(), context + (i + 1) * 100 * T_MIB);
                together(&gate[2], round * CROWD);
                exit(0);
            }
        }
        for (unsigned i = 0; i < CROWD; i++)
            t_join(child[i]);
    }
}

/* The first process of a PID namespace of its own; its parent, which keeps no descriptor, passes its end on. */
static pid_t first_fork(int given, int other)
{
    pid_t outer = t_fork(), inner;

    if (outer)
        return outer;
    if (unshare(CLONE_NEWPID) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0)
        t_skip("no PID namespace can be made here: %s", strerror(errno));
    inner = t_fork();
    if (inner == 0) {
        t_equal(getpid(), 1);
        return 0;
    }
    close(given);
    close(other);
    t_join(inner);
    exit(0);
}

/* Two containers on one GPU: both processes are number 1 in their PID namespaces. Each has its own context charged, and neither the other's. */
static void twins(void)
{
    int ready[2], go[2];
    char byte;

    t_check(pipe(ready) == 0 && pipe(go) == 0, "pipe");
    pid_t elder = first_fork(go[1], ready[1]);
    if (elder == 0) {
        close(go[1]);
        t_context(0);
        t_equal(told(), 300 * T_MIB);
        t_check(t_alloc(2 * T_GIB), "refused");
        t_check(write(ready[1], "", 1) == 1, "write");
        t_check(read(go[0], &byte, 1) == 0, "read");
        t_equal(told(), 300 * T_MIB + 2 * T_GIB);
        exit(0);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) == 1) {
        pid_t younger = first_fork(go[1], ready[1]);
        if (younger == 0) {
            size_t heap;

            close(go[1]);
            t_context(0);
            t_equal(told(), 300 * T_MIB);
            t_check(t_alloc(500 * T_MIB), "refused");
            t_cuda(cuCtxGetLimit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
            t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap)); /* the driver's figure is read around it */
            t_equal(told(), 800 * T_MIB);
            exit(0);
        }
        t_join(younger);
    }
    close(go[1]);
    t_join(elder);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"alone", alone}, {"devices", devices}, {"mistaken", mistaken}, {"crowd", crowd}, {"twins", twins}};

    for (size_t i = 0; argc > 1 && i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strcmp(argv[1], tests[i].name) == 0) {
            tests[i].run();
            return 0;
        }
    }
    t_fail("which one?");
}
