/* SPDX-License-Identifier: Apache-2.0 */
/* RTLD_NEXT while other threads load and unload libraries: the list of what is loaded changes under the search. */
// unemulated: every library that goes makes the emulator translate anew, which takes minutes
// run: SOFTSLICE_VRAM=1GiB
#include <pthread.h>

#include "../helper.h"

#define LOOKUPS 300000

static int stop;

static const char *library(char path[4096], const char *name)
{
    snprintf(path, 4096, "%s/tests/preload/lib/%s.so", getenv("TEST_BUILD"), name);
    return path;
}

static void *churn(void *argument)
{
    static const char *const names[] = {"dependent", "front", "lookalike"};
    char path[4096];

    (void)argument;
    for (unsigned i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        void *handle = dlopen(library(path, names[i % 3]), RTLD_NOW | RTLD_LOCAL);

        t_check(handle, "dlopen: %s", dlerror());
        dlclose(handle);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    char path[4096];
    void *driver = t_library("libcuda.so.1"); /* in front of who asks: the search goes to the list's end */
    void *handle = dlopen(library(path, "behind"), RTLD_NOW | RTLD_LOCAL);

    t_check(handle, "dlopen: %s", dlerror());
    void *(*next)(const char *) = (void *(*)(const char *))t_dlsym(handle, "behind_next");
    t_check(next, "behind.so has changed");
    for (int i = 0; i < 2; i++)
        t_check(pthread_create(&threads[i], NULL, churn, NULL) == 0, "no thread");
    for (int i = 0; i < LOOKUPS; i++) {
        void *found = next("cuMemAlloc_v2");
        t_check(!found, "cuMemAlloc_v2 lies in %s", t_object(found));
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    dlclose(driver);
    return 0;
}
