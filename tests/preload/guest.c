/* SPDX-License-Identifier: Apache-2.0 */
/* A guest in the process. Where CUDA is never touched: one mapping of the library and no file, descriptor, thread or line more. Where it is:
 * errno, umask, signal handlers and masks, locale and descriptors as they were. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50% -- idle
// run: SOFTSLICE_VRAM=3GB! -- idle
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50% -- used
#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>

#include "../helper.h"

static int entries(const char *path)
{
    DIR *directory = opendir(path);
    int count = 0;

    t_check(directory, "opendir(%s): %s", path, strerror(errno));
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* Lines of /proc/self/maps that name our library, and all that name nothing (anonymous memory). */
static void mappings(int *ours, int *anonymous)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4096];

    *ours = *anonymous = 0;
    t_check(maps, "/proc/self/maps");
    while (fgets(line, sizeof(line), maps)) {
        *ours += strstr(line, "libsoftslice.so") != NULL;
        *anonymous += !strchr(line, '/') && !strchr(line, '[');
    }
    fclose(maps);
}

/* This program without the library: how many descriptors, threads and anonymous mappings it has by itself. */
static void compare(bool preloaded)
{
    int ours, anonymous;

    mappings(&ours, &anonymous);
    printf("%d %d %d %d\n", entries("/proc/self/fd"), entries("/proc/self/task"), anonymous, preloaded ? 0 : ours);
    t_check(!preloaded || (ours > 0 && ours <= 6), "%d mappings of the library", ours);
}

static void idle(void)
{
    char line[2][128] = {"", ""};

    for (int i = 0; i < 2; i++) {
        FILE *child;
        if (i)
            unsetenv("LD_PRELOAD");
        child = popen("exec /proc/$PPID/exe count 2>&1", "re");
        t_check(child && fgets(line[i], sizeof(line[i]), child), "popen");
        char more[128];
        t_check(!fgets(more, sizeof(more), child), "something was printed: %s", more);
        pclose(child);
    }
    int with[4], without[4];
    t_check(sscanf(line[0], "%d %d %d %d", &with[0], &with[1], &with[2], &with[3]) == 4, "%s", line[0]);
    t_check(sscanf(line[1], "%d %d %d %d", &without[0], &without[1], &without[2], &without[3]) == 4, "%s", line[1]);
    t_equal(with[0], without[0]);
    t_equal(with[1], without[1]);
    t_equal(with[3], without[3]);
    /* A sanitizer maps as it likes. */
    t_check(with[2] <= without[2] + 1 || strstr(getenv("TEST_BUILD"), "/san-"), "%d anonymous mappings, without the library %d",
            with[2], without[2]);
    t_equal(entries(getenv("SOFTSLICE_STATE_DIR")), 2);
}

static void used(void)
{
    struct sigaction before[65] = {0}, after = {0};
    sigset_t mask, mask_after;

    umask(0137);
    t_check(setlocale(LC_ALL, "C"), "setlocale");
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    for (int i = 1; i < 65; i++)
        sigaction(i, NULL, &before[i]);
    int fds = entries("/proc/self/fd");

    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(driver, "cuInit");
    int (*create)(void **, unsigned, int) = (int (*)(void **, unsigned, int))dlsym(driver, "cuCtxCreate_v2");
    int (*alloc)(uint64_t *, size_t) = (int (*)(uint64_t *, size_t))dlsym(driver, "cuMemAlloc_v2");
    int (*release)(uint64_t) = (int (*)(uint64_t))dlsym(driver, "cuMemFree_v2");
    int (*info)(size_t *, size_t *) = (int (*)(size_t *, size_t *))dlsym(driver, "cuMemGetInfo_v2");
    void *context;
    uint64_t p;
    size_t free_bytes, total;
    t_check(t_is_ours((void *)init) && t_is_ours((void *)alloc), "not hooked");

    t_cuda(init(0));
    t_cuda(create(&context, 0, 0));
    /* The driver's own calls may set errno; ours on top of them may not. */
    errno = 4711;
    t_cuda(alloc(&p, T_MIB));
    t_equal(errno, 4711);
    t_cuda(release(p));
    t_equal(errno, 4711);
    t_cuda(info(&free_bytes, &total));
    t_equal(errno, 4711);
    t_result(alloc(&p, 2 * T_GIB), 2);
    t_equal(errno, 4711);
    t_check(dlsym(driver, "cuMemAlloc_v2") && dlsym(RTLD_DEFAULT, "malloc"), "dlsym");
    t_equal(errno, 4711);

    t_equal(entries("/proc/self/fd"), fds);
    t_equal(umask(0), 0137);
    for (int i = 1; i < 65; i++) {
        if (sigaction(i, NULL, &after) != 0)
            continue; /* glibc keeps a few for itself */
        t_check(after.sa_handler == before[i].sa_handler && after.sa_flags == before[i].sa_flags,
                "the handler of signal %d changed", i);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    t_check(memcmp(&mask, &mask_after, sizeof(mask)) == 0, "the signal mask changed");
    t_check(strcmp(setlocale(LC_ALL, NULL), "C") == 0, "the locale changed");
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "idle";

    if (strcmp(how, "count") == 0)
        compare(getenv("LD_PRELOAD"));
    else if (strcmp(how, "idle") == 0)
        idle();
    else
        used();
    return 0;
}
