/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's lists of processes show the tenant's members and nobody else, each with its bytes of the budget: the sum is what the memory calls
 * say is used. In each version, for a member, for a process that uses NVML alone, and by the library's own rules for bad arguments. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=2GiB SOFTSLICE_TENANT=lists SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=2GiB SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=2GiB SOFTSLICE_TENANT=lists SOFTSIM_MPS=1
// run: SOFTSLICE_VRAM=2GiB SOFTSLICE_TENANT=lists SOFTSIM_NVML_PIDS=host
// run: SOFTSLICE_VRAM=2GiB SOFTSLICE_TENANT=lists SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_GPUS=2
// run: SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=2GiB SOFTSLICE_TENANT=lists SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_RELEASE_DELAY_MS=700 -- killed
#include <fcntl.h>
#include <sys/prctl.h>

#include "../cuda_helper.h"

enum { SUCCESS, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7 };
enum { COMPUTE, GRAPHICS, MPS, MODES };
enum { DETAIL_V1 = 0x01000018, ROOM = 16 };

struct info_v1 {
    unsigned pid;
    unsigned long long used;
};
struct info_v2 {
    unsigned pid;
    unsigned long long used;
    unsigned gpu, compute;
};
struct detail {
    unsigned pid;
    unsigned long long used;
    unsigned gpu, compute;
    unsigned long long protected_bytes;
};
struct detail_list {
    unsigned version, mode, count;
    struct detail *list;
};
typedef int list_function(void *, unsigned *, void *);
typedef int detail_function(void *, struct detail_list *);

static bool limited, named, mps;
static void *nvml;

static const char *name_of(int mode, const char *version)
{
    static const char *const kinds[] = {"Compute", "Graphics", "MPSCompute"};
    static char name[80];

    snprintf(name, sizeof(name), "nvmlDeviceGet%sRunningProcesses%s", kinds[mode], version);
    return name;
}

static unsigned long long used(void *device)
{
    unsigned long long memory[3];

    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(device, memory), SUCCESS);
    return memory[2];
}

/* The sum of a list; all versions of it say the same. -1 in `held` is not looked for. */
static unsigned long long sum_of(void *device, int mode, unsigned pid, unsigned long long held, unsigned *count)
{
    struct info_v2 v3[ROOM] = {0}, v2[ROOM] = {0};
    struct info_v1 v1[ROOM] = {0};
    struct detail details[ROOM] = {0};
    struct detail_list list = {DETAIL_V1, (unsigned)mode, ROOM, details};
    unsigned n1 = ROOM, n2 = ROOM;
    unsigned long long sum = 0;
    bool seen = false;

    *count = ROOM;
    t_result(((list_function *)dlsym(nvml, name_of(mode, "_v3")))(device, count, v3), SUCCESS);
    t_result(((list_function *)dlsym(nvml, name_of(mode, "_v2")))(device, &n2, v2), SUCCESS);
    t_result(((list_function *)dlsym(nvml, name_of(mode, "")))(device, &n1, v1), SUCCESS);
    t_result(((detail_function *)dlsym(nvml, "nvmlDeviceGetRunningProcessDetailList"))(device, &list), SUCCESS);
    t_equal(n1, *count);
    t_equal(n2, *count);
    t_equal(list.count, *count);
    for (unsigned i = 0; i < *count; i++) {
        t_check(v1[i].pid == v3[i].pid && v2[i].pid == v3[i].pid && details[i].pid == v3[i].pid,
                "the versions list other processes");
        t_check(v1[i].used == v3[i].used && v2[i].used == v3[i].used && details[i].used == v3[i].used,
                "the versions tell other bytes");
        t_check(v3[i].gpu == ~0u && v3[i].compute == ~0u && details[i].gpu == ~0u, "instance ids without instances");
        sum += v3[i].used;
        if (v3[i].pid == pid) {
            t_check(!seen, "process %u is listed twice", pid);
            seen = true;
            t_equal(v3[i].used, held);
        }
    }
    t_check(v3[*count].pid == 0 && v1[*count].pid == 0, "more was written than told");
    t_check(seen == (held != 0), "process %u, which holds %llu, is %slisted", pid, held, seen ? "" : "not ");
    return sum;
}

/* The protocol: how many, too little room, and the words of NVML itself on what it refuses. */
static void rules(void *device, int mode, unsigned listed)
{
    static const char *const versions[] = {"", "_v2", "_v3"};
    struct detail details[ROOM];
    detail_function *ask = (detail_function *)dlsym(nvml, "nvmlDeviceGetRunningProcessDetailList"),
                    *theirs = (detail_function *)t_real_nvml("nvmlDeviceGetRunningProcessDetailList");

    for (int v = 0; v < 3; v++) {
        list_function *ours = (list_function *)dlsym(nvml, name_of(mode, versions[v]));
        list_function *their = (list_function *)t_real_nvml(name_of(mode, versions[v]));
        unsigned char room[ROOM * 64];
        unsigned count = 0, other = 3;

        t_result(ours(device, &count, NULL), listed ? INSUFFICIENT_SIZE : SUCCESS);
        t_equal(count, listed);
        memset(room, 0xa5, sizeof(room));
        for (unsigned given = 0; given < listed; given++) {
            count = given;
            t_result(ours(device, &count, room), INSUFFICIENT_SIZE);
            t_equal(count, listed);
        }
        for (size_t i = listed * 24; i < sizeof(room); i++)
            t_check(room[i] == 0xa5, "more than the room was written");
        count = 3;
        t_result(ours(device, &count, NULL), their(device, &other, NULL));
        t_result(ours(device, NULL, room), their(device, NULL, room));
        t_result(ours((void *)0x1234, &count, room), their((void *)0x1234, &other, room));
        t_result(ours(NULL, &count, room), their(NULL, &other, room));
    }
    for (int i = 0; i < 4; i++) {
        struct detail_list list = {i == 0 ? 77 : DETAIL_V1, i == 1 ? 99u : (unsigned)mode, i == 2 ? 0 : ROOM,
                                   i == 2 ? NULL : details};
        struct detail_list same = list;
        void *which = i == 3 ? (void *)0x1234 : device;

        if (i == 2) {
            t_result(ask(which, &list), listed ? INSUFFICIENT_SIZE : SUCCESS);
            t_equal(list.count, listed);
        } else {
            t_result(ask(which, &list), theirs(which, &same));
        }
    }
    t_result(ask(device, NULL), theirs(device, NULL));
}

/* What this process sees of itself, which holds `held`, and of `members` in all. */
static void look(unsigned gpu, unsigned long long held, unsigned members)
{
    void *device = t_nvml_device(gpu);
    int where = mps ? MPS : COMPUTE;

    for (int mode = 0; mode < MODES; mode++) {
        unsigned count;
        unsigned long long sum = sum_of(device, mode, (unsigned)getpid(), mode == where ? held : 0, &count);

        t_equal(count, mode == where ? members : 0);
        if (mode == where)
            t_equal(sum, used(device));
        rules(device, mode, count);
    }
}

/* A member with `blocks` of 32 MiB that tells when it has them, and ends when its parent says so. */
static pid_t member(const char *argument, int ready[2], int go[2])
{
    char byte;

    t_check(pipe2(ready, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0, "pipe");
    pid_t child = t_fork();
    if (child == 0) {
        dup2(ready[1], 100);
        dup2(go[0], 101);
        close(go[1]);
        execl("/proc/self/exe", "again", argument, (char *)NULL);
        t_fail("exec: %s", strerror(errno));
    }
    close(ready[1]);
    close(go[0]);
    t_equal(read(ready[0], &byte, 1), 1);
    return child;
}

static void be_member(unsigned blocks)
{
    uint64_t context = t_bytes("SOFTSIM_CONTEXT_BYTES", 512 * T_MIB);
    char byte = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    t_context(0);
    for (unsigned i = 0; i < blocks; i++)
        t_check(t_alloc(32 * T_MIB), "an allocation was refused");
    t_equal(write(100, &byte, 1), 1);
    t_equal(read(101, &byte, 1), 0); /* until the parent closes it */
    if (limited && !named)
        look(0, context + blocks * 32 * T_MIB, 1);
}

/* A killed member stands in the list for as long as its memory counts. */
static void look_at_death(void)
{
    uint64_t context = t_bytes("SOFTSIM_CONTEXT_BYTES", 512 * T_MIB);
    void *device = t_nvml_device(0);
    int ready[2], go[2], with = 0;

    t_context(0);
    pid_t child = member("2", ready, go);
    t_check(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child, "the child");
    for (uint64_t end = t_now_ms() + 10000; t_now_ms() < end;) {
        struct info_v2 list[ROOM];
        unsigned count = ROOM;
        unsigned long long before = used(device), sum = 0;
        bool listed = false;

        t_result(((list_function *)dlsym(nvml, "nvmlDeviceGetComputeRunningProcesses_v3"))(device, &count, list), SUCCESS);
        for (unsigned i = 0; i < count; i++) {
            sum += list[i].used;
            listed |= list[i].pid == (unsigned)child;
        }
        if (before != used(device))
            continue; /* it went meanwhile */
        t_equal(sum, before);
        t_check(listed == (before > context), "%llu bytes count, and the dead is %slisted", before, listed ? "" : "not ");
        if (!listed)
            break;
        with++;
    }
    t_check(with && used(device) == context, "listed %d times, and %llu bytes are left", with, used(device));
}

int main(int argc, char **argv)
{
    uint64_t context = t_bytes("SOFTSIM_CONTEXT_BYTES", 512 * T_MIB);
    int ready[2][2], go[2][2];
    pid_t child[2];

    limited = getenv("SOFTSLICE_VRAM");
    named = getenv("SOFTSLICE_TENANT");
    mps = getenv("SOFTSIM_MPS");
    nvml = t_library("libnvidia-ml.so.1");
    if (argc > 1 && strcmp(argv[1], "nvml") == 0) { /* one that never starts CUDA */
        look(0, 0, !limited ? 3 : named ? 3 : 0);
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "killed") == 0) {
        look_at_death();
        return 0;
    }
    if (argc > 1) {
        be_member((unsigned)atoi(argv[1]));
        return 0;
    }
    t_nvml_device(0);
    if (limited)
        look(0, 0, 0); /* nobody is there */
    t_context(0);
    if (limited)
        look(0, context, 1);
    child[0] = member("2", ready[0], go[0]);
    child[1] = member("5", ready[1], go[1]);
    t_check(t_alloc(100), "an allocation was refused");
    /* Without a limit, NVML is the driver's. */
    look(0, context + t_granule(), limited && !named ? 1 : 3);
    t_join(t_again("nvml"));
    if (t_bytes("SOFTSIM_GPUS", 1) > 1)
        look(1, 0, 0);
    for (int i = 0; i < 2; i++) {
        close(go[i][1]);
        t_join(child[i]);
    }
    for (uint64_t end = t_now_ms() + 5000; t_now_ms() < end && limited && used(t_nvml_device(0)) != context + t_granule();)
        usleep(1000); /* until the dead were missed */
    look(0, context + t_granule(), 1);
    return 0;
}
