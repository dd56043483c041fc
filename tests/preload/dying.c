/* SPDX-License-Identifier: Apache-2.0 */
/* Death is not free memory. A killed member's bytes are not granted again before the driver has released them, and then without an error: to a
 * survivor, to the first process of a new life, after many deaths, after several at once, and after the death of one who waited. A process of
 * its own looks at the GPU all the time: never is more in use than the budget. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// timeout: 120
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=dying SOFTSIM_CONTEXT_BYTES=64M KILLS=50
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=dying SOFTSIM_CONTEXT_BYTES=64M SOFTSIM_RELEASE_DELAY_MS=300 KILLS=5
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=dying SOFTSIM_CONTEXT_BYTES=64M SOFTSIM_RELEASE_DELAY_MS=1000 KILLS=2
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=dying SOFTSIM_CONTEXT_BYTES=64M SOFTSIM_RELEASE_DELAY_MS=RANDOM:0:200 KILLS=10
#include <sys/mman.h>
#include <sys/prctl.h>

#include "../cuda_helper.h"

#define CONTEXT (64 * T_MIB)

static struct seen {
    uint64_t most, samples;
    int stop;
} * seen;

/* Look at the GPU until told to stop. */
static pid_t watch(void)
{
    pid_t child = t_fork();

    if (child)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (!__atomic_load_n(&seen->stop, __ATOMIC_SEQ_CST)) {
        uint64_t used = t_used(0);

        if (used > seen->most)
            seen->most = used;
        __atomic_fetch_add(&seen->samples, 1, __ATOMIC_SEQ_CST);
        usleep(200);
    }
    _exit(0);
}

/* ---- a member, in a process of its own */

struct member {
    pid_t pid;
    int told, tell;
};

/* Start one that has a context, takes `bytes` at once (alone or in a crowd) or in small blocks, says so and stays. A survivor has only the
 * context, and takes and gives back `bytes` whenever it is told to: in small blocks, or at once. */
static struct member start(const char *how, uint64_t bytes)
{
    struct member member;
    int told[2], tell[2];

    t_check(pipe(told) == 0 && pipe(tell) == 0, "pipe");
    member.pid = t_fork();
    if (member.pid == 0) {
        char fd[16], size[32];

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(told[0]);
        close(tell[1]);
        dup2(tell[0], 0);
        snprintf(fd, sizeof(fd), "%d", told[1]);
        snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
        execl("/proc/self/exe", "dying", how, size, fd, (char *)NULL);
        _exit(127);
    }
    close(told[1]);
    close(tell[0]);
    member.told = told[0];
    member.tell = tell[1];
    return member;
}

static void await(struct member *member, const char *what)
{
    char byte;

    t_check(read(member->told, &byte, 1) == 1, "%s", what);
}

static void end(struct member *member)
{
    kill(member->pid, SIGKILL);
    close(member->told);
    close(member->tell);
    while (waitpid(member->pid, NULL, 0) < 0)
        t_check(errno == EINTR, "waitpid");
}

static void take(uint64_t bytes, uint64_t block)
{
    static CUdeviceptr p[4096];
    unsigned count = 0;

    for (uint64_t at = 0; at < bytes; at += block)
        t_check((p[count++] = t_alloc(block)), "%llu bytes were refused after %llu", (unsigned long long)block,
                (unsigned long long)at);
    while (count)
        t_cuda(cuMemFree(p[--count]));
}

static int survivor_main(uint64_t bytes, int told)
{
    char byte;

    do
        t_check(write(told, "x", 1) == 1, "write");
    while (read(0, &byte, 1) == 1 && (take(bytes, byte == 's' ? T_MIB : bytes), true));
    return 0;
}

static int member_main(char **argv)
{
    uint64_t bytes = strtoull(argv[2], NULL, 10), limit = t_bytes("SOFTSLICE_VRAM", 0);

    t_context(0);
    if (strcmp(argv[1], "survivor") == 0)
        return survivor_main(bytes, atoi(argv[3]));
    if (strcmp(argv[1], "small") == 0) {
        for (uint64_t i = 0; i < bytes / T_MIB; i++)
            t_check(t_alloc(T_MIB), "1 MiB was refused after %llu", (unsigned long long)i);
    } else {
        /* What is told to be free is not what somebody's memory is still in; this is so for who is the only one to come. */
        size_t told = t_free();
        uint64_t used = t_used(0);
        t_check(strcmp(argv[1], "crowd") == 0 || told + used <= limit, "%zu are told to be free with %llu in use", told,
                (unsigned long long)used);
        t_check(t_alloc(bytes), "%llu bytes were refused, %zu are told to be free", (unsigned long long)bytes, t_free());
    }
    t_check(write(atoi(argv[3]), "x", 1) == 1, "write");
    for (;;)
        pause();
}

/* ---- what happens */

static void survivor(unsigned kills)
{
    /* Three of them: two contexts and one that dies fill the budget with it. */
    uint64_t most = t_bytes("SOFTSLICE_VRAM", 0) - 2 * CONTEXT - 20 * T_MIB;
    struct member idle = start("hold", 10 * T_MIB), first;

    await(&idle, "an idle member did not come up"); /* before the other one comes: each compares what is free with what is in use */
    first = start("hold", most);
    await(&first, "a first member did not get what it wanted");
    for (unsigned i = 0; i < kills; i++) {
        end(&first);
        first = start(i % 2 ? "small" : "hold", most);
        await(&first, "refused after a member was killed");
    }
    end(&first);
    end(&idle);
}

/* One that lives asks at once. */
static void living_survivor(unsigned kills)
{
    uint64_t most = (t_bytes("SOFTSLICE_VRAM", 0) - 2 * CONTEXT) & ~(2 * T_MIB - 1);
    struct member asks = start("survivor", most);

    await(&asks, "a survivor did not come up");
    for (unsigned i = 0; i < kills; i++) {
        struct member victim = start("hold", most);

        await(&victim, "a victim did not get what it wanted");
        end(&victim);
        t_check(write(asks.tell, i % 2 ? "b" : "s", 1) == 1, "write");
        await(&asks, "a survivor was refused");
    }
    end(&asks);
}

static void new_life(unsigned kills)
{
    for (unsigned i = 0; i < kills; i++) {
        struct member all = start("hold", t_bytes("SOFTSLICE_VRAM", 0) - CONTEXT - 2 * T_MIB);

        await(&all, "refused in a new life");
        end(&all);
    }
}

static void several(unsigned kills)
{
    uint64_t fifth = (t_bytes("SOFTSLICE_VRAM", 0) / 5 - CONTEXT) & ~(2 * T_MIB - 1);
    struct member part[5];

    for (int i = 0; i < 5; i++) {
        part[i] = start("crowd", fifth);
        await(&part[i], "a fifth was refused");
    }
    for (unsigned n = 0; n < kills; n++) {
        for (int i = 1; i < 5; i++)
            kill(part[i].pid, SIGKILL);
        for (int i = 1; i < 5; i++) {
            end(&part[i]);
            part[i] = start("crowd", fifth);
        }
        for (int i = 1; i < 5; i++)
            await(&part[i], "a fifth was refused after several were killed");
    }
    for (int i = 0; i < 5; i++)
        end(&part[i]);
}

static void killed_while_waiting(unsigned kills)
{
    uint64_t most = t_bytes("SOFTSLICE_VRAM", 0) - CONTEXT - 2 * T_MIB;

    for (unsigned i = 0; i < kills; i++) {
        struct member victim = start("hold", most), waits, last;

        await(&victim, "refused after one who waited was killed");
        end(&victim);
        waits = start("hold", most);
        usleep(1000 * (10 + i * 13 % 90));
        end(&waits);
        last = start("hold", most);
        await(&last, "refused after one who waited was killed");
        end(&last);
    }
}

int main(int argc, char **argv)
{
    unsigned kills = (unsigned)t_bytes("KILLS", 3);

    if (argc > 1)
        return member_main(argv);
    seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    t_check(seen != MAP_FAILED, "mmap");
    pid_t watcher = watch();
    survivor(kills);
    living_survivor(kills);
    new_life(kills);
    several(kills < 5 ? kills : 5);
    killed_while_waiting(kills < 10 ? kills : 10);
    __atomic_store_n(&seen->stop, 1, __ATOMIC_SEQ_CST);
    t_join(watcher);
    printf("%llu of %llu bytes in use at most, looked at %llu times\n", (unsigned long long)seen->most,
           (unsigned long long)t_bytes("SOFTSLICE_VRAM", 0), (unsigned long long)seen->samples);
    t_check(seen->most <= t_bytes("SOFTSLICE_VRAM", 0), "more than the budget was in use: %llu", (unsigned long long)seen->most);
    return 0;
}
