/* SPDX-License-Identifier: Apache-2.0 */
/* How a configuration is read: by many threads, with little stack, without malloc or a trace; and that its documents name every key. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "config_helper.h"

CONFIG_TEST_SUITE(config_calls);

/* ---- how it is called */

/* Pages of this process's address space. */
static long pages(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long count = -1;

    cr_assert(file && fscanf(file, "%ld", &count) == 1);
    fclose(file);
    return count;
}

Test(config_calls, mappings_are_returned)
{
    long before;

    write_admin("[softslice]\nvram = 1GiB\n");
    write_user(sample);
    load();
    before = pages();
    for (unsigned i = 0; i < 1000; i++)
        load();
    cr_expect(pages() < before + 1000, "%ld more pages", pages() - before);
}

Test(config_calls, errno_and_descriptors_are_kept)
{
    int before = dup(0), after;

    close(before);
    errno = 4711;
    load(); /* there is no admin file: something failed within */
    cr_expect(errno == 4711);
    write_admin("[softslice]\nvram = 1GiB\n");
    write_user(sample);
    errno = 4711;
    load();
    cr_expect(errno == 4711);
    set("SOFTSLICE_VRAM", "x");
    write_admin("x");
    load();
    cr_expect(errno == 4711);
    after = dup(0);
    close(after);
    cr_expect(before == after);
}

static void *load_here(void *argument)
{
    struct config_input input = {lookup, variables, variables, admin_path, admin_owner, NULL};

    return (void *)(long)config_load(argument, &input);
}

static struct config at_once[8];

Test(config_calls, threads_at_once)
{
    pthread_t thread[8];
    void *rc;

    write_admin("[softslice]\nvram = 1GiB\n");
    write_user(sample);
    set("SOFTSLICE_TENANT", "a");
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 8; i++)
            cr_assert(pthread_create(&thread[i], NULL, load_here, &at_once[i]) == 0);
        for (unsigned i = 0; i < 8; i++) {
            cr_assert(pthread_join(thread[i], &rc) == 0 && !rc);
            cr_assert(config_vram_own(&at_once[i], &gpu_b, NULL) == 10 * GIB);
            cr_assert(config_vram_admin(&at_once[i], &gpu_b, NULL) == GIB);
            cr_assert(at_once[i].weight == 7 && strcmp(at_once[i].tenant, "a") == 0);
        }
    }
}

/* Not under sanitizers, which allocate themselves and want larger stacks. (Of the two compilers only clang has __has_feature, and runs
 * these tests under sanitizers alone.) */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__has_feature)

static volatile unsigned allocations;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return __libc_realloc(old, size);
}

Test(config_calls, nothing_is_allocated)
{
    unsigned before;

    write_admin("[softslice]\nvram = 1GiB\n[tenant a]\nvram=2GiB\n");
    write_user(sample);
    set("SOFTSLICE_TENANT", "a");
    set("CUDA_DEVICE_MEMORY_LIMIT", "3g");
    free(malloc(1));
    cr_assert(allocations > 0, "the count does not count");
    before = allocations;
    cr_expect(load() == 0);
    cr_expect(allocations == before);
    set("SOFTSLICE_VRAM", "x");
    before = allocations;
    cr_expect(load() == -EINVAL);
    cr_expect(allocations == before);
}

/* The whole stack of a thread is 32 KiB and ends in a page that cannot be touched. */
Test(config_calls, little_stack_is_enough)
{
    pthread_attr_t attributes;
    pthread_t thread;
    void *rc;
    char *stack = mmap(NULL, 9 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert(stack != MAP_FAILED && mprotect(stack + 4096, 8 * 4096, PROT_READ | PROT_WRITE) == 0);
    write_admin("[softslice]\nvram = 1GiB\n[tenant a]\nvram=x\n");
    write_user(sample);
    set("SOFTSLICE_VRAM", "0=1GiB,1=2GiB,y=3GiB");
    cr_assert(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack + 4096, 8 * 4096) == 0);
    cr_assert(pthread_create(&thread, &attributes, load_here, &at_once[0]) == 0);
    cr_assert(pthread_join(thread, &rc) == 0);
    cr_expect((long)rc == -EINVAL);
}

#endif

/* A file that changes while it is read gives what it was at some time, or an error, never a crash. */
Test(config_calls, files_that_change)
{
    pid_t pid;
    int status;

    write_user("[softslice]\nvram = 1GiB\n");
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        static char filler[60000];
        int fd = open(scratch_path("user.ini"), O_WRONLY);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memset(filler, ';', sizeof(filler));
        for (;;) {
            if (ftruncate(fd, 0) < 0 || pwrite(fd, filler, sizeof(filler), 0) < 0 || ftruncate(fd, 0) < 0 ||
                pwrite(fd, "[softslice]\nvram = 1GiB\n", 24, 0) < 0)
                _exit(1);
        }
    }
    for (unsigned i = 0; i < 2000; i++) {
        int rc = load();

        cr_assert(rc == 0 || (rc == -EINVAL && config.error[0]));
        cr_assert(rc != 0 || config.vram.count <= 1);
    }
    kill(pid, SIGKILL);
    cr_assert(waitpid(pid, &status, 0) == pid);
}

Test(config_calls, process)
{
    static struct config ours;

    unsetenv("SOFTSLICE_CONFIG");
    cr_assert(setenv("SOFTSLICE_VRAM", "7GiB", 1) == 0);
    if (access(CONFIG_ADMIN_FILE, F_OK) == 0)
        skip("this machine has an admin file");
    cr_expect(config_load_process(&ours) == 0, "%s", ours.error);
    cr_expect(config_vram_own(&ours, &gpu_a, NULL) == 7 * GIB);
    cr_assert(setenv("SOFTSLICE_VRRAM", "7GiB", 1) == 0);
    cr_expect(config_load_process(&ours) == -EINVAL);
}

Test(config_calls, texts_fit_their_buffers)
{
    char text[16], all[1024];

    limits_of(all, 40);
    set("SOFTSLICE_VRAM", all);
    GOOD();
    for (unsigned size = 0; size <= sizeof(text); size++) {
        memset(text, '#', sizeof(text));
        config_value(&config, CONFIG_VRAM, text, size);
        for (unsigned i = size; i < sizeof(text); i++)
            cr_expect(text[i] == '#');
        cr_expect(size == 0 || memchr(text, 0, size));
    }
}

/* ---- the documents: each key is in the sample and in the man page */

static char *read_document(const char *path)
{
    static char text[2][1 << 16];
    static unsigned next;
    FILE *file = fopen(path, "r");
    size_t length;

    cr_assert(file != NULL, "%s is not here: tests run in the root of the repository", path);
    next = !next;
    length = fread(text[next], 1, sizeof(text[next]) - 1, file);
    fclose(file);
    text[next][length] = 0;
    return text[next];
}

Test(config_calls, sample_is_valid_and_complete)
{
    char *text = read_document("examples/softslice.ini");
    char *line, *rest, bare[1 << 16] = "";
    bool seen[CONFIG_KEYS] = {false};

    /* As it is ... */
    write_user(text);
    GOOD();
    forget();
    write_admin(text);
    GOOD();
    forget();
    /* ... and with each setting that is commented out taken on its own. */
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const char *setting = line[0] == ';' && line[1] != ' ' ? line + 1 : line;
        char section[1 << 10];

        for (unsigned key = 0; key < CONFIG_KEYS; key++) {
            size_t length = strlen(config_keys[key].key);

            seen[key] |= strncmp(setting, config_keys[key].key, length) == 0 && strncmp(setting + length, " = ", 3) == 0;
        }
        if (setting[0] == '[')
            snprintf(bare, sizeof(bare), "%s\n", setting);
        if (setting == line || setting[0] == '[')
            continue;
        snprintf(section, sizeof(section), "%.500s%.500s\n", bare, setting);
        write_user(section);
        cr_expect(load() == 0, "%s: %s", setting, config.error);
    }
    for (unsigned key = 0; key < CONFIG_KEYS; key++)
        cr_expect(seen[key] || key == CONFIG_CONFIG, "%s is not in the sample", config_keys[key].key);
}

/* The man page has one paragraph a key: name, variable and default as the table has them. */
Test(config_calls, man_page_is_complete)
{
    char *text = read_document("docs/man/softslice.ini.5");

    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        char head[256], *found, *end;

        snprintf(head, sizeof(head), key == CONFIG_CONFIG ? ".TP\n.B %.0s%s\n" : ".TP\n.BR %s \" (\" %s )\n", config_keys[key].key,
                 config_keys[key].variable);
        found = strstr(text, head);
        cr_expect(found != NULL, "the man page has no paragraph\n%s", head);
        if (!found || key == CONFIG_CONFIG)
            continue;
        end = strstr(found + 1, ".TP");
        snprintf(head, sizeof(head), "Default: %s.", config_keys[key].fallback);
        found = strstr(found, head);
        cr_expect(found && (!end || found < end), "the man page does not say '%s' of %s", head, config_keys[key].key);
    }
}
