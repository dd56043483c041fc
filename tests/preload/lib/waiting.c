/* SPDX-License-Identifier: Apache-2.0 */
/* A library whose constructor waits for a thread that uses the driver: the loader's lock is held all the while. */
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

extern int waiting_done;
int waiting_done; /* 1: the thread came to its end, 2: it did not within five seconds */

static int (*get)(const char *, void **, int, uint64_t, int *);
static int (*init)(unsigned);

static void *use(void *argument)
{
    void *function;
    int status;

    (void)argument;
    for (int version = 2000; version <= 13000; version += 1000)
        get("cuMemAlloc", &function, version, 0, &status);
    init(0);
    return NULL;
}

__attribute__((constructor)) static void wait_for_thread(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    struct timespec end;
    pthread_t thread;

    get = (int (*)(const char *, void **, int, uint64_t, int *))dlsym(driver, "cuGetProcAddress_v2");
    init = (int (*)(unsigned))dlsym(driver, "cuInit");
    if (!get || !init || pthread_create(&thread, NULL, use, NULL))
        return;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 5;
    waiting_done = pthread_timedjoin_np(thread, NULL, &end) == 0 ? 1 : 2;
}
