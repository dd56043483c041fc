/* SPDX-License-Identifier: Apache-2.0 */
/* Look-ups from constructors, which run under the loader's lock: in two threads at once, and in one that waits for another thread. They get what
 * they get elsewhere, and nobody waits who would not wait without us. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50%
// run: LD_PRELOAD="$LIB $BUILD/tests/preload/lib/early1.so $BUILD/tests/preload/lib/early2.so" SOFTSLICE_VRAM=1GiB -- preloaded
// run: LD_PRELOAD="$BUILD/tests/preload/lib/early1.so $BUILD/tests/preload/lib/early2.so $LIB" SOFTSLICE_VRAM=1GiB -- preloaded
// timeout: 30
#include <pthread.h>

#include "../helper.h"

static pthread_barrier_t barrier;

static void *load(const char *name)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/tests/preload/lib/%s", getenv("TEST_BUILD"), name);
    void *handle = dlopen(path, RTLD_NOW);
    t_check(handle, "%s", dlerror());
    return handle;
}

static void *load_at_once(void *name)
{
    pthread_barrier_wait(&barrier);
    return load(name);
}

static void right(void *handle, const char *name)
{
    static const char *const names[] = {"cuInit", "cuMemAlloc_v2", "cuMemFree_v2", "cuCtxCreate_v4", "cuMemAlloc_v2", "cuInit"};
    void **result = t_dlsym(handle, name);

    t_check(result, "%s", name);
    for (int i = 0; i < 6; i++)
        t_check(result[i] == t_wrapper(names[i]), "the constructor's look-up %d of %s got %p in %s", i, names[i], result[i],
                t_object(result[i]));
}

int main(int argc, char **argv)
{
    pthread_t thread[2];
    void *handle[2] = {RTLD_DEFAULT, RTLD_DEFAULT};

    if (argc > 1 && strcmp(argv[1], "waiting") == 0) { /* prints whether the constructor's thread came to its end */
        printf("%d\n", *(int *)t_dlsym(load("waiting.so"), "waiting_done"));
        return 0;
    }
    if (argc == 1) {
        pthread_barrier_init(&barrier, NULL, 2);
        t_check(!pthread_create(&thread[0], NULL, load_at_once, (void *)"early1.so"), "pthread_create");
        t_check(!pthread_create(&thread[1], NULL, load_at_once, (void *)"early2.so"), "pthread_create");
        for (int i = 0; i < 2; i++)
            pthread_join(thread[i], &handle[i]);
    }
    right(handle[0], "early1_result");
    right(handle[1], "early2_result");
    if (argc > 1)
        return 0;

    char with[64] = "", without[64] = "";
    FILE *child = popen("exec /proc/$PPID/exe waiting", "re");
    t_check(child && fgets(with, sizeof(with), child), "popen");
    pclose(child);
    unsetenv("LD_PRELOAD");
    child = popen("exec /proc/$PPID/exe waiting", "re");
    t_check(child && fgets(without, sizeof(without), child), "popen");
    pclose(child);
    t_check(strcmp(with, without) == 0, "a constructor that waits for a thread: %s with us, %s without (1: it came to its end)",
            with, without);
    return 0;
}
