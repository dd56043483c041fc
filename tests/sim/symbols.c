/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated driver's look-up: every symbol exists, and cuGetProcAddress keeps its rules for each of them. */
#include "helper.h"
#include <cuda.h>

struct row {
    const char *base, *symbol;
    int since, per_thread;
};

#define SYM(base, symbol, since, per_thread) {#base, #symbol, since, per_thread},
static const struct row rows[] = {
#include "../../sim/symbols.def"
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

typedef int (*look_up_t)(const char *, void **, int, unsigned long long, int *);

static look_up_t look_up;

/* The rule, written again: the newest ABI not newer than `version` in the view that the flags ask for. */
static const char *expected(const char *base, int version, unsigned flags, int *status)
{
    const struct row *best = NULL;
    bool known = false, any_per_thread = false;

    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].base, base) == 0) {
            known = true;
            any_per_thread |= rows[i].per_thread;
        }
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].base, base) == 0 && rows[i].per_thread == (flags == 2 && any_per_thread) && rows[i].since <= version &&
            (!best || rows[i].since > best->since))
            best = &rows[i];
    *status = best ? 0 : known ? 2 : 1;
    return best ? best->symbol : NULL;
}

static void check_one(void *driver, const char *base, int version, unsigned flags)
{
    int status = -1, want;
    void *address = (void *)1;
    const char *symbol = expected(base, version, flags, &want);

    t_cuda(look_up(base, &address, version, flags, &status));
    t_check(status == want, "%s at %d, flags %u: status %d, expected %d", base, version, flags, status, want);
    t_check(address == (symbol ? t_dlsym(driver, symbol) : NULL), "%s at %d, flags %u: not %s", base, version, flags,
            symbol ? symbol : "NULL");
}

static void check_rules(void)
{
    int (*first)(const char *, void **, int, unsigned long long);
    void *driver = t_library("libcuda.so.1");
    void *address = NULL;
    int status = -1;

    t_equal(ROWS, 637);
    for (size_t i = 0; i < ROWS; i++)
        t_check(t_dlsym(driver, rows[i].symbol), "%s is not exported", rows[i].symbol);
    for (size_t i = 0; i < ROWS; i++)
        for (unsigned flags = 0; flags < 3; flags++) {
            check_one(driver, rows[i].base, rows[i].since, flags);
            check_one(driver, rows[i].base, rows[i].since - 1, flags);
            check_one(driver, rows[i].base, 13000, flags);
        }
    check_one(driver, "", 0, 0);
    check_one(driver, "cuMemAlloc_v2", 13000, 0);
    check_one(driver, "cuNoSuchThing", 13000, 0);
    /* As NVIDIA's driver files do: a version above the driver's means the newest, both flags are accepted, a miss by the first ABI
     * writes nothing. */
    t_cuda(look_up("cuMemAlloc", &address, 99000, 0, &status));
    t_check(address == t_dlsym(driver, "cuMemAlloc_v2"), "cuMemAlloc at 99000 is not cuMemAlloc_v2");
    t_cuda(look_up("cuMemAlloc", &address, -1, 0, &status));
    t_check(address == t_dlsym(driver, "cuMemAlloc_v2"), "cuMemAlloc at -1 is not cuMemAlloc_v2");
    t_cuda(look_up("cuStreamQuery", &address, 13000, 3, &status));
    t_check(address == t_dlsym(driver, "cuStreamQuery"), "cuStreamQuery with flags 3 is not cuStreamQuery");
    first = (int (*)(const char *, void **, int, unsigned long long))t_dlsym(driver, "cuGetProcAddress");
    address = driver;
    status = 99;
    t_result(look_up("cuMemAlloc", &address, 13000, 4, &status), CUDA_ERROR_INVALID_VALUE);
    t_equal(status, 99);
    t_result(first("cuNoSuchThing", &address, 13000, 0), CUDA_ERROR_NOT_FOUND);
    t_result(first("cuMemAlloc", &address, 13000, 4), CUDA_ERROR_INVALID_VALUE);
    t_check(address == driver, "a miss by the first ABI wrote its output");
    t_result(look_up(NULL, &address, 13000, 0, &status), CUDA_ERROR_INVALID_VALUE);
    t_result(look_up("cuMemAlloc", NULL, 13000, 0, &status), CUDA_ERROR_INVALID_VALUE);
}

/* Two names never share an address, and no symbol comes from elsewhere. */
static void check_addresses(void)
{
    void *driver = t_library("libcuda.so.1");

    for (size_t i = 0; i < ROWS; i++) {
        void *a = t_dlsym(driver, rows[i].symbol);

        t_check(strcmp(t_object(a), "libcuda.so.1") == 0, "%s is in %s", rows[i].symbol, t_object(a));
        for (size_t j = 0; j < i; j++)
            t_check(a != t_dlsym(driver, rows[j].symbol), "%s and %s are one function", rows[i].symbol, rows[j].symbol);
    }
}

/* With SOFTSIM_ALT_ADDRESSES the other road's address differs, and does the same. */
static void check_alternative(void)
{
    void *driver = t_library("libcuda.so.1"), *address;
    int version = 0;

    for (size_t i = 0; i < ROWS; i++) {
        int status;
        const char *symbol = expected(rows[i].base, rows[i].since, rows[i].per_thread ? 2 : 0, &status);

        t_cuda(look_up(rows[i].base, &address, rows[i].since, rows[i].per_thread ? 2 : 0, NULL));
        t_check(address && address != t_dlsym(driver, symbol), "%s has one address", symbol);
    }
    t_cuda(look_up("cuDriverGetVersion", &address, 13000, 0, NULL));
    t_cuda(((int (*)(int *))address)(&version));
    t_equal(version, 13000);
}

/* An older driver does not know what came after it. */
static void check_older(void)
{
    void *address = (void *)1;
    int status = -1, version;

    t_cuda(cuDriverGetVersion(&version));
    t_equal(version, 12020);
    t_cuda(look_up("cuMemAlloc", &address, 13000, 0, &status));
    t_check(address == t_dlsym(t_library("libcuda.so.1"), "cuMemAlloc_v2"), "cuMemAlloc at 13.0 is not cuMemAlloc_v2");
    t_cuda(look_up("cuMemGetDefaultMemPool", &address, 12020, 0, &status));
    t_check(!address && status == 1, "a symbol of 13.0 on a driver of 12.2: status %d", status);
    t_cuda(look_up("cuCtxCreate", &address, 12020, 0, &status));
    t_check(address == t_dlsym(t_library("libcuda.so.1"), "cuCtxCreate_v3"), "cuCtxCreate at 12.2 is not cuCtxCreate_v3");
}

/* What has no model says so; private tables are never handed out. */
static void check_stubs(void)
{
    const void *table = (void *)1;
    CUuuid id = {{1}};

    t_cuda(cuInit(0));
    t_result(cuGetExportTable(&table, &id), CUDA_ERROR_INVALID_VALUE);
    t_check(!table, "an export table was handed out");
    t_result(((int (*)(void))t_dlsym(t_library("libcuda.so.1"), "cuTensorMapEncodeTiled"))(), CUDA_ERROR_NOT_SUPPORTED);
}

static void in_child(void (*check)(void), const char *variable, const char *value)
{
    pid_t child = t_fork();

    if (child == 0) {
        if (variable)
            setenv(variable, value, 1);
        check();
        fflush(stdout);
        _exit(0);
    }
    t_join(child);
}

int main(void)
{
    look_up = (look_up_t)t_dlsym(t_library("libcuda.so.1"), "cuGetProcAddress_v2");
    in_child(check_rules, NULL, NULL);
    in_child(check_addresses, NULL, NULL);
    in_child(check_alternative, "SOFTSIM_ALT_ADDRESSES", "1");
    in_child(check_older, "SOFTSIM_DRIVER_VERSION", "12020");
    in_child(check_stubs, NULL, NULL);
    return 0;
}
