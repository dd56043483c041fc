/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs under LD_PRELOAD share: verdicts, the way past the hooks, and the simulated GPU's own figures. Knows nothing of cuda.h, so
 * that a program can declare the driver's names as it likes. Exit status: 0 pass, 77 skip, 1 failure; the last line says why. */
#ifndef TESTS_HELPER_H
#define TESTS_HELPER_H

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define T_UNUSED __attribute__((unused))
#define T_KIB    UINT64_C(1024)
#define T_MIB    (UINT64_C(1) << 20)
#define T_GIB    (UINT64_C(1) << 30)

/* ---- verdicts */

T_UNUSED __attribute__((noreturn, format(printf, 3, 4))) static void t_fail_at(const char *file, int line, const char *format, ...)
{
    va_list args;

    fflush(stdout);
    printf("%s:%d: ", file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

T_UNUSED __attribute__((noreturn, format(printf, 1, 2))) static void t_skip(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    _exit(77);
}

#define t_fail(...) t_fail_at(__FILE__, __LINE__, __VA_ARGS__)

/* The message says what was expected and what was seen. */
#define t_check(condition, ...)                                                                                                    \
    do {                                                                                                                           \
        if (!(condition))                                                                                                          \
            t_fail(__VA_ARGS__);                                                                                                   \
    } while (0)

#define t_equal(seen, expected)                                                                                                    \
    do {                                                                                                                           \
        unsigned long long seen_ = (unsigned long long)(seen), expected_ = (unsigned long long)(expected);                         \
        if (seen_ != expected_)                                                                                                    \
            t_fail("%s is %llu, expected %s = %llu", #seen, seen_, #expected, expected_);                                          \
    } while (0)

/* A driver call's result, by number: 0 is CUDA_SUCCESS. */
#define t_result(call, expected)                                                                                                   \
    do {                                                                                                                           \
        int result_ = (int)(call), expected_ = (int)(expected);                                                                    \
        if (result_ != expected_)                                                                                                  \
            t_fail("%s returned %d, expected %s = %d", #call, result_, #expected, expected_);                                      \
    } while (0)

#define t_cuda(call) t_result(call, 0)

/* ---- past the hooks */

/* glibc's own dlsym: dlvsym on glibc's own handle is nobody's hook. */
T_UNUSED static void *t_dlsym(void *handle, const char *name)
{
    static void *(*function)(void *, const char *);
    static const char *const homes[][2] = {
        {"libc.so.6", "GLIBC_2.34"}, {"libdl.so.2", "GLIBC_2.2.5"}, {"libdl.so.2", "GLIBC_2.17"}};

    for (size_t i = 0; !function && i < sizeof(homes) / sizeof(homes[0]); i++) {
        void *home = dlopen(homes[i][0], RTLD_LAZY);
        if (home)
            function = (void *(*)(void *, const char *))dlvsym(home, "dlsym", homes[i][1]);
    }
    t_check(function, "glibc's own dlsym was not found");
    return function(handle, name);
}

T_UNUSED static void *t_library(const char *name)
{
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    t_check(handle, "dlopen(%s): %s", name, dlerror());
    return handle;
}

/* The driver's own function, or NULL. */
T_UNUSED static void *t_real(const char *symbol)
{
    static void *driver;

    if (!driver)
        driver = t_library("libcuda.so.1");
    return t_dlsym(driver, symbol);
}

T_UNUSED static void *t_real_nvml(const char *symbol)
{
    static void *nvml;

    if (!nvml)
        nvml = t_library("libnvidia-ml.so.1");
    return t_dlsym(nvml, symbol);
}

/* libsoftslice.so's export, or NULL. */
T_UNUSED static void *t_wrapper(const char *symbol)
{
    static void *library;

    if (!library)
        library = t_library(getenv("TEST_LIB"));
    return t_dlsym(library, symbol);
}

/* File name without its folders of the object that holds `address`, "nowhere" if none. */
T_UNUSED static const char *t_object(const void *address)
{
    Dl_info info;

    if (!address || !dladdr(address, &info))
        return "nowhere";
    const char *slash = strrchr(info.dli_fname, '/');
    return slash ? slash + 1 : info.dli_fname;
}

T_UNUSED static bool t_is_ours(const void *address)
{
    return strcmp(t_object(address), "libsoftslice.so") == 0;
}

/* ---- the simulated GPU's own figures, from its NVML past the hooks */

T_UNUSED static void *t_nvml_device(unsigned gpu)
{
    void *device;

    t_result(((int (*)(void))t_real_nvml("nvmlInit_v2"))(), 0);
    t_result(((int (*)(unsigned, void **))t_real_nvml("nvmlDeviceGetHandleByIndex_v2"))(gpu, &device), 0);
    return device;
}

/* Bytes of HBM in use on a GPU by all processes. */
T_UNUSED static uint64_t t_used(unsigned gpu)
{
    unsigned long long memory[3]; /* total, free, used */

    t_result(((int (*)(void *, void *))t_real_nvml("nvmlDeviceGetMemoryInfo"))(t_nvml_device(gpu), memory), 0);
    return memory[2];
}

T_UNUSED static uint64_t t_physical(unsigned gpu)
{
    unsigned long long memory[3];

    t_result(((int (*)(void *, void *))t_real_nvml("nvmlDeviceGetMemoryInfo"))(t_nvml_device(gpu), memory), 0);
    return memory[0];
}

/* ---- settings and time */

/* The bytes that a variable such as SOFTSLICE_VRAM=1GiB or SOFTSIM_CONTEXT_BYTES=300M says; `otherwise` where it is not set. */
T_UNUSED static uint64_t t_bytes(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    char *end;

    if (!text || !*text)
        return otherwise;
    uint64_t value = strtoull(text, &end, 10);
    switch (*end) {
    case 'K':
        return value * T_KIB;
    case 'M':
        return value * T_MIB;
    case 'G':
        return value * T_GIB;
    default:
        return value;
    }
}

T_UNUSED static uint64_t t_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Whether ThreadSanitizer watches. The library's table of driver functions goes from stubs to functions by stores of single words that are read
 * as plain words, for either may be called at any time: to ThreadSanitizer that is a race, so a test fills it before it starts threads. */
T_UNUSED static bool t_thread_sanitizer(void)
{
    return strstr(getenv("TEST_BUILD"), "/san-thread");
}

/* ---- children */

/* Fork, with nothing left in stdio's buffers to be written twice. */
T_UNUSED static pid_t t_fork(void)
{
    fflush(stdout);
    pid_t child = fork();
    t_check(child >= 0, "fork: %s", strerror(errno));
    return child;
}

/* Wait for a child; its failure has said why. */
T_UNUSED static void t_join(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) < 0)
        t_check(errno == EINTR, "waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        _exit(77);
    t_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ended with wait status 0x%x", (unsigned)status);
}

/* This program again, in a process of its own that never used CUDA before, with `argument`. */
T_UNUSED static pid_t t_again(const char *argument)
{
    if (getenv("TEST_EMULATED"))
        t_skip("starts itself again, which needs the kernel to know the foreign architecture");
    pid_t child = t_fork();

    if (child == 0) {
        execl("/proc/self/exe", "again", argument, (char *)NULL);
        t_fail("exec: %s", strerror(errno));
    }
    return child;
}

#endif
