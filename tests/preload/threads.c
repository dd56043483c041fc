/* SPDX-License-Identifier: Apache-2.0 */
/* A thousand threads look the driver up at once, by every road, and all get the same; none disturbs another's dlerror() or errno. */
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_ALT_ADDRESSES=1
#include <pthread.h>

#include "../helper.h"

enum { THREADS = 1000 };

static pthread_barrier_t barrier;

static void *look_up(void *argument)
{
    unsigned number = (unsigned)(uintptr_t)argument;
    void *function = NULL;
    int status;

    pthread_barrier_wait(&barrier);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    t_check(driver, "%s", dlerror());
    errno = (int)number;
    void *linked_by_name = dlsym(driver, "cuMemAlloc_v2");
    int (*get)(const char *, void **, int, uint64_t, int *) =
        (int (*)(const char *, void **, int, uint64_t, int *))dlsym(driver, "cuGetProcAddress_v2");
    t_check(get("cuMemAlloc", &function, 12000, number % 3, &status) == 0, "cuGetProcAddress_v2");
    t_equal(errno, number);
    t_check(t_is_ours(function) && function == linked_by_name, "thread %u: %s and %s", number, t_object(function),
            t_object(linked_by_name));
    if (number % 2)
        t_check(!dlsym(driver, "cuNothing"), "cuNothing");
    else
        t_check(dlsym(driver, "cuMemFree_v2"), "cuMemFree_v2");
    t_check((dlerror() != NULL) == (number % 2), "thread %u: dlerror()", number);
    return NULL;
}

int main(void)
{
    static pthread_t thread[THREADS];
    pthread_attr_t small;

    if (t_thread_sanitizer())
        dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuMemAlloc_v2");
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        t_check(!pthread_create(&thread[i], &small, look_up, (void *)i), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    return 0;
}
