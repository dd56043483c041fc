/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: the stack of each thread, creation and destruction, the primary context of each device. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define API_V1 3010
#define API_V2 3020
#define FLAGS_KNOWN                                                                                                                \
    (CU_CTX_SCHED_MASK | CU_CTX_MAP_HOST | CU_CTX_LMEM_RESIZE_TO_MAX | CU_CTX_COREDUMP_ENABLE | CU_CTX_USER_COREDUMP_ENABLE |      \
     CU_CTX_SYNC_MEMOPS)

/* Every context ever made: a destroyed one stays, so that its handle is told from one that never was. */
static struct sim_ctx *contexts;

static struct {
    struct sim_ctx *ctx;
    unsigned int retained;
    unsigned int flags;
} primary[SIM_MAX_GPUS];

static __thread struct {
    struct sim_ctx *item[SIM_MAX_STACK];
    unsigned int depth;
} stack;

static __thread uint64_t thread_id;

uint64_t sim_thread_id(void)
{
    static uint64_t last;

    if (!thread_id)
        thread_id = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
    return thread_id;
}

static struct sim_ctx *find(CUcontext handle)
{
    for (struct sim_ctx *c = contexts; c; c = c->next)
        if ((CUcontext)c == handle)
            return c;
    return NULL;
}

CUresult sim_context_current(struct sim_ctx **ctx)
{
    struct sim_ctx *top = stack.depth ? stack.item[stack.depth - 1] : NULL;

    if (!top)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (top->destroyed)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *ctx = top;
    return CUDA_SUCCESS;
}

CUresult sim_context_of(CUcontext handle, struct sim_ctx **ctx)
{
    if (!handle)
        return sim_context_current(ctx);
    *ctx = find(handle);
    if (!*ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    return (*ctx)->destroyed ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_SUCCESS;
}

struct sim_ctx *sim_context_on(int dev)
{
    struct sim_ctx *c;

    if (sim_context_current(&c) == CUDA_SUCCESS && c->dev == dev)
        return c;
    for (c = contexts; c; c = c->next)
        if (!c->destroyed && c->dev == dev)
            return c;
    return NULL;
}

/* The first context of a process on a GPU takes HBM for all; the machine keeps count, so that it goes with the process. A further one,
 * and a green one, takes what the environment says. */
static bool context_charge(int dev, bool green, uint64_t *own)
{
    struct sim_client *client = sim_client(dev);

    *own = 0;
    if (!client->contexts) {
        if (!sim_hbm_take(dev, sim->machine->set.context_bytes))
            return false;
    } else {
        *own = sim_round_up(sim_env_number(green ? "SOFTSIM_GREEN_BYTES" : "SOFTSIM_FURTHER_CONTEXT_BYTES", 0), sim_granularity());
        if (!sim_hbm_take(dev, *own))
            return false;
    }
    sim_machine_lock(sim->machine);
    client->contexts++;
    sim_machine_unlock(sim->machine);
    return true;
}

static void context_refund(int dev)
{
    struct sim_client *client = sim_client(dev);

    sim_machine_lock(sim->machine);
    client->contexts--;
    if (!client->contexts)
        client->used -= sim->machine->set.context_bytes;
    sim_machine_unlock(sim->machine);
}

struct sim_ctx *sim_context_new(int dev, unsigned int flags, unsigned int api_version, bool green)
{
    static uint64_t last_id;
    struct sim_ctx *c;
    uint64_t own;

    if (!context_charge(dev, green, &own))
        return NULL;
    c = calloc(1, sizeof(*c));
    if (!c) {
        sim_hbm_give(dev, own);
        context_refund(dev);
        return NULL;
    }
    c->own = own;
    c->dev = dev;
    c->flags = flags;
    c->api_version = api_version;
    c->green = green;
    c->id = ++last_id;
    memcpy(c->limits, sim_limit_default, sizeof(c->limits));
    c->next = contexts;
    contexts = c;
    if (!sim_libraries_load(c)) {
        sim_context_destroy(c);
        return NULL;
    }
    return c;
}

void sim_context_destroy(struct sim_ctx *c)
{
    sim_context_wait(c);
    if (c->destroyed)
        return;
    c->destroyed = true;
    sim_streams_free_context(c);
    sim_modules_free_context(c);
    sim_arrays_free_context(c);
    sim_mem_free_context(c);
    sim_hbm_give(c->dev, c->own + c->limits_bytes);
    context_refund(c->dev);
}

struct sim_ctx *sim_context_base(struct sim_ctx *ctx)
{
    return ctx->green ? primary[ctx->dev].ctx : ctx;
}

/* "A green context can be current to only one thread at a time": what another one is told is assumed. Lock held. */
static bool use(struct sim_ctx *c)
{
    if (!c->green)
        return true;
    if (__atomic_load_n(&c->uses, __ATOMIC_ACQUIRE) && __atomic_load_n(&c->user, __ATOMIC_RELAXED) != sim_thread_id())
        return false;
    __atomic_store_n(&c->user, sim_thread_id(), __ATOMIC_RELAXED);
    __atomic_add_fetch(&c->uses, 1, __ATOMIC_RELEASE);
    return true;
}

static void unuse(struct sim_ctx *c)
{
    if (c->green)
        __atomic_sub_fetch(&c->uses, 1, __ATOMIC_RELEASE);
}

static CUresult push(struct sim_ctx *c)
{
    if (stack.depth == SIM_MAX_STACK)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!use(c))
        return CUDA_ERROR_INVALID_CONTEXT;
    stack.item[stack.depth++] = c;
    return CUDA_SUCCESS;
}

static CUresult create(CUcontext *pctx, unsigned int flags, CUdevice dev, unsigned int api_version)
{
    struct sim_ctx *c;
    SIM_GUARD();

    if (!pctx || (flags & ~(unsigned int)FLAGS_KNOWN))
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (stack.depth == SIM_MAX_STACK)
        return CUDA_ERROR_OUT_OF_MEMORY;
    c = sim_context_new(dev, flags, api_version, false);
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *pctx = (CUcontext)c;
    return push(c);
}

CUresult cuCtxCreate(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    ENTER();
    return create(pctx, flags, dev, API_V1);
}

CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    ENTER();
    return create(pctx, flags, dev, API_V2);
}

CUresult cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned int flags, CUdevice dev)
{
    ENTER();
    if (numParams < 0 || (numParams && !paramsArray))
        return CUDA_ERROR_INVALID_VALUE;
    if (numParams)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    return create(pctx, flags, dev, API_V2);
}

CUresult cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned int flags, CUdevice dev)
{
    ENTER();
    if (ctxCreateParams && ctxCreateParams->numExecAffinityParams)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    if (ctxCreateParams && ctxCreateParams->cigParams)
        return CUDA_ERROR_NOT_SUPPORTED;
    return create(pctx, flags, dev, API_V2);
}

static CUresult destroy(CUcontext handle)
{
    struct sim_ctx *c = NULL;
    CUresult r;
    SIM_GUARD();

    if (!handle)
        return CUDA_ERROR_INVALID_CONTEXT;
    r = sim_context_of(handle, &c);
    if (r != CUDA_SUCCESS)
        return r;
    if (c->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    sim_context_destroy(c);
    /* "If ctx is current to the calling thread then ctx will also be popped from the current thread's context stack". */
    if (stack.depth && stack.item[stack.depth - 1] == c)
        stack.depth--;
    return CUDA_SUCCESS;
}

CUresult cuCtxDestroy(CUcontext ctx)
{
    ENTER();
    return destroy(ctx);
}

CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    ENTER();
    return destroy(ctx);
}

CUresult cuCtxAttach(CUcontext *pctx, unsigned int flags)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    if (!pctx || flags)
        return CUDA_ERROR_INVALID_VALUE;
    CONTEXT(c);
    c->attached++;
    *pctx = (CUcontext)c;
    return CUDA_SUCCESS;
}

CUresult cuCtxDetach(CUcontext ctx)
{
    ENTER();
    {
        struct sim_ctx *c;
        CUresult r;
        SIM_GUARD();

        r = sim_context_of(ctx, &c);
        if (r != CUDA_SUCCESS)
            return r;
        if (c->attached) {
            c->attached--;
            return CUDA_SUCCESS;
        }
    }
    return destroy(ctx);
}

static CUresult push_current(CUcontext ctx)
{
    struct sim_ctx *c;
    CUresult r;
    SIM_GUARD();

    if (!ctx)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_context_of(ctx, &c);
    return r == CUDA_SUCCESS ? push(c) : r;
}

CUresult cuCtxPushCurrent(CUcontext ctx)
{
    ENTER();
    return push_current(ctx);
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
    ENTER();
    return push_current(ctx);
}

static CUresult pop_current(CUcontext *pctx)
{
    if (!stack.depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack.depth--;
    unuse(stack.item[stack.depth]);
    if (pctx)
        *pctx = (CUcontext)stack.item[stack.depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *pctx)
{
    ENTER();
    return pop_current(pctx);
}

CUresult cuCtxPopCurrent_v2(CUcontext *pctx)
{
    ENTER();
    return pop_current(pctx);
}

CUresult cuCtxSetCurrent(CUcontext ctx)
{
    struct sim_ctx *c;
    CUresult r;

    ENTER();
    SIM_GUARD();
    if (!ctx) {
        if (stack.depth)
            unuse(stack.item[--stack.depth]);
        return CUDA_SUCCESS;
    }
    r = sim_context_of(ctx, &c);
    if (r != CUDA_SUCCESS)
        return r;
    if (!stack.depth)
        return push(c);
    if (!use(c))
        return CUDA_ERROR_INVALID_CONTEXT;
    unuse(stack.item[stack.depth - 1]);
    stack.item[stack.depth - 1] = c;
    return CUDA_SUCCESS;
}

/* Without a context the answer is a NULL context, and success. */
CUresult cuCtxGetCurrent(CUcontext *pctx)
{
    ENTER();
    if (!pctx)
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = stack.depth ? (CUcontext)stack.item[stack.depth - 1] : NULL;
    return CUDA_SUCCESS;
}

CUresult sim_primary_retain(CUcontext *pctx, CUdevice dev)
{
    if (!pctx)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!primary[dev].ctx) {
        struct sim_ctx *c = sim_context_new(dev, primary[dev].flags, API_V2, false);

        if (!c)
            return CUDA_ERROR_OUT_OF_MEMORY;
        c->primary = true;
        primary[dev].ctx = c;
    }
    primary[dev].retained++;
    *pctx = (CUcontext)primary[dev].ctx;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    return sim_primary_retain(pctx, dev);
}

static void primary_end(CUdevice dev)
{
    struct sim_ctx *c = primary[dev].ctx;

    primary[dev].ctx = NULL;
    primary[dev].retained = 0;
    if (c)
        sim_context_destroy(c);
}

CUresult sim_primary_release(CUdevice dev)
{
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!primary[dev].retained)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!--primary[dev].retained)
        primary_end(dev);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    return sim_primary_release(dev);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    return sim_primary_release(dev);
}

static CUresult primary_reset(CUdevice dev)
{
    SIM_GUARD();

    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    primary_end(dev);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    ENTER();
    return primary_reset(dev);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    ENTER();
    return primary_reset(dev);
}

static CUresult primary_set_flags(CUdevice dev, unsigned int flags)
{
    SIM_GUARD();

    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (flags & ~(unsigned int)FLAGS_KNOWN)
        return CUDA_ERROR_INVALID_VALUE;
    primary[dev].flags = flags;
    if (primary[dev].ctx)
        primary[dev].ctx->flags = flags;
    return CUDA_SUCCESS;
}

/* The first ABI refuses while the context is active. */
CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    ENTER();
    if (sim_device_valid(dev) && primary[dev].ctx)
        return CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE;
    return primary_set_flags(dev, flags);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
    ENTER();
    return primary_set_flags(dev, flags);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
    ENTER();
    SIM_GUARD();
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = primary[dev].flags;
    *active = primary[dev].ctx != NULL;
    return CUDA_SUCCESS;
}

struct sim_ctx *sim_context_next(struct sim_ctx *after)
{
    struct sim_ctx *c = after ? after->next : contexts;

    while (c && c->destroyed)
        c = c->next;
    return c;
}
