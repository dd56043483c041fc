/* SPDX-License-Identifier: Apache-2.0 */
/* A share where processes do not see each other as they are: under MPS, where no turns are taken and the cap of each tenant holds all the same; and in PID and
 * time namespaces of their own, where one's process number and clock are not the other's, and the account is one. */
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate SOFTSIM_MPS=1 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- mps
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate -- namespaces
// unsanitized: half of it is in virtual time, and a sanitizer's runtime may have threads, with which no user namespace can be made
// unemulated: half of it is in virtual time
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "gate_helper.h"

#ifndef CLONE_NEWTIME
#    define CLONE_NEWTIME 0x80
#endif

/* What MPS's control daemon has open. */
static void mps(void)
{
    char path[4096], pipe[4096 + 16];
    struct stat status;

    snprintf(path, sizeof(path), "%s/mps", getenv("TEST_TMP"));
    t_equal(mkdir(path, 0700), 0);
    snprintf(pipe, sizeof(pipe), "%s/control", path);
    t_equal(mknod(pipe, S_IFIFO | 0600, 0), 0);
    setenv("CUDA_MPS_PIPE_DIRECTORY", path, 1);
    t_context(0);
    CUfunction kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();
    uint64_t begun = v_clock(CLOCK_MONOTONIC);
    for (int i = 0; i < 500; i++)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    gate_percent(500 * MS, v_clock(CLOCK_MONOTONIC) - begun, 30, 1.5);
    usleep(100000);
    snprintf(path, sizeof(path), "%s/turns/gate.turns", getenv("SOFTSLICE_STATE_DIR"));
    t_check(stat(path, &status) != 0, "turns are taken under MPS");
    t_equal(gate_account(0).turns_taken, 0);
}

/* The children of this process come into namespaces of their own, if that can be had. The simulated GPU's time stays the host's. */
static bool unshared(void)
{
    static const char offset[] = "monotonic 100000 0\nboottime 100000 0\n";
    int fd;

    if (unshare(CLONE_NEWPID | CLONE_NEWTIME) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWTIME) != 0)
        return false;
    fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, offset, sizeof(offset) - 1) == (ssize_t)sizeof(offset) - 1 && close(fd) == 0;
}

static void in_namespaces(unsigned which)
{
    if (!which)
        return;
    t_check(unshared(), "unshare: %s", strerror(errno));
    pid_t inner = t_fork();
    if (inner) {
        t_join(inner);
        exit(0);
    }
    t_equal(getpid(), 1);
}

/* How often the account had to be set right. */
static uint64_t repaired(void)
{
    static struct ledger ledger;
    int directory = open(getenv("SOFTSLICE_STATE_DIR"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    t_check(ledger_attach(&ledger, directory, "gate") == 0, "%s", ledger.error);
    close(directory);
    return share_read(&ledger_account(&ledger, 0)->repaired);
}

#define LAUNCHES 150

/* Each in turn has work while the other has too. */
static void namespaces(void)
{
    uint32_t *gate = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t *begun = (uint64_t *)(gate + 2), took;
    pid_t child[2];
    int status;

    child[0] = t_fork();
    if (child[0] == 0)
        _exit(!unshared());
    t_equal(waitpid(child[0], &status, 0), child[0]);
    if (status)
        t_skip("no PID and time namespaces can be made here");
    for (unsigned i = 0; i < 2; i++) {
        child[i] = t_fork();
        if (child[i])
            continue;
        in_namespaces(i);
        t_context(0);
        CUfunction kernel = gate_kernel("k__1ms");
        CUstream stream = gate_stream();
        __atomic_fetch_add(gate, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(gate, __ATOMIC_SEQ_CST) < 2)
            usleep(1000);
        if (!i)
            *begun = v_clock(CLOCK_MONOTONIC);
        for (int k = 0; k < LAUNCHES; k++)
            gate_launch(kernel, stream);
        t_cuda(cuStreamSynchronize(stream));
        exit(0);
    }
    for (unsigned i = 0; i < 2; i++)
        t_join(child[i]);
    took = v_clock(CLOCK_MONOTONIC) - *begun;
    printf("%d ms of work took %.1f ms, charged %.1f ms\n", 2 * LAUNCHES, (double)took / 1e6, (double)gate_account(0).busy / 1e6);
    t_check(took > 500 * MS, "more was used than the share");
    t_check(gate_account(0).busy > 250 * MS, "less was charged than used");
    t_check(gate_account(0).throttled > 100 * MS, "nobody waited: %.1f ms", (double)gate_account(0).throttled / 1e6);
    t_check(!repaired(), "a moment was absurd: it was another clock's");
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "mps") == 0)
        mps();
    else
        namespaces();
    return 0;
}
