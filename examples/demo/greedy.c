/* SPDX-License-Identifier: Apache-2.0 */
/* A program that takes all the GPU memory it can get: greedy PIECE, in bytes. When the driver refuses it writes one line,
 * "refused ERROR BYTES", and holds what it has until its standard input ends. Nothing in it knows of softslice. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned long long pointer;

#define SMALLEST (2ull << 20) /* when not even this is to be had, the memory is full */

static void *driver;

static void *function(const char *name)
{
    void *address = dlsym(driver, name);

    if (!address) {
        fprintf(stderr, "greedy: %s\n", dlerror());
        exit(1);
    }
    return address;
}

static const char *name_of(int error)
{
    int (*get_name)(int, const char **) = (int (*)(int, const char **))function("cuGetErrorName");
    const char *name = NULL;

    return get_name(error, &name) == 0 ? name : "an unknown error";
}

static void must(int error, const char *what)
{
    if (error == 0)
        return;
    fprintf(stderr, "greedy: %s: %s\n", what, name_of(error));
    exit(1);
}

int main(int argc, char **argv)
{
    unsigned long long piece = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, held = 0;
    int device, error = 0;
    void *context;
    pointer memory;

    if (piece < SMALLEST) {
        fprintf(stderr, "usage: greedy PIECE (bytes, at least %llu)\n", SMALLEST);
        return 2;
    }
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) {
        fprintf(stderr, "greedy: %s\n", dlerror());
        return 1;
    }
    int (*init)(unsigned) = (int (*)(unsigned))function("cuInit");
    int (*get_device)(int *, int) = (int (*)(int *, int))function("cuDeviceGet");
    int (*retain)(void **, int) = (int (*)(void **, int))function("cuDevicePrimaryCtxRetain");
    int (*set_current)(void *) = (int (*)(void *))function("cuCtxSetCurrent");
    int (*allocate)(pointer *, size_t) = (int (*)(pointer *, size_t))function("cuMemAlloc_v2");

    must(init(0), "cuInit");
    must(get_device(&device, 0), "cuDeviceGet");
    must(retain(&context, device), "cuDevicePrimaryCtxRetain");
    must(set_current(context), "cuCtxSetCurrent");
    while (piece >= SMALLEST) {
        int result = allocate(&memory, piece);

        if (result == 0) {
            held += piece;
        } else {
            error = result;
            piece /= 2;
        }
    }
    printf("refused %s %llu\n", name_of(error), held);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
