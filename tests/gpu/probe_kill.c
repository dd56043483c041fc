/* SPDX-License-Identifier: Apache-2.0 */
/* When is the GPU memory of a killed process free, and is its lock gone earlier?
 *
 * The victim holds an open-file-description lock through a mapping alone (its descriptor is closed)
 * and GPU memory. After SIGKILL its parent samples the lock, NVML, cuMemGetInfo and the process's
 * state as fast as it can and reports when each changed, in microseconds after the kill. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct scene {
    const char *name;
    size_t block;
    unsigned int blocks;
    uint64_t spin_ns; /* a kernel that still runs at the kill */
    int by_exit;      /* leave by _exit instead */
};

static char lock_path[64];

static int hold_lock(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    int fd = open(lock_path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) != 0)
        return -1;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED || madvise(page, 4096, MADV_DONTFORK) != 0)
        return -1;
    return close(fd);
}

static int lock_is_held(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void victim(const struct scene *s, int report, int go)
{
    unsigned int got = 0;
    char byte;

    if (hold_lock() != 0)
        probe_row(s->name, "cannot hold the lock: %s", strerror(errno));
    probe_context(probe_device());
    for (; got < s->blocks; got++) {
        CUdeviceptr p;

        if (cu.cuMemAlloc_v2(&p, s->block) != CUDA_SUCCESS)
            break;
    }
    if (s->spin_ns) {
        CUmodule mod = probe_module();
        CUresult res = probe_spin(probe_kernel(mod, "spin"), NULL, s->spin_ns);

        if (res != CUDA_SUCCESS)
            probe_row(s->name, "spin: %s", probe_result(res));
    }
    if (got != s->blocks)
        probe_row(s->name, "only %u of %u blocks", got, s->blocks);
    if (write(report, &got, sizeof(got)) != sizeof(got) || read(go, &byte, 1) < 0)
        _exit(1);
    _exit(0);
}

static long long since(uint64_t now, uint64_t then)
{
    return now ? (long long)(now - then) / 1000 : -1;
}

static void watch(const struct scene *s, unsigned int got, pid_t pid, int go, int fd)
{
    uint64_t held = (uint64_t)s->block * got;
    uint64_t free0 = probe_free(), used0 = probe_device_used();
    uint64_t lock_gone = 0, listed_gone = 0, dead = 0, reaped = 0;
    uint64_t free_first = 0, free_all = 0, nvml_first = 0, nvml_all = 0, samples = 0;
    int known = probe_process_used(pid) != PROBE_UNKNOWN;
    siginfo_t info;
    char name[96];

    snprintf(name, sizeof(name), "%s.before", s->name);
    probe_row(name, "lock %s, process listed %s, free %llu, used %llu", lock_is_held(fd) ? "held" : "not held",
              known ? "yes" : "no", (unsigned long long)free0, (unsigned long long)used0);
    uint64_t t0 = probe_ns();
    if (s->by_exit)
        close(go);
    else
        kill(pid, SIGKILL);
    uint64_t now = t0;
    while (now - t0 < 10000000000u && (!lock_gone || !dead || !free_all || (!nvml_all && used0 != PROBE_UNKNOWN))) {
        if (!lock_gone && !lock_is_held(fd))
            lock_gone = probe_ns();
        memset(&info, 0, sizeof(info));
        if (!dead && waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
            dead = probe_ns();
        uint64_t f = probe_free(), u = probe_device_used();
        now = probe_ns();
        if (!free_first && f != free0)
            free_first = now;
        if (!free_all && f != free0 && f >= free0 + held)
            free_all = now;
        if (!nvml_first && u != used0)
            nvml_first = now;
        if (!nvml_all && u != used0 && u + held <= used0)
            nvml_all = now;
        if (known && !listed_gone && probe_process_used(pid) == PROBE_UNKNOWN)
            listed_gone = probe_ns();
        samples++;
    }
    if (waitpid(pid, NULL, 0) == pid)
        reaped = probe_ns();
    snprintf(name, sizeof(name), "%s.us", s->name);
    probe_row(name,
              "lock_gone %lld zombie %lld reaped %lld meminfo_first %lld meminfo_all %lld "
              "nvml_first %lld nvml_all %lld unlisted %lld samples %llu last %lld",
              since(lock_gone, t0), since(dead, t0), since(reaped, t0), since(free_first, t0), since(free_all, t0),
              since(nvml_first, t0), since(nvml_all, t0), since(listed_gone, t0), (unsigned long long)samples, since(now, t0));
}

int main(void)
{
    static const struct scene scenes[] = {
        {"context_only", 0, 0, 0, 0},
        {"kill_1GiB", GIB, 1, 0, 0},
        {"kill_20GiB", GIB, 20, 0, 0},
        {"kill_20GiB_again", GIB, 20, 0, 0},
        {"kill_20GiB_one_block", 20 * GIB, 1, 0, 0},
        {"kill_4GiB_in_2MiB", 2 * MIB, 2048, 0, 0},
        {"kill_20GiB_busy_1s", GIB, 20, 1000000000u, 0},
        {"exit_20GiB", GIB, 20, 0, 1},
    };
    enum { N = sizeof(scenes) / sizeof(scenes[0]) };
    int up[N][2], down[N][2];
    pid_t pid[N];
    char byte = 0;

    probe_open("kill");
    snprintf(lock_path, sizeof(lock_path), "/dev/shm/probe-kill-%d", (int)getpid());
    int fd = open(lock_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0) {
        probe_row("skipped", "cannot create %s", lock_path);
        return 77;
    }
    /* All victims are forked before the parent's cuInit and wait for their turn. */
    fflush(stdout);
    for (int i = 0; i < N; i++) {
        if (pipe(up[i]) || pipe(down[i]))
            return 1;
        pid[i] = fork();
        if (pid[i] == 0) {
            probe_die_with_parent();
            for (int k = 0; k <= i; k++)
                close(down[k][1]);
            if (read(down[i][0], &byte, 1) == 1)
                victim(&scenes[i], up[i][1], down[i][0]);
            _exit(0);
        }
        close(up[i][1]);
    }
    probe_context(probe_device());
    for (int i = 0; i < N; i++) {
        unsigned int got = 0;

        if (write(down[i][1], &byte, 1) == 1 && read(up[i][0], &got, sizeof(got)) == sizeof(got))
            watch(&scenes[i], got, pid[i], down[i][1], fd);
        else
            probe_row(scenes[i].name, "the victim did not start");
    }
    unlink(lock_path);
    return 0;
}
