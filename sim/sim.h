/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the simulated driver say to each other. Names beginning with cu are ELF names, versions spelled out.
 *
 * How a driver function is written:
 *
 *     CUresult cuMemFree_v2(CUdeviceptr dptr)
 *     {
 *         struct sim_ctx *ctx;
 *
 *         ENTER();             life cycle, failure injection, tracing: every exported function begins with it
 *         SIM_GUARD();         the process' one lock, given back on return
 *         CONTEXT(ctx);        the current context, or the error that the driver gives without one
 *         ...
 *     }
 *
 * Functions named sim_* that take or return objects are called with the lock held unless they say otherwise. The machine's lock
 * (shared.h) nests inside it and is never held across anything that waits. Objects are found by sim_handle_*, which knows every
 * handle given out and not yet destroyed, so that a stale or foreign handle is an error and not a crash. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#define __CUDA_API_VERSION_INTERNAL        1
#define __CUDA_API_VERSION_INTERNAL_ODR    1
#define __CUDA_API_PUSH_VISIBILITY_DEFAULT 1
#include <pthread.h>
#include <cuda.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "shared.h"

#define SIM_ARRAY_SIZE(a)     (sizeof(a) / sizeof((a)[0]))
#define SIM_MAX_STACK         64
#define SIM_STREAM_ATTRIBUTES 20 /* more than cuda.h has ids for */

struct sim_engine;
struct sim_stream;
struct sim_pool;
struct sim_capture;
struct sim_node;
struct sim_op;

/* ---- life cycle (init.c) ------------------------------------------------------------------------------------------------- */

/* What cuInit leaves behind. In a forked child it reads as zeros. */
struct sim_driver {
    struct sim_machine *machine;
    int row;                           /* of this process in the machine */
    int devices;                       /* visible ones */
    unsigned int gpu_of[SIM_MAX_GPUS]; /* CUdevice -> GPU of the machine */
    uint64_t limit[SIM_MAX_GPUS];      /* CUdevice -> the most HBM that this MPS client may have */
    uint64_t budget;                   /* HBM of a device above which the process is notified */
    bool ready;
};
extern struct sim_driver *sim;

/* NOT_INITIALIZED, DEINITIALIZED, or the failure that SOFTSIM_FAIL asks for. `before_init`: the function needs no cuInit. */
CUresult sim_enter(const char *function, bool before_init);
#define ENTER()                                                                                                                    \
    do {                                                                                                                           \
        CUresult enter_ = sim_enter(__func__, false);                                                                              \
        if (enter_ != CUDA_SUCCESS)                                                                                                \
            return enter_;                                                                                                         \
    } while (0)
#define ENTER_EARLY()                                                                                                              \
    do {                                                                                                                           \
        CUresult enter_ = sim_enter(__func__, true);                                                                               \
        if (enter_ != CUDA_SUCCESS)                                                                                                \
            return enter_;                                                                                                         \
    } while (0)

/* Around the program's code that the driver calls: it may not call the driver (CUDA_ERROR_NOT_PERMITTED). */
void sim_callback_begin(void);
void sim_callback_end(void);

void sim_lock(void);
void sim_unlock(void);

/* For the rest of a function. A thread that is cancelled in it would keep the lock for ever. */
static inline int sim_guard_begin(void)
{
    int cancel;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    sim_lock();
    return cancel;
}
static inline void sim_guard_end(int *guard)
{
    sim_unlock();
    pthread_setcancelstate(*guard, NULL);
}
#define SIM_GUARD() __attribute__((cleanup(sim_guard_end), unused)) int guard_ = sim_guard_begin()

int sim_driver_version(void);

/* ---- handles (handle.c) -------------------------------------------------------------------------------------------------- */

enum sim_kind {
    SIM_STREAM = 1,
    SIM_EVENT,
    SIM_MODULE,
    SIM_FUNCTION,
    SIM_LIBRARY,
    SIM_KERNEL,
    SIM_GRAPH,
    SIM_GRAPH_NODE,
    SIM_GRAPH_EXEC,
    SIM_POOL,
    SIM_ARRAY,
    SIM_MIPMAP,
    SIM_PHYS, /* cuMemCreate */
    SIM_GREEN,
    SIM_RESOURCE,
    SIM_LINK,
    SIM_USER_OBJECT,
    SIM_EXTERNAL,
    SIM_NOTIFICATION,
    SIM_CONDITION,
};

/* Every object begins with this. */
struct sim_object_head {
    enum sim_kind kind;
    struct sim_ctx *ctx; /* dies with it; NULL: belongs to the process */
    struct sim_object_head *next, *prev;
};

/* Zeroed memory for an object of `kind`, known to sim_handle_find from now on. NULL: no memory. */
void *sim_handle_new(size_t size, enum sim_kind kind, struct sim_ctx *ctx);
/* The object, or NULL when `handle` is none of that kind. */
void *sim_handle_find(const void *handle, enum sim_kind kind);
void sim_handle_free(void *object);
/* Any object of `kind` in `ctx`, or NULL; for tearing a context down. */
void *sim_handle_first(enum sim_kind kind, const struct sim_ctx *ctx);
void *sim_handle_next(void *object);

/* ---- contexts (context.c) ------------------------------------------------------------------------------------------------ */

struct sim_ctx {
    struct sim_ctx *next;
    int dev;
    unsigned int flags;
    unsigned int api_version;
    uint64_t id;
    bool primary; /* or a green context's: not for cuCtxDestroy */
    bool green;
    uint64_t user; /* of a green one, the thread that it is current to, and how often; atomic */
    uint32_t uses;
    bool destroyed;
    unsigned int attached; /* cuCtxAttach */
    struct sim_slab *slabs;
    struct sim_stream *legacy;
    struct sim_stream *streams; /* all of them, the legacy one included */
    uint64_t blocking_mark;     /* the last mark of any blocking stream */
    uint64_t own;               /* HBM beyond what the first context of a process takes */
    uint64_t limits_bytes;      /* HBM for limits above their defaults */
    size_t limits[CU_LIMIT_MAX];
    CUfunc_cache cache_config;
    CUsharedconfig shared_config;
    bool peer[SIM_MAX_GPUS];
};

/* INVALID_CONTEXT or CONTEXT_IS_DESTROYED instead of a context. */
CUresult sim_context_current(struct sim_ctx **ctx);
#define CONTEXT(ctx)                                                                                                               \
    do {                                                                                                                           \
        CUresult context_ = sim_context_current(&(ctx));                                                                           \
        if (context_ != CUDA_SUCCESS)                                                                                              \
            return context_;                                                                                                       \
    } while (0)
/* `handle`, or the current context when it is NULL. */
CUresult sim_context_of(CUcontext handle, struct sim_ctx **ctx);
/* A context for objects of a device that belong to no particular one: the current one if on `dev`, else any live one, else NULL. */
struct sim_ctx *sim_context_on(int dev);
/* A context that is nowhere current, a green context's or one of its own; NULL: no memory. */
struct sim_ctx *sim_context_new(int dev, unsigned int flags, unsigned int api_version, bool green);
extern const size_t sim_limit_default[CU_LIMIT_MAX];
/* Waits for its work and frees all that lives in it; the handle stays known as destroyed. Drops the lock meanwhile. */
void sim_context_destroy(struct sim_ctx *ctx);
CUresult sim_primary_retain(CUcontext *ctx, CUdevice dev);
/* The primary context under a green one; else the context itself. */
struct sim_ctx *sim_context_base(struct sim_ctx *ctx);
CUgreenCtx sim_green_of(const struct sim_ctx *ctx); /* NULL: it is none's */
CUresult sim_primary_release(CUdevice dev);
/* Walks the contexts that live. */
struct sim_ctx *sim_context_next(struct sim_ctx *after);
bool sim_device_valid(CUdevice dev);
static inline unsigned int sim_gpu(int dev)
{
    return sim->gpu_of[dev];
}
static inline struct sim_client *sim_client(int dev)
{
    return &sim->machine->proc[sim->row].client[sim_gpu(dev)];
}
/* The owner of per-thread state; never 0. */
uint64_t sim_thread_id(void);

/* ---- memory (memory.c) --------------------------------------------------------------------------------------------------- */

enum sim_mem_kind {
    SIM_MEM_DEVICE,
    SIM_MEM_MANAGED,
    SIM_MEM_HOST,       /* cuMemAllocHost, cuMemHostAlloc */
    SIM_MEM_REGISTERED, /* cuMemHostRegister */
    SIM_MEM_GLOBAL,     /* a module's variable */
    SIM_MEM_POOL,       /* stream-ordered */
    SIM_MEM_MAPPED,     /* cuMemMap */
    SIM_MEM_IPC,        /* opened, not owned */
    SIM_MEM_GRAPH,      /* allocation node */
    SIM_MEM_ARRAY,      /* its address is told to nobody */
    SIM_MEM_EXTERNAL,   /* mapped from imported external memory */
};

/* One allocation: a range of addresses that means something to this process. */
struct sim_mem {
    uint64_t base;
    uint64_t size;     /* what was asked for */
    uint64_t reserved; /* addresses reserved at `base`; 0: not ours to unmap */
    uint64_t charged;  /* HBM bytes of its own (slab memory: 0, the slab has it) */
    enum sim_mem_kind kind;
    int dev;
    unsigned int flags;
    unsigned char *bytes; /* where the data is; NULL until first touched */
    bool bytes_mapped;    /* `bytes` is a mapping of our own of `reserved` bytes */
    uint64_t id;
    struct sim_ctx *ctx; /* NULL: survives its context */
    struct sim_slab *slab;
    void *owner;     /* pool, VMM handle or places of pages, by kind */
    uint64_t aux;    /* POOL: bytes of the pool; GRAPH: nodes that know it; IPC: times opened */
    uint64_t object; /* id of the machine's object that has the HBM and the bytes; 0: none */
    struct sim_mem *next, *prev;
};

/* The process has `bytes` more HBM on a device than its budget: whoever registered for that is told, on another thread (notify.c). */
void sim_notify(int dev, uint64_t bytes);
/* Take HBM on a device for this process; false: it is full. */
bool sim_hbm_take(int dev, uint64_t bytes);
void sim_hbm_give(int dev, uint64_t bytes);
void sim_hbm_info(int dev, uint64_t *free_bytes, uint64_t *total);
uint64_t sim_round_up(uint64_t value, uint64_t to);
uint64_t sim_granularity(void);

/* A record of `size` bytes at `base`, or at fresh addresses (PROT_NONE, aligned to the granularity) if `base` is 0. */
struct sim_mem *sim_mem_new(enum sim_mem_kind kind, int dev, struct sim_ctx *ctx, uint64_t base, uint64_t size);
/* The allocation that holds `address`, or NULL. */
struct sim_mem *sim_mem_find(uint64_t address);
/* Walks all records, in no order. */
struct sim_mem *sim_mem_next(struct sim_mem *after);
/* Forget it: unmap its addresses and bytes, give back its HBM. */
void sim_mem_free(struct sim_mem *mem);
/* Plain device memory as cuMemAlloc takes it. `low`: addresses below 4 GiB, for the first ABI. */
CUresult sim_mem_alloc(struct sim_ctx *ctx, uint64_t size, bool low, enum sim_mem_kind kind, struct sim_mem **out);
/* Managed memory (resident.c): the effect of an op that prefetches copy.width bytes at copy.dst to the device copy.value - 1, or to the host
 * when that is 0. */
void sim_prefetch_run(struct sim_op *op);
void sim_resident_free(struct sim_mem *mem);
/* The device, or CU_DEVICE_CPU, that all of a range of managed memory was last prefetched to; CU_DEVICE_INVALID: to none, or to several. */
int sim_prefetched_to(const struct sim_mem *mem, uint64_t offset, uint64_t size);
/* Where the data of [address, address + size) is; host addresses stand for themselves. NULL: not ours, or out of bounds. */
unsigned char *sim_mem_bytes(uint64_t address, uint64_t size);
/* The bytes of VMM memory (vmm.c); NULL: no memory for them. */
unsigned char *sim_phys_bytes(struct sim_mem *mem);
/* An object of `size` bytes that others can hold; 0: not possible. `counted`: HBM that this process was charged for becomes the object's,
 * or else the object is only a way to the bytes, and its size reads as 0. */
uint64_t sim_share(int dev, uint64_t size, bool counted);
/* A descriptor of the object's file for other processes, or -1; and the object that one is of, or 0. */
int sim_share_export(uint64_t object);
uint64_t sim_share_id(int fd);
/* A record of `size` bytes of an object beginning at `from`, which has its bytes; it takes over one hold on the object. NULL on failure,
 * which leaves the hold. */
struct sim_mem *sim_share_mem(enum sim_mem_kind kind, int dev, struct sim_ctx *ctx, uint64_t object, uint64_t from, uint64_t size);
/* A mapping of an object's bytes; NULL on failure. */
unsigned char *sim_share_map(uint64_t object, uint64_t from, uint64_t size);
/* Hold an object of another process; false: it is gone. */
bool sim_share_hold(uint64_t object, uint64_t *size, int *dev);
void sim_share_drop(uint64_t object);
/* Free everything that lives in `ctx`. */
void sim_mem_free_context(struct sim_ctx *ctx);

/* ---- work (engine.c, stream.c) ------------------------------------------------------------------------------------------- */

enum sim_op_type {
    SIM_OP_KERNEL,
    SIM_OP_COPY,     /* run(): moves bytes, takes ns */
    SIM_OP_RECORD,   /* event */
    SIM_OP_WAIT,     /* event */
    SIM_OP_HOST,     /* call */
    SIM_OP_CALLBACK, /* callback */
    SIM_OP_EMPTY,
    SIM_OP_ALLOC, /* run(): of a graph */
    SIM_OP_FREE,  /* run(): gives memory back */
    SIM_OP_GRAPH,
    SIM_OP_WAIT_VALUE,
};

struct sim_copy {
    uint64_t dst, src; /* addresses; src unused for memset */
    uint64_t dst_pitch, src_pitch, dst_slice, src_slice;
    uint64_t width, height, depth;
    uint32_t value;
    uint8_t element; /* memset: 1, 2 or 4; copy: 0 */
};

/* One piece of work in a stream, or the payload of a graph node. */
struct sim_op {
    enum sim_op_type type;
    uint64_t ns;   /* GPU time */
    uint64_t gate; /* it starts together with another GPU's of the same key; 0: by itself */
    struct sim_event *event;
    uint64_t event_record; /* WAIT: which record of the event */
    CUhostFn host;
    CUstreamCallback callback;
    void *data;
    void (*run)(struct sim_op *op); /* effect on memory, at issue; lock held */
    struct sim_copy copy;
    uint64_t seq;
    struct sim_stream *stream;
    struct sim_op *next;
};

/* The GPU as one context's process sees it: work is issued in order, one piece at a time, and counted in nanoseconds of GPU time.
 * A "mark" is a point on that count; everything up to it is done when the machine has served that much. */

/* Hand `ns` of work to a device, which begins behind a gate where that is not 0; returns the mark at its end. */
uint64_t sim_engine_submit(int dev, uint64_t ns, uint64_t gate);
/* The same at an earlier place: what was handed in and ends after that ends later by so much. Whoever keeps a mark moves it. */
void sim_engine_insert(int dev, uint64_t place, uint64_t ns);
/* The launch queue: the mark that has to be served before a launch may be handed in, or 0; and a launch whose end is `mark` was. */
uint64_t sim_engine_wait(int dev);
void sim_engine_launched(int dev, uint64_t mark);
/* What a call takes of the host's time, in virtual time alone. Called without the lock. */
enum sim_cost { SIM_COST_LAUNCH, SIM_COST_RECORD, SIM_COST_WAKE, SIM_COSTS };
void sim_spend(enum sim_cost cost, unsigned int times);
/* GPU time served so far. */
uint64_t sim_engine_served(int dev);
/* Wall time at which `mark` (served already) was reached. */
uint64_t sim_engine_time_of(int dev, uint64_t mark);
/* Whether `mark` is not served yet, and how long it cannot be before it is. */
bool sim_engine_left(int dev, uint64_t mark, uint64_t *ns);
/* Sleep until `mark` may be served, at most 5 ms; drops the lock while it sleeps. */
void sim_engine_sleep(int dev, uint64_t mark);

struct sim_stream {
    struct sim_object_head head;
    unsigned int flags;
    int priority;
    uint64_t id;
    uint64_t mark;               /* end of what was issued */
    struct sim_op *first, *last; /* not issued yet: waits behind a host function */
    bool busy;                   /* its first op runs on the host now */
    struct sim_capture *capture;
    struct sim_node **capture_nodes; /* what the next captured node comes after */
    size_t capture_count;
    bool destroyed;             /* destroyed with work left */
    struct sim_stream *sibling; /* next of its context */
    CUstreamAttrValue attributes[SIM_STREAM_ATTRIBUTES];
    uint64_t thread; /* per-thread default stream of that thread */
};

struct sim_event {
    struct sim_object_head head;
    unsigned int flags;
    int dev;
    uint64_t record;             /* counts cuEventRecord calls */
    uint64_t issued;             /* the last of them that was issued */
    uint64_t mark;               /* its place */
    uint64_t time_ns;            /* when it was reached; 0: not yet known */
    struct sim_capture *capture; /* recorded in a capturing stream: */
    struct sim_node **capture_nodes;
    size_t capture_count;
    struct sim_event *pending_next;
    bool pending;
};

/* The stream behind a handle: NULL and the two special values by `per_thread`; NULL result: CUDA_ERROR_INVALID_HANDLE. */
CUresult sim_stream_of(CUstream handle, bool per_thread, struct sim_stream **stream);
#define STREAM(stream, handle, per_thread)                                                                                         \
    do {                                                                                                                           \
        CUresult stream_ = sim_stream_of((handle), (per_thread), &(stream));                                                       \
        if (stream_ != CUDA_SUCCESS)                                                                                               \
            return stream_;                                                                                                        \
    } while (0)

/* Do `op` in `stream`: now, behind what it must wait for, or as a node of the graph that the stream captures into. `params` is what
 * the node answers later (see graph.h); copied. */
CUresult sim_stream_submit(struct sim_stream *stream, const struct sim_op *op, const void *params);
/* The same without looking at capture. */
CUresult sim_stream_issue(struct sim_stream *stream, const struct sim_op *op);
/* Issue what no longer has to wait, in all streams. */
void sim_stream_pump(void);
struct sim_stream *sim_stream_new(struct sim_ctx *ctx, unsigned int flags, int priority);
/* The handle is dead at once, the stream when its work is issued. */
void sim_stream_destroy(struct sim_stream *stream);
bool sim_stream_done(struct sim_stream *stream);
/* Wait until everything in the stream, or in all streams of the context, is done. Drops the lock. */
void sim_stream_wait(struct sim_stream *stream);
void sim_context_wait(struct sim_ctx *ctx);
/* Give host code a moment: drops the lock for 100 us. */
void sim_stream_poll(void);
bool sim_context_done(struct sim_ctx *ctx);
void sim_streams_free_context(struct sim_ctx *ctx);
/* Learn the times of events that were reached. */
void sim_events_settle(void);
/* Before an event is freed. */
void sim_event_forget(struct sim_event *event);
void sim_modules_free_context(struct sim_ctx *ctx);
/* Eager loading: every library into a new context; false: there is no room for one. */
bool sim_libraries_load(struct sim_ctx *ctx);
void sim_arrays_free_context(struct sim_ctx *ctx);
/* The driver's thread: holds the life of the process, runs host functions. */
void *sim_worker(void *arg);
void sim_worker_wake(void);

/* ---- capture (capture.c) ------------------------------------------------------------------------------------------------- */

/* CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, and the captures invalidated, when a call that is unsafe during capture is made during one. */
CUresult sim_capture_unsafe(void);
#define UNSAFE_IN_CAPTURE()                                                                                                        \
    do {                                                                                                                           \
        CUresult unsafe_ = sim_capture_unsafe();                                                                                   \
        if (unsafe_ != CUDA_SUCCESS)                                                                                               \
            return unsafe_;                                                                                                        \
    } while (0)
/* For calls that take the stream itself, such as cuStreamSynchronize: an error when it captures, which is then invalidated. */
CUresult sim_capture_forbid(struct sim_stream *stream);
CUresult sim_capture_add(struct sim_stream *stream, const struct sim_op *op, const void *params);
/* Work for the legacy stream while a blocking stream captures would order the two: an error, and the capture is invalidated. */
CUresult sim_capture_implicit(struct sim_stream *stream);
/* Wait for an event in a stream when at least one of them is capturing. */
CUresult sim_capture_wait(struct sim_stream *stream, struct sim_event *event, unsigned int flags);
/* Record an event in a stream that captures. */
CUresult sim_capture_record(struct sim_stream *stream, struct sim_event *event, unsigned int flags);
/* The event is recorded anew or destroyed: it is in no capture any more. */
void sim_event_uncapture(struct sim_event *event);
/* A stream is going away. */
void sim_capture_leave(struct sim_stream *stream);

/* ---- functions (module.c) ------------------------------------------------------------------------------------------------ */

struct sim_function {
    struct sim_object_head head;
    struct sim_module *module;
    char *name;
    uint64_t ns;       /* how long a launch takes */
    uint64_t pair;     /* launches meet those of the same key on another GPU, one by one; 0: they do not */
    uint64_t launches; /* counted where they do */
    int attributes[CU_FUNC_ATTRIBUTE_MAX];
    int block[3];
    bool loaded;
    uint64_t charged; /* HBM since it was loaded */
};
/* Lazy loading: a function's first use in a context takes HBM for it. A kernel is its library's function in `ctx`. */
CUresult sim_function_load(struct sim_function *f, struct sim_ctx *ctx);
/* INVALID_VALUE for a grid or block that no device can run. */
CUresult sim_kernel_check(const CUDA_KERNEL_NODE_PARAMS *params);

/* Whether a launch returns when its work is done: CUDA_LAUNCH_BLOCKING. */
bool sim_launch_blocks(void);
/* A CUfunction, or a CUkernel in its place. */
struct sim_function *sim_function_of(CUfunction handle);

/* ---- pools (pool.c) ------------------------------------------------------------------------------------------------------ */

/* A stream, an event or a context was synchronised: pools give back what exceeds their release threshold. */
void sim_pools_synchronised(void);
/* cuMemFree on memory of a pool. */
CUresult sim_pool_free(struct sim_mem *mem);
/* cuMemFree on memory of a graph's allocation node. */
CUresult sim_graph_mem_free(struct sim_mem *mem);

#endif
