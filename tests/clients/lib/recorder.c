/* SPDX-License-Identifier: Apache-2.0 */
/* Writes down what a program asks the driver for and gets: preloaded before libsoftslice.so it sees what the program sees. One line an answer,
 * to the file named by TEST_RECORD:
 *
 *     dlsym NAME OBJECT SYMBOL
 *     gpa NAME VERSION FLAGS RESULT STATUS OBJECT SYMBOL      (NAME "-" for the empty one; OBJECT and SYMBOL "-" for no address) */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__aarch64__)
#    define VERSION "GLIBC_2.17"
#else
#    define VERSION "GLIBC_2.2.5"
#endif

typedef int get_v1(const char *, void **, int, uint64_t);
typedef int get_v2(const char *, void **, int, uint64_t, int *);

static void *(*next)(void *, const char *);
static get_v1 *next_v1;
static get_v2 *next_v2;

static void record(const char *line, int length)
{
    const char *path = getenv("TEST_RECORD");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;

    if (fd >= 0 && write(fd, line, (size_t)length) != length)
        abort();
    if (fd >= 0)
        close(fd);
}

static void where(const void *address, const char **object, const char **symbol)
{
    Dl_info info;

    *object = *symbol = "-";
    if (!address)
        return;
    *object = *symbol = "?";
    if (dladdr(address, &info)) {
        const char *slash = strrchr(info.dli_fname, '/');
        *object = slash ? slash + 1 : info.dli_fname;
        if (info.dli_sname && info.dli_saddr == address)
            *symbol = info.dli_sname;
    }
}

static void record_answer(const char *name, int version, uint64_t flags, int result, int status, const void *address)
{
    const char *object, *symbol;
    char line[512];

    where(result == 0 ? address : NULL, &object, &symbol);
    record(line, snprintf(line, sizeof(line), "gpa %s %d %d %d %d %s %s\n", name && *name ? name : "-", version, (int)flags, result,
                          status, object, symbol));
}

/* Look-ups that our own answers led to come back here too. */
static int recorded_v1(const char *name, void **address, int version, uint64_t flags);
static int recorded_v2(const char *name, void **address, int version, uint64_t flags, int *status);

static void stand_between(const char *symbol, void **address)
{
    if (strcmp(symbol, "cuGetProcAddress_v2") == 0 && *address != (void *)recorded_v2) {
        next_v2 = (get_v2 *)*address;
        *address = (void *)recorded_v2;
    } else if (strcmp(symbol, "cuGetProcAddress") == 0 && *address != (void *)recorded_v1) {
        next_v1 = (get_v1 *)*address;
        *address = (void *)recorded_v1;
    }
}

static int recorded_v1(const char *name, void **address, int version, uint64_t flags)
{
    int result = next_v1(name, address, version, flags);

    record_answer(name, version, flags, result, -1, address ? *address : NULL);
    return result;
}

static int recorded_v2(const char *name, void **address, int version, uint64_t flags, int *status)
{
    int own = -1, result = next_v2(name, address, version, flags, &own);

    if (status)
        *status = own;
    record_answer(name, version, flags, result, own, address ? *address : NULL);
    if (result == 0 && address && *address && strcmp(name, "cuGetProcAddress") == 0)
        stand_between(version >= 12000 ? "cuGetProcAddress_v2" : "cuGetProcAddress", address);
    return result;
}

void *dlsym(void *handle, const char *name)
{
    if (!next)
        next = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", VERSION);
    if (handle == RTLD_NEXT || handle == RTLD_DEFAULT ||
        ((name[0] != 'c' || name[1] != 'u' || name[2] < 'A' || name[2] > 'Z') && strncmp(name, "nvml", 4) != 0))
        return next(handle, name); /* a jump when optimised: the caller's own return address counts */
    void *address = next(handle, name);
    const char *object, *symbol;
    char line[512];
    where(address, &object, &symbol);
    record(line, snprintf(line, sizeof(line), "dlsym %s %s %s\n", name, object, symbol));
    if (address)
        stand_between(name, &address);
    return address;
}
