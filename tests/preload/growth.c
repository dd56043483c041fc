/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that no argument of a call tells: modules, libraries, limits of a context. It is charged by the difference that the driver shows, or
 * refused with everything as it was; it goes with what took it, and with the context; and threads that do such things at once charge nothing
 * twice. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MODULE_BYTES=64M -- modules
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MODULE_BYTES=64M CUDA_MODULE_LOADING=EAGER -- libraries
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_LAZY_BYTES=32M -- lazy
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- limits
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MODULE_BYTES=10M -- threads
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MODULE_BYTES=64M SOFTSIM_NVML_PIDS=none -- unknown
#include <pthread.h>

#include "../cuda_helper.h"

#define MANY    64
#define THREADS 4
#define ROUNDS  100

static const char image[] = "an image";
static uint64_t limit, context_bytes, module_bytes;

/* What is told to be in use is what the GPU says. */
static void holds(uint64_t bytes)
{
    t_equal(t_used(0), bytes);
    t_equal(t_total() - t_free(), bytes);
}

static CUresult load(unsigned how, CUmodule *module)
{
    switch (how % 4) {
    case 0:
        return cuModuleLoadData(module, image);
    case 1:
        return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
    case 2:
        return cuModuleLoadFatBinary(module, image);
    default:
        return cuModuleLoad(module, "/proc/self/exe");
    }
}

static void modules(void)
{
    CUmodule module[MANY], refused = (CUmodule)0x77;
    CUcontext context = t_context(0);
    unsigned count = 0, fit = (unsigned)((limit - context_bytes) / module_bytes);

    holds(context_bytes);
    for (CUresult result; (result = load(count, &module[count])) != CUDA_ERROR_OUT_OF_MEMORY; count++) {
        t_result(result, CUDA_SUCCESS);
        t_check(count < fit, "a module was loaded beyond the budget");
        holds(context_bytes + (count + 1) * module_bytes);
    }
    t_equal(count, fit);
    for (unsigned how = 0; how < 4; how++) {
        t_result(load(how, &refused), CUDA_ERROR_OUT_OF_MEMORY);
        t_check(refused == (CUmodule)0x77, "a refused load wrote its output");
        holds(context_bytes + fit * module_bytes);
    }
    t_check(cuModuleLoadData(NULL, image) != CUDA_SUCCESS, "loaded into NULL");
    t_check(cuModuleUnload((CUmodule)0x1234) != CUDA_SUCCESS, "garbage was unloaded");
    holds(context_bytes + fit * module_bytes);
    for (unsigned i = 0; i < count / 2; i++) {
        t_cuda(cuModuleUnload(module[i]));
        t_check(cuModuleUnload(module[i]) != CUDA_SUCCESS, "a module was unloaded twice");
    }
    holds(context_bytes + (fit - count / 2) * module_bytes);
    t_check(t_alloc(count / 2 * module_bytes), "what modules gave back is not free");
    t_cuda(cuCtxDestroy(context));
    t_equal(t_used(0), 0);
    t_context(0);
    holds(context_bytes);
}

static void libraries(void)
{
    CUlibrary library[MANY], refused = (CUlibrary)0x77;
    unsigned count = 0, fit = (unsigned)((limit - context_bytes) / module_bytes);

    t_context(0);
    for (CUresult result; (result = count % 2 ? cuLibraryLoadData(&library[count], image, NULL, NULL, 0, NULL, NULL, 0)
                                              : cuLibraryLoadFromFile(&library[count], "/proc/self/exe", NULL, NULL, 0, NULL, NULL,
                                                                      0)) != CUDA_ERROR_OUT_OF_MEMORY;
         count++) {
        t_result(result, CUDA_SUCCESS);
        t_check(count < fit, "a library was loaded beyond the budget");
        holds(context_bytes + (count + 1) * module_bytes);
    }
    t_equal(count, fit);
    t_result(cuLibraryLoadData(&refused, image, NULL, NULL, 0, NULL, NULL, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(refused == (CUlibrary)0x77, "a refused load wrote its output");
    for (unsigned i = 0; i < count; i++)
        t_cuda(cuLibraryUnload(library[i]));
    holds(context_bytes);
}

/* What comes with the first launch is counted with the next reading, at the latest that of another call. */
static void lazy(void)
{
    CUmodule module;
    CUfunction function;

    t_context(0);
    t_cuda(cuModuleLoadData(&module, image));
    for (unsigned i = 0; i < 4; i++) {
        char name[8];
        snprintf(name, sizeof(name), "f%u", i);
        t_cuda(cuModuleGetFunction(&function, module, name));
        t_cuda(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    }
    t_cuda(cuModuleLoadData(&module, image));
    t_equal(t_used(0), context_bytes + 4 * t_bytes("SOFTSIM_LAZY_BYTES", 0));
    holds(t_used(0));
}

static void limits(void)
{
    size_t before, after;

    CUcontext context = t_context(0);
    t_cuda(cuCtxGetLimit(&before, CU_LIMIT_MALLOC_HEAP_SIZE));
    t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, before + 500 * T_MIB));
    t_check(t_used(0) > context_bytes, "the simulated heap takes nothing");
    holds(t_used(0));
    uint64_t used = t_used(0);
    t_result(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, before + 2000 * T_MIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuCtxGetLimit(&after, CU_LIMIT_MALLOC_HEAP_SIZE));
    t_equal(after, before + 500 * T_MIB);
    holds(used);
    t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, before));
    holds(context_bytes);
    t_check(cuCtxSetLimit((CUlimit)99, 1) != CUDA_SUCCESS, "there is no such limit");
    holds(context_bytes);
    t_cuda(cuCtxDestroy(context));
}

static CUcontext shared;

static void *mix(void *number)
{
    unsigned seed = *(const unsigned *)number;

    t_cuda(cuCtxSetCurrent(shared));
    for (int round = 0; round < ROUNDS; round++) {
        CUmodule module[4];
        CUdeviceptr block[4];

        for (unsigned i = 0; i < 4; i++) {
            t_cuda(load(seed + i, &module[i]));
            t_cuda(cuMemAlloc(&block[i], (1 + (seed + i) % 7) * T_MIB));
        }
        for (unsigned i = 0; i < 4; i++) {
            t_cuda(cuMemFree(block[i]));
            t_cuda(cuModuleUnload(module[i]));
        }
    }
    return NULL;
}

static void threads(void)
{
    static const unsigned number[THREADS] = {0, 1, 2, 3};
    pthread_t thread[THREADS];
    CUdeviceptr block;

    shared = t_context(0);
    t_cuda(cuMemAlloc(&block, T_MIB));
    t_cuda(cuMemFree(block));
    for (int i = 0; i < THREADS; i++)
        t_check(pthread_create(&thread[i], NULL, mix, (void *)&number[i]) == 0, "no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    holds(context_bytes);
}

/* Without a figure for the process: by the device's free memory, remembered for each module. */
static void unknown(void)
{
    CUmodule module[3], refused = (CUmodule)0x77;
    CUcontext context = t_context(0);
    uint64_t before = t_free(), blocks = 0;

    for (unsigned i = 0; i < 3; i++) {
        t_cuda(load(i, &module[i]));
        t_equal(t_free(), before - (i + 1) * module_bytes);
    }
    t_cuda(cuModuleUnload(module[1]));
    t_equal(t_free(), before - 2 * module_bytes);
    while (t_free() >= module_bytes) {
        t_check(t_alloc(32 * T_MIB), "refused");
        blocks++;
    }
    t_result(cuModuleLoadData(&refused, image), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(refused == (CUmodule)0x77, "a refused load wrote its output");
    t_equal(t_used(0), context_bytes + 2 * module_bytes + blocks * 32 * T_MIB);
    t_cuda(cuCtxDestroy(context));
    t_context(0);
    t_equal(t_free(), before);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"modules", modules}, {"libraries", libraries}, {"lazy", lazy},
                 {"limits", limits},   {"threads", threads},     {"unknown", unknown}};

    limit = t_bytes("SOFTSLICE_VRAM", 0);
    context_bytes = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    module_bytes = t_bytes("SOFTSIM_MODULE_BYTES", 0);
    for (size_t i = 0; argc > 1 && i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strcmp(argv[1], tests[i].name) == 0) {
            tests[i].run();
            return 0;
        }
    }
    t_fail("which one?");
}
