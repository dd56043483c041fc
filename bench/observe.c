/* SPDX-License-Identifier: Apache-2.0 */
/* What it takes to look at tenants from outside, and what those notice of it: one measurement a run, one line of tab-separated figures.
 *
 *   observe read TENANTS    ms of one look at so many tenants, each with a live member on two GPUs: median and longest without the members, then
 *                           with them
 *   observe beside TENANTS  ns of a reserve, settle and refund of a member of one of them, while nobody looks and while somebody does again and again;
 *                           CPU time, medians of rounds in turns */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../cli/observe.h"
#include "bench.h"
#include "ledger_layout.h"

#define ROUNDS 31
#define PAIRS  200000
#define PAGE   4096

static struct ledger ledger;
static char state[PATH_MAX - 64];

static void fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/* A page of the copy stays mapped, which keeps its open file and so the lock that says that its member lives. */
static void copy(const char *base, size_t size, const char *name)
{
    static const char zeros[PAGE];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)(LEDGER_LOCK_SLOTS + ledger.slot), .l_len = 1};
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", state, name);
    if (mkdir(path, 0700) < 0)
        fail("mkdir");
    snprintf(path, sizeof(path), "%s/%s/ledger", state, name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        fail("ledger");
    for (size_t at = 0; at + PAGE <= size; at += PAGE) {
        if (memcmp(base + at, zeros, PAGE) != 0 && pwrite(fd, base + at, PAGE, (off_t)at) != PAGE)
            fail("write");
    }
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0 || mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
        fail("lock");
    close(fd);
}

static void make(unsigned tenants)
{
    const char *configured = getenv("SOFTSLICE_STATE_DIR");
    char path[PATH_MAX], name[32];
    int directory;

    snprintf(state, sizeof(state), "%s/observe-XXXXXX", configured ? configured : "/dev/shm");
    if (!mkdtemp(state))
        fail("mkdtemp");
    directory = ledger_state_dir(&ledger, state, path, sizeof(path));
    if (directory < 0 || ledger_attach(&ledger, directory, "tenant-0") < 0)
        fail(ledger.error);
    ledger_arm(&ledger, LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE);
    for (uint8_t i = 0; i < 2; i++) {
        int device = ledger_add_device(&ledger, (uint8_t[16]){i + 1, 7}, UINT64_C(20) << 30);

        if (device < 0 || ledger_reserve(&ledger, (unsigned)device, 123456789, LEDGER_NO_LIMIT) < 0)
            fail("a device");
        ledger_settle(&ledger, (unsigned)device, 123456789, 123456789);
    }
    for (unsigned i = 1; i < tenants; i++) {
        snprintf(name, sizeof(name), "tenant-%u", i);
        copy((const char *)ledger.file, ledger.size, name);
    }
}

static double look(unsigned tenants, bool members)
{
    const char *const directories[] = {state, NULL};
    struct observe_request request = {.directories = directories, .without_members = !members, .without_nvml = true};
    char error[OBSERVE_ERROR_MAX];
    double start = bench_now(), took;
    struct observe seen;

    if (observe(&request, &seen, error) < 0)
        fail(error);
    if (seen.tenants != tenants || seen.tenant[0].view.members != 1 || seen.tenant[0].view.device[1].current != 123456789)
        fail("not every tenant was seen");
    observe_free(&seen);
    took = bench_now() - start;
    return took / 1e6;
}

static void read_all(unsigned tenants)
{
    double ms[2][ROUNDS];

    for (unsigned i = 0; i < ROUNDS; i++) {
        ms[0][i] = look(tenants, false);
        ms[1][i] = look(tenants, true);
    }
    for (unsigned i = 0; i < 2; i++)
        printf("%.2f\t%.2f%c", bench_quantile(ms[i], ROUNDS, 0.5), bench_quantile(ms[i], ROUNDS, 1), i ? '\n' : '\t');
}

static double pairs(void)
{
    double start = bench_clock(CLOCK_THREAD_CPUTIME_ID);

    for (unsigned i = 0; i < PAIRS; i++) {
        if (ledger_reserve(&ledger, 0, 2 << 20, LEDGER_NO_LIMIT) < 0)
            fail("refused");
        ledger_settle(&ledger, 0, 2 << 20, 2 << 20);
        ledger_refund(&ledger, 0, 2 << 20);
    }
    return (bench_clock(CLOCK_THREAD_CPUTIME_ID) - start) / PAIRS;
}

/* A process that looks again and again; that of the tenant this process works in may have any number of bytes. */
static pid_t begin_looking(void)
{
    const char *const directories[] = {state, NULL};
    struct observe_request request = {.directories = directories, .without_nvml = true};
    char error[OBSERVE_ERROR_MAX];
    struct observe seen;
    pid_t child = fork();

    while (child == 0) {
        if (observe(&request, &seen, error) < 0)
            _exit(1);
        observe_free(&seen);
    }
    return child;
}

static void beside(void)
{
    double alone[ROUNDS], watched[ROUNDS];

    for (unsigned i = 0; i < ROUNDS; i++) {
        pid_t child;
        int status;

        alone[i] = pairs();
        child = begin_looking();
        if (child < 0)
            fail("fork");
        watched[i] = pairs();
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        if (!WIFSIGNALED(status))
            fail("who looked failed");
    }
    printf("%.1f\t%.1f\n", bench_quantile(alone, ROUNDS, 0.5), bench_quantile(watched, ROUNDS, 0.5));
}

static void remove_all(unsigned tenants)
{
    char path[PATH_MAX];

    for (unsigned i = 0; i < tenants; i++) {
        snprintf(path, sizeof(path), "%s/tenant-%u/ledger", state, i);
        unlink(path);
        *strrchr(path, '/') = '\0';
        rmdir(path);
    }
    rmdir(state);
}

int main(int argc, char **argv)
{
    unsigned tenants = argc == 3 ? (unsigned)strtoul(argv[2], NULL, 0) : 0;

    if (!tenants || (strcmp(argv[1], "read") != 0 && strcmp(argv[1], "beside") != 0)) {
        fprintf(stderr, "usage: observe read TENANTS | observe beside TENANTS\n");
        return 2;
    }
    make(tenants);
    if (strcmp(argv[1], "read") == 0)
        read_all(tenants);
    else
        beside();
    remove_all(tenants);
    return 0;
}
