/* SPDX-License-Identifier: Apache-2.0 */
/* Another hook library: a plain dlsym that finds the next one by dlvsym with glibc's oldest version, as such libraries do. */
#include <dlfcn.h>
#include <stddef.h>

#if defined(__aarch64__)
#    define VERSION "GLIBC_2.17"
#else
#    define VERSION "GLIBC_2.2.5"
#endif

extern int hook_chain_calls;
int hook_chain_calls;

void *dlsym(void *handle, const char *name)
{
    static void *(*next)(void *, const char *);

    if (!next)
        next = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", VERSION);
    __atomic_fetch_add(&hook_chain_calls, 1, __ATOMIC_RELAXED);
    void *volatile found = next ? next(handle, name) : NULL;
    return found;
}
