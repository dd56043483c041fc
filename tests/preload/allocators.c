/* SPDX-License-Identifier: Apache-2.0 */
/* Allocators that look symbols up while they start, preloaded before and after ours. */
// unsanitized: a sanitizer's runtime is the allocator itself
// run: LD_PRELOAD="libjemalloc.so.2 $LIB" SOFTSLICE_VRAM=1GiB -- libjemalloc
// run: LD_PRELOAD="$LIB libjemalloc.so.2" SOFTSLICE_VRAM=1GiB -- libjemalloc
// run: LD_PRELOAD="libtcmalloc.so.4 $LIB" SOFTSLICE_VRAM=1GiB -- libtcmalloc
// run: LD_PRELOAD="$LIB libtcmalloc.so.4" SOFTSLICE_VRAM=1GiB -- libtcmalloc
#include <pthread.h>

#include "../cuda_helper.h"

static CUcontext context;

static void *use(void *argument)
{
    (void)argument;
    t_cuda(cuCtxSetCurrent(context));
    for (int i = 0; i < 1000; i++) {
        void *memory = malloc((size_t)i * 100 + 1);
        CUdeviceptr p = t_alloc(T_MIB);
        t_check(memory && p, "refused");
        free(memory);
        t_cuda(cuMemFree(p));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const char *home = t_object((void *)malloc);
    pthread_t thread[8];

    t_check(argc > 1, "which allocator?");
    if (!strstr(home, argv[1]))
        t_skip("%s is not installed (malloc is %s's)", argv[1], home);
    t_check(strstr(t_object(dlsym(RTLD_DEFAULT, "malloc")), argv[1]), "dlsym finds another malloc");
    t_check(dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuMemAlloc_v2") == t_wrapper("cuMemAlloc_v2"), "not hooked");
    context = t_context(0);
    for (int i = 0; i < 8; i++)
        t_check(!pthread_create(&thread[i], NULL, use, NULL), "pthread_create");
    for (int i = 0; i < 8; i++)
        pthread_join(thread[i], NULL);
    t_check(!t_alloc(T_GIB), "the budget does not hold");
    t_equal(t_free(), t_total() - t_used(0));
    return 0;
}
