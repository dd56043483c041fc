/* SPDX-License-Identifier: Apache-2.0 */
/* Modules, libraries, functions and kernels. No code is ever read: every image loads, every function name exists, and a name says how
 * long a launch takes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim.h"

#define GLOBAL_BYTES      4096
#define DEFAULT_KERNEL_US 10.0

struct sim_module {
    struct sim_object_head head;
    struct sim_library *library; /* made by cuLibraryGetModule */
    uint64_t charged;
};

struct sim_library {
    struct sim_object_head head;
};

struct global {
    struct global *next;
    void *owner; /* module */
    uint64_t base;
    char name[];
};

static struct global *globals;

/* SOFTSIM_KERNELS="name=us,..." first, then a suffix such as __250us or __2ms in the name, then SOFTSIM_KERNEL_US. */
static uint64_t duration_of(const char *name)
{
    const char *list = getenv("SOFTSIM_KERNELS"), *common = getenv("SOFTSIM_KERNEL_US"), *suffix;
    size_t length = strlen(name);
    char *end;
    double us;

    while (list && *list) {
        if (strncmp(list, name, length) == 0 && list[length] == '=')
            return (uint64_t)(strtod(list + length + 1, NULL) * 1000.0);
        list += strcspn(list, ",");
        list += *list == ',';
    }
    for (suffix = strstr(name, "__"); suffix; suffix = strstr(suffix + 1, "__")) {
        us = strtod(suffix + 2, &end);
        if (end == suffix + 2)
            continue;
        if (strcmp(end, "us") == 0)
            return (uint64_t)(us * 1000.0);
        if (strcmp(end, "ms") == 0)
            return (uint64_t)(us * 1000000.0);
    }
    return (uint64_t)((common && *common ? strtod(common, NULL) : DEFAULT_KERNEL_US) * 1000.0);
}

/* A name with __pair in it, or __all4: what its launches have in common with those of the same name on another GPU, or on so many, in this process or in all
 * of one SOFTSIM_GROUP; the number of GPUs in its lowest bits. */
static uint64_t pair_of(const char *name)
{
    const char *group = getenv("SOFTSIM_GROUP"), *all = strstr(name, "__all");
    uint64_t hash = UINT64_C(14695981039346656037) ^ (group ? 0 : (uint64_t)getpid()), gpus = all ? strtoul(all + 5, NULL, 10) : 2;

    if ((!all && !strstr(name, "__pair")) || gpus < 2 || gpus >= SIM_GATE_GPUS)
        return 0;
    for (const char *c = group ? group : ""; *c; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    for (const char *c = name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    return hash - hash % SIM_GATE_GPUS + gpus;
}

static bool eager(void)
{
    const char *text = getenv("CUDA_MODULE_LOADING");

    return text && strcmp(text, "EAGER") == 0;
}

/* Granules by a setting, or by chance where SOFTSIM_RANDOMISE wants that. */
static uint64_t taken(const char *setting, unsigned int which)
{
    uint64_t drawn;

    return sim_round_up(sim_env_number(setting, sim_random(which, &drawn) ? drawn % (4 << 20) : 0), sim_granularity());
}

static CUresult module_new(struct sim_ctx *ctx, struct sim_library *library, struct sim_module **out)
{
    /* What it takes of HBM; the driver tells nobody. */
    uint64_t bytes = taken("SOFTSIM_MODULE_BYTES", 3);
    struct sim_module *m;

    if (bytes && !sim_hbm_take(ctx->dev, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    m = sim_handle_new(sizeof(*m), SIM_MODULE, ctx);
    if (!m) {
        sim_hbm_give(ctx->dev, bytes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    m->charged = bytes;
    m->library = library;
    *out = m;
    return CUDA_SUCCESS;
}

static void function_free(struct sim_function *f)
{
    if (f->charged)
        sim_hbm_give(f->head.ctx->dev, f->charged);
    free(f->name);
    sim_handle_free(f);
}

static void module_free(struct sim_module *m)
{
    struct global **link = &globals;
    struct sim_function *f, *next;

    for (f = sim_handle_first(SIM_FUNCTION, m->head.ctx); f; f = next) {
        next = sim_handle_next(f);
        if (f->module == m)
            function_free(f);
    }
    while (*link) {
        struct global *g = *link;

        if (g->owner == m) {
            struct sim_mem *mem = sim_mem_find(g->base);

            *link = g->next;
            if (mem)
                sim_mem_free(mem);
            free(g);
        } else {
            link = &g->next;
        }
    }
    sim_hbm_give(m->head.ctx->dev, m->charged);
    sim_handle_free(m);
}

void sim_modules_free_context(struct sim_ctx *ctx)
{
    struct sim_module *m;

    while ((m = sim_handle_first(SIM_MODULE, ctx)))
        module_free(m);
}

static CUresult load(CUmodule *module, const void *image)
{
    struct sim_ctx *ctx;
    struct sim_module *m;
    CUresult r;
    SIM_GUARD();

    CONTEXT(ctx);
    if (!module || !image)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    r = module_new(ctx, NULL, &m);
    if (r == CUDA_SUCCESS)
        *module = (CUmodule)m;
    return r;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    ENTER();
    return load(module, image);
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int numOptions, CUjit_option *options,
                            void **optionValues)
{
    ENTER();
    if (numOptions && (!options || !optionValues))
        return CUDA_ERROR_INVALID_VALUE;
    return load(module, image);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
    ENTER();
    return load(module, fatCubin);
}

CUresult cuModuleLoad(CUmodule *module, const char *fname)
{
    ENTER();
    if (!fname)
        return CUDA_ERROR_INVALID_VALUE;
    if (access(fname, R_OK) < 0)
        return CUDA_ERROR_FILE_NOT_FOUND;
    return load(module, fname);
}

CUresult cuModuleUnload(CUmodule hmod)
{
    struct sim_module *m;

    ENTER();
    SIM_GUARD();
    m = sim_handle_find(hmod, SIM_MODULE);
    if (!m || m->library)
        return CUDA_ERROR_INVALID_HANDLE;
    UNSAFE_IN_CAPTURE();
    sim_context_wait(m->head.ctx);
    module_free(m);
    return CUDA_SUCCESS;
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    ENTER();
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = eager() ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
}

/* One handle for one name: asked again, the same is returned. */
static struct sim_function *named(enum sim_kind kind, struct sim_ctx *ctx, void *owner, const char *name)
{
    struct sim_function *f;

    for (f = sim_handle_first(kind, ctx); f; f = sim_handle_next(f))
        if (f->module == owner && strcmp(f->name, name) == 0)
            return f;
    f = sim_handle_new(sizeof(*f), kind, ctx);
    if (!f)
        return NULL;
    f->name = strdup(name);
    if (!f->name) {
        sim_handle_free(f);
        return NULL;
    }
    f->module = owner;
    f->ns = duration_of(name);
    f->pair = pair_of(name);
    f->attributes[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK] = 1024;
    f->attributes[CU_FUNC_ATTRIBUTE_NUM_REGS] = 32;
    f->attributes[CU_FUNC_ATTRIBUTE_PTX_VERSION] = 90;
    f->attributes[CU_FUNC_ATTRIBUTE_BINARY_VERSION] = 90;
    f->attributes[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES] = 49152;
    f->block[0] = f->block[1] = f->block[2] = 1;
    return f;
}

CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
    struct sim_ctx *ctx;
    struct sim_module *m;
    struct sim_function *f;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!hfunc || !name || !*name)
        return CUDA_ERROR_INVALID_VALUE;
    m = sim_handle_find(hmod, SIM_MODULE);
    if (!m)
        return CUDA_ERROR_INVALID_HANDLE;
    f = named(SIM_FUNCTION, m->head.ctx, m, name);
    if (!f)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *hfunc = (CUfunction)f;
    return CUDA_SUCCESS;
}

static CUresult global(struct sim_module *m, const char *name, uint64_t *base)
{
    struct sim_mem *mem;
    struct global *g;
    CUresult r;

    for (g = globals; g; g = g->next)
        if (g->owner == m && strcmp(g->name, name) == 0) {
            *base = g->base;
            return CUDA_SUCCESS;
        }
    g = malloc(sizeof(*g) + strlen(name) + 1);
    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = sim_mem_alloc(m->head.ctx, GLOBAL_BYTES, false, SIM_MEM_DEVICE, &mem);
    if (r != CUDA_SUCCESS) {
        free(g);
        return r;
    }
    mem->kind = SIM_MEM_GLOBAL;
    strcpy(g->name, name);
    g->owner = m;
    g->base = *base = mem->base;
    g->next = globals;
    globals = g;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
    struct sim_ctx *ctx;
    struct sim_module *m;
    uint64_t base;
    CUresult r;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    m = sim_handle_find(hmod, SIM_MODULE);
    if (!m)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!name || (!dptr && !bytes))
        return CUDA_ERROR_INVALID_VALUE;
    r = global(m, name, &base);
    if (r != CUDA_SUCCESS)
        return r;
    if (dptr)
        *dptr = base;
    if (bytes)
        *bytes = GLOBAL_BYTES;
    return CUDA_SUCCESS;
}

static struct sim_module *library_module(struct sim_library *l, struct sim_ctx *ctx)
{
    struct sim_module *m;

    for (m = sim_handle_first(SIM_MODULE, ctx); m; m = sim_handle_next(m))
        if (m->library == l)
            return m;
    return module_new(ctx, l, &m) == CUDA_SUCCESS ? m : NULL;
}

bool sim_libraries_load(struct sim_ctx *ctx)
{
    for (struct sim_library *l = sim_handle_first(SIM_LIBRARY, NULL); l && eager(); l = sim_handle_next(l))
        if (!library_module(l, ctx))
            return false;
    return true;
}

static void library_free(struct sim_library *l)
{
    struct sim_function *f, *next;

    for (struct sim_ctx *c = sim_context_next(NULL); c; c = sim_context_next(c)) {
        struct sim_module *m, *after;

        for (m = sim_handle_first(SIM_MODULE, c); m; m = after) {
            after = sim_handle_next(m);
            if (m->library == l)
                module_free(m);
        }
    }
    for (f = sim_handle_first(SIM_KERNEL, NULL); f; f = next) {
        next = sim_handle_next(f);
        if ((void *)f->module == l)
            function_free(f);
    }
    sim_handle_free(l);
}

/* Lazy: into no context before something of it is needed there. Eager: into all of them, the ones to come included. */
static CUresult library_load(CUlibrary *library, const void *code, bool options_missing)
{
    struct sim_library *l;
    SIM_GUARD();

    if (!library || !code || options_missing)
        return CUDA_ERROR_INVALID_VALUE;
    l = sim_handle_new(sizeof(*l), SIM_LIBRARY, NULL);
    if (!l)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (struct sim_ctx *c = sim_context_next(NULL); c && eager(); c = sim_context_next(c))
        if (!library_module(l, c)) {
            library_free(l);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
    *library = (CUlibrary)l;
    return CUDA_SUCCESS;
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jitOptions, void **jitOptionsValues,
                           unsigned int numJitOptions, CUlibraryOption *libraryOptions, void **libraryOptionValues,
                           unsigned int numLibraryOptions)
{
    ENTER();
    (void)jitOptionsValues;
    (void)libraryOptionValues;
    return library_load(library, code, (numJitOptions && !jitOptions) || (numLibraryOptions && !libraryOptions));
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *fileName, CUjit_option *jitOptions, void **jitOptionsValues,
                               unsigned int numJitOptions, CUlibraryOption *libraryOptions, void **libraryOptionValues,
                               unsigned int numLibraryOptions)
{
    ENTER();
    (void)jitOptionsValues;
    (void)libraryOptionValues;
    if (!fileName)
        return CUDA_ERROR_INVALID_VALUE;
    if (access(fileName, R_OK) < 0)
        return CUDA_ERROR_FILE_NOT_FOUND;
    return library_load(library, fileName, (numJitOptions && !jitOptions) || (numLibraryOptions && !libraryOptions));
}

CUresult cuLibraryUnload(CUlibrary library)
{
    struct sim_library *l;

    ENTER();
    SIM_GUARD();
    l = sim_handle_find(library, SIM_LIBRARY);
    if (!l)
        return CUDA_ERROR_INVALID_HANDLE;
    library_free(l);
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetModule(CUmodule *pMod, CUlibrary library)
{
    struct sim_ctx *ctx;
    struct sim_library *l;
    struct sim_module *m;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!pMod)
        return CUDA_ERROR_INVALID_VALUE;
    l = sim_handle_find(library, SIM_LIBRARY);
    if (!l)
        return CUDA_ERROR_INVALID_HANDLE;
    m = library_module(l, ctx);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *pMod = (CUmodule)m;
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel *pKernel, CUlibrary library, const char *name)
{
    struct sim_library *l;
    struct sim_function *f;

    ENTER();
    SIM_GUARD();
    if (!pKernel || !name || !*name)
        return CUDA_ERROR_INVALID_VALUE;
    l = sim_handle_find(library, SIM_LIBRARY);
    if (!l)
        return CUDA_ERROR_INVALID_HANDLE;
    f = named(SIM_KERNEL, NULL, l, name);
    if (!f)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *pKernel = (CUkernel)f;
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
    struct sim_ctx *ctx;
    struct sim_library *l;
    struct sim_module *m;
    uint64_t base;
    CUresult r;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    l = sim_handle_find(library, SIM_LIBRARY);
    if (!l)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!name || (!dptr && !bytes))
        return CUDA_ERROR_INVALID_VALUE;
    m = library_module(l, ctx);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = global(m, name, &base);
    if (r != CUDA_SUCCESS)
        return r;
    if (dptr)
        *dptr = base;
    if (bytes)
        *bytes = GLOBAL_BYTES;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetFunction(CUfunction *pFunc, CUkernel kernel)
{
    struct sim_ctx *ctx;
    struct sim_function *k, *f;
    struct sim_module *m;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!pFunc)
        return CUDA_ERROR_INVALID_VALUE;
    k = sim_handle_find(kernel, SIM_KERNEL);
    if (!k)
        return CUDA_ERROR_INVALID_HANDLE;
    m = library_module((struct sim_library *)(void *)k->module, ctx);
    f = m ? named(SIM_FUNCTION, ctx, m, k->name) : NULL;
    if (!f)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *pFunc = (CUfunction)f;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetLibrary(CUlibrary *pLib, CUkernel kernel)
{
    struct sim_function *k;

    ENTER();
    SIM_GUARD();
    if (!pLib)
        return CUDA_ERROR_INVALID_VALUE;
    k = sim_handle_find(kernel, SIM_KERNEL);
    if (!k)
        return CUDA_ERROR_INVALID_HANDLE;
    *pLib = (CUlibrary)k->module;
    return CUDA_SUCCESS;
}

struct sim_function *sim_function_of(CUfunction handle)
{
    struct sim_function *f = sim_handle_find(handle, SIM_FUNCTION);

    return f ? f : sim_handle_find(handle, SIM_KERNEL);
}

CUresult sim_function_load(struct sim_function *f, struct sim_ctx *ctx)
{
    if (f->head.kind == SIM_KERNEL) {
        struct sim_module *m = library_module((struct sim_library *)(void *)f->module, ctx);

        f = m ? named(SIM_FUNCTION, ctx, m, f->name) : NULL;
        if (!f)
            return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (!f->loaded && !eager()) {
        uint64_t bytes = taken("SOFTSIM_LAZY_BYTES", 4);

        if (!sim_hbm_take(f->head.ctx->dev, bytes))
            return CUDA_ERROR_OUT_OF_MEMORY;
        f->charged = bytes;
    }
    f->loaded = true;
    return CUDA_SUCCESS;
}
