/* SPDX-License-Identifier: Apache-2.0 */
/* A library that looks the driver up in its constructor, while the loader's lock is held, as cublasLt does. Includers define RESULT. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

extern void *RESULT[6];
void *RESULT[6];

__attribute__((constructor)) static void look_up(void)
{
    static const char *const names[] = {"cuInit", "cuMemAlloc_v2", "cuMemFree_v2", "cuCtxCreate_v4"};
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    void *function = NULL;
    int status;

    if (!driver)
        return;
    for (unsigned i = 0; i < 4; i++)
        RESULT[i] = dlsym(driver, names[i]);
    int (*get)(const char *, void **, int, uint64_t, int *) =
        (int (*)(const char *, void **, int, uint64_t, int *))dlsym(driver, "cuGetProcAddress_v2");
    if (get && get("cuMemAlloc", &function, 12000, 0, &status) == 0)
        RESULT[4] = function;
    if (RESULT[0] && ((int (*)(unsigned))RESULT[0])(0) == 0)
        RESULT[5] = RESULT[0];
}
