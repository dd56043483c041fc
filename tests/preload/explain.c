/* SPDX-License-Identifier: Apache-2.0 */
/* What members say of their bytes when they are asked: by what they are for, with nothing left out or told twice, so that the sum is the ledger's and,
 * where the driver counts the same, the GPU's. And who does not answer: one that is stopped, is dead, has no context, or is a child. */
// unemulated: rests on MADV_WIPEONFORK, which the emulator does not pass to the kernel
// timeout: 200
// run: SOFTSLICE_TENANT=explain SOFTSLICE_VRAM=8GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_MODULE_BYTES=6M -- families
// run: SOFTSLICE_TENANT=explain SOFTSLICE_VRAM=8GiB SOFTSIM_CONTEXT_BYTES=301M SOFTSIM_MODULE_BYTES=6M SOFTSIM_GRANULARITY=64K -- families
// run: SOFTSLICE_TENANT=explain SOFTSLICE_VRAM=8GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_MODULE_BYTES=6M SOFTSIM_NVML=absent -- unknown
// run: SOFTSLICE_TENANT=explain SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_SPILL=host -- spilled
// run: SOFTSLICE_TENANT=explain SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_KEEP_ASLEEP=on -- asleep
// run: SOFTSLICE_TENANT=explain SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_GPUS=2 -- members
// run: SOFTSLICE_TENANT=explain SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- storm
#include <fcntl.h>
#include <pthread.h>

#include "../pool_helper.h"
#include "graph_helper.h"
#include "softslice/explain.h"
#include "vmm_helper.h"

#define PATIENCE 60000 /* ms for what takes one or two, on a machine that does much else */

static struct explain told;

static int state(void)
{
    static int directory = -1;

    if (directory < 0)
        directory = open(getenv("SOFTSLICE_STATE_DIR"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    t_check(directory >= 0, "the state directory");
    return directory;
}

/* The member `pid` of the tenant, as its ledger has it on a device. */
static struct ledger_member member(pid_t pid, unsigned device)
{
    static struct ledger_member list[16];
    static struct ledger_view view;

    t_equal(ledger_read(state(), "explain", &view), 0);
    t_check(view.devices > device, "the tenant does not know that device");
    int count = ledger_read_members(state(), "explain", view.device[device].uuid, list, 16);
    for (int i = 0; i < count; i++)
        if (list[i].pid == (uint32_t)pid)
            return list[i];
    t_fail("process %d is no member", (int)pid);
}

static uint64_t ask(void)
{
    uint64_t request;

    t_equal(ledger_ask(state(), "explain", &request), 0);
    return request;
}

static bool answers(const struct ledger_member *who, uint64_t request, uint64_t patience)
{
    for (uint64_t end = t_now_ms() + patience; t_now_ms() < end; usleep(2000))
        if (explain_read(state(), "explain", who->slot, who->since, request, &told) == 0)
            return true;
    return false;
}

static void hear(pid_t pid)
{
    struct ledger_member who = member(pid, 0);

    t_check(answers(&who, ask(), PATIENCE), "process %d does not answer", (int)pid);
    t_equal(told.pid, pid);
}

/* What this process says of its first device. */
static const struct explain_device *own(void)
{
    hear(getpid());
    t_check(told.devices, "no device");
    const struct explain_device *device = &told.device[0];

    t_check(!(device->flags & EXPLAIN_MOVING), "bytes moved in a quiet process");
    t_equal(explain_charged(device), device->committed);
    t_equal(device->committed, member(getpid(), 0).committed);
    t_equal(device->tentative, 0);
    return device;
}

static void kind_is(const struct explain_device *device, enum explain_kind kind, uint64_t count, uint64_t bytes)
{
    uint64_t in_classes = 0, counted = 0;

    t_check(device->kind[kind].all.count == count && device->kind[kind].all.bytes == bytes,
            "%s: %llu with %llu bytes, expected %llu with %llu", explain_kind_name(kind),
            (unsigned long long)device->kind[kind].all.count, (unsigned long long)device->kind[kind].all.bytes,
            (unsigned long long)count, (unsigned long long)bytes);
    for (unsigned i = 0; kind != EXPLAIN_ROUNDING && i < EXPLAIN_CLASSES; i++) {
        counted += device->kind[kind].size[i].count;
        in_classes += device->kind[kind].size[i].bytes;
    }
    if (kind != EXPLAIN_ROUNDING)
        t_check(counted == count && in_classes == bytes, "%s: the classes are not the sum", explain_kind_name(kind));
}

static uint64_t whole(uint64_t bytes)
{
    return (bytes + t_granule() - 1) / t_granule() * t_granule();
}

/* One family after the other, each by what the simulated GPU's own figure grows by. */
static void families(void)
{
    CUcontext context = t_context(0);
    uint64_t used = t_used(0);
    CUarray array, sparse, small_array[3];
    CUmipmappedArray mipmap;
    CUmemoryPool pool = t_pool(0);
    CUdeviceptr block, managed;
    CUstream stream = g_stream();
    CUgraphExec exec;
    CUmodule module;
    size_t pitch;

    const struct explain_device *device = own();
    t_equal(device->committed, used);
    kind_is(device, EXPLAIN_CONTEXT, 1, 0);
    kind_is(device, EXPLAIN_DRIVER, 1, used);
    t_check(device->flags & EXPLAIN_FIGURE, "the figure is not known");
    t_equal(device->granule, t_granule());
    t_equal(device->limit, 8 * T_GIB);

    t_check(t_alloc(5 * T_MIB + 1) && t_alloc(T_GIB + 1), "refused");
    t_cuda(cuMemAllocPitch(&block, &pitch, 5000, 3000, 4));
    device = own();
    uint64_t plain = whole(5 * T_MIB + 1) + whole(T_GIB + 1) + whole(pitch * 3000);
    kind_is(device, EXPLAIN_PLAIN, 3, plain);
    t_equal(device->kind[EXPLAIN_PLAIN].size[2].count, 2);
    t_equal(device->kind[EXPLAIN_PLAIN].size[4].count, 1);
    t_equal(device->committed, t_used(0));

    /* Small ones share granules: what is in them, and the rest. */
    for (int i = 0; i < 10; i++)
        t_check(t_alloc(1000), "refused");
    device = own();
    kind_is(device, EXPLAIN_PLAIN, 13, plain + 10000);
    t_equal(device->kind[EXPLAIN_PLAIN].size[0].bytes, 10000);
    kind_is(device, EXPLAIN_ROUNDING, 1, t_granule() - 10000);
    t_equal(device->committed, t_used(0));
    for (int i = 0; i < 3; i++)
        t_cuda(cuArrayCreate(&small_array[i], &(CUDA_ARRAY_DESCRIPTOR){64, 0, CU_AD_FORMAT_FLOAT, 4}));
    t_cuda(cuArrayCreate(&array, &(CUDA_ARRAY_DESCRIPTOR){1024, 1024, CU_AD_FORMAT_FLOAT, 4}));
    t_cuda(cuMipmappedArrayCreate(
        &mipmap, &(CUDA_ARRAY3D_DESCRIPTOR){.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4}, 3));
    t_cuda(cuArray3DCreate(&sparse, &(CUDA_ARRAY3D_DESCRIPTOR){.Width = 1024,
                                                               .Height = 1024,
                                                               .Format = CU_AD_FORMAT_FLOAT,
                                                               .NumChannels = 4,
                                                               .Flags = CUDA_ARRAY3D_SPARSE})); /* without memory */
    device = own();
    t_equal(device->kind[EXPLAIN_ARRAY].all.count, 5);
    t_equal(device->kind[EXPLAIN_ARRAY].size[0].count, 3);
    t_equal(device->kind[EXPLAIN_ARRAY].size[2].count, 2);
    t_equal(device->committed, t_used(0));

    /* A pool keeps what was freed. */
    t_keep_all(pool);
    CUdeviceptr kept = t_draw(pool, 100 * T_MIB, stream);
    t_check(kept && (block = t_draw(pool, 10 * T_MIB, stream)), "refused");
    t_cuda(cuMemFreeAsync(kept, stream));
    t_cuda(cuStreamSynchronize(stream));
    device = own();
    kind_is(device, EXPLAIN_POOL, 1, t_reserved(pool));
    t_check(device->flags & EXPLAIN_POOLS_ASKED, "the pool's use is not known");
    t_equal(device->pools_used, 10 * T_MIB);
    t_equal(device->blocks, 1);
    t_equal(device->orphaned, 0);
    t_equal(device->committed, t_used(0));

    CUdeviceptr place = t_reserve(64 * T_MIB);
    t_check(t_map(place, 0, 32 * T_MIB) && t_map(place + 32 * T_MIB, 0, 32 * T_MIB) && t_create(0, 4 * T_MIB), "refused");
    CUgraph graph = g_graph();
    CUgraphNode node = g_alloc(graph, NULL, 0, 8 * T_MIB, &kept);
    g_free(graph, node, kept);
    t_cuda(cuGraphInstantiate(&exec, graph, 0));
    t_cuda(cuGraphLaunch(exec, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuModuleLoadData(&module, "an image"));
    device = own();
    kind_is(device, EXPLAIN_VMM, 3, 68 * T_MIB);
    t_equal(device->kind[EXPLAIN_GRAPH].all.count, 1);
    t_check(device->flags & EXPLAIN_GRAPHS_ASKED && device->graphs_used == 0, "a graph's memory is not told as cached");
    /* The small arrays are charged a granule, and lie in that of the small blocks: so the rest is one less than it was. */
    t_equal(device->kind[EXPLAIN_DRIVER].all.bytes, used + 6 * T_MIB - t_granule());
    t_equal(device->committed, t_used(0));

    /* The driver counts managed memory when it is there, the ledger when it is allocated. */
    uint64_t before = t_used(0);
    t_cuda(cuMemAllocManaged(&managed, 20 * T_MIB, CU_MEM_ATTACH_GLOBAL));
    t_cuda(cuMemAllocManaged(&managed, 100, CU_MEM_ATTACH_GLOBAL));
    device = own();
    kind_is(device, EXPLAIN_MANAGED, 2, 20 * T_MIB + 100);
    t_equal(device->committed, before + 20 * T_MIB + t_granule());

    /* What outlives its pool, and a refusal. */
    t_cuda(cuMemPoolDestroy(pool));
    t_check(!t_alloc(20 * T_GIB) && !t_alloc(9 * T_GIB), "beyond the budget");
    device = own();
    t_equal(device->orphaned, device->kind[EXPLAIN_POOL].all.bytes);
    t_check(device->orphaned, "an orphaned pool is not told");
    t_equal(device->refused, 20 * T_GIB);
    t_equal(device->refusals, 2);
    t_check(device->refused_ago && device->refused_ago < UINT64_C(600000000000), "when that was");

    t_cuda(cuCtxDestroy(context));
    ask(); /* there is nothing left to tell; nothing may break */
}

/* Without a figure a context and modules are charged by themselves. */
static void unknown(void)
{
    CUmodule module;

    t_context(0);
    t_cuda(cuModuleLoadData(&module, "an image"));
    const struct explain_device *device = own();
    kind_is(device, EXPLAIN_CONTEXT, 1, 512 * T_MIB);
    kind_is(device, EXPLAIN_MODULE, 1, 6 * T_MIB);
    kind_is(device, EXPLAIN_DRIVER, 0, 0);
    t_check(!(device->flags & EXPLAIN_FIGURE), "a figure that nobody has");
}

static void spilled(void)
{
    t_context(0);
    while (t_free() >= 64 * T_MIB)
        t_check(t_alloc(64 * T_MIB), "refused");
    t_check(t_alloc(100 * T_MIB), "refused");
    const struct explain_device *device = own();
    kind_is(device, EXPLAIN_SPILLED, 1, 100 * T_MIB);
    t_equal(device->committed, t_used(0));
}

static void asleep(void)
{
    t_context(0);
    CUdeviceptr place = t_reserve(32 * T_MIB);
    uint64_t awake = t_used(0);

    t_check(t_map(place, 0, 32 * T_MIB), "refused");
    t_cuda(cuMemUnmap(place, 32 * T_MIB));
    const struct explain_device *device = own();
    kind_is(device, EXPLAIN_ASLEEP, 1, 32 * T_MIB);
    kind_is(device, EXPLAIN_VMM, 0, 0);
    t_equal(t_used(0), awake);
    t_equal(device->committed, awake + 32 * T_MIB);
}

/* ---- several processes */

static int tell[2], go[2];

static void say(void)
{
    t_check(write(tell[1], "x", 1) == 1, "write");
}

static void listen(void)
{
    char byte;

    t_check(read(tell[0], &byte, 1) == 1, "a child ended");
}

static void wait_for_end(void)
{
    char byte;

    close(go[1]);
    t_check(read(go[0], &byte, 1) == 0, "read");
}

/* A member with `mib` on a GPU, or without a context (-1). */
static void be_member(int gpu, unsigned mib)
{
    CUdevice device;

    if (gpu >= 0) {
        t_context(gpu);
        t_check(t_alloc(mib * T_MIB), "refused");
    } else {
        t_cuda(cuInit(0));
        t_cuda(cuDeviceGet(&device, 0));
    }
    say();
    wait_for_end();
    _exit(0);
}

static pid_t start(int gpu, unsigned mib)
{
    pid_t child = t_fork();

    if (child == 0)
        be_member(gpu, mib);
    listen();
    return child;
}

static void members(void)
{
    struct ledger_member who;
    pid_t first, second, bare, child;

    t_check(pipe(tell) == 0 && pipe(go) == 0, "pipe");
    first = start(0, 30);
    second = start(1, 40);
    bare = start(-1, 0);
    hear(first);
    t_equal(told.devices, 1);
    t_equal(told.device[0].kind[EXPLAIN_PLAIN].all.bytes, 30 * T_MIB);
    hear(second);
    t_equal(told.devices, 1);
    t_equal(told.device[0].kind[EXPLAIN_PLAIN].all.bytes, 40 * T_MIB);
    t_equal(told.device[0].committed, member(second, 1).committed);

    /* No answer, and nobody else is held up. */
    t_check(kill(first, SIGSTOP) == 0, "kill");
    uint64_t request = ask();
    who = member(second, 0);
    t_check(answers(&who, request, PATIENCE), "a stopped member holds another one up");
    who = member(first, 0);
    t_check(!answers(&who, request, 1), "a stopped member answers");
    t_check(kill(first, SIGCONT) == 0 && answers(&who, request, PATIENCE), "it does not answer when it goes on");
    who = member(bare, 0);
    t_check(!answers(&who, request, 1), "a member without a context answers");

    /* A child of a member is none until it begins by itself. */
    child = t_fork();
    if (child == 0) {
        t_context(0);
        t_check(t_alloc(50 * T_MIB), "refused");
        pid_t grandchild = t_fork();
        if (grandchild == 0) {
            struct ledger_member parent = member(getppid(), 0);

            t_check(answers(&parent, ask(), PATIENCE), "the parent does not answer");
            t_equal(told.pid, getppid());
            _exit(0);
        }
        t_join(grandchild);
        _exit(0);
    }
    t_join(child);

    /* One that is checkpointed tells what is to come back. */
    t_cuda(cuInit(0));
    t_cuda(cuCheckpointProcessLock(first, NULL));
    t_cuda(cuCheckpointProcessCheckpoint(first, NULL));
    t_check(member(first, 0).suspended, "it is not suspended");
    hear(first);
    t_check(told.device[0].flags & EXPLAIN_SUSPENDED, "it does not say that it is");
    t_equal(told.device[0].kind[EXPLAIN_PLAIN].all.bytes, 30 * T_MIB);
    t_equal(told.device[0].committed, explain_charged(&told.device[0]));
    t_cuda(cuCheckpointProcessRestore(first, NULL));
    t_cuda(cuCheckpointProcessUnlock(first, NULL));
    hear(first);
    t_check(!(told.device[0].flags & EXPLAIN_SUSPENDED), "it says so when it is back");

    /* A dead one's is nobody's, though its file is there. */
    hear(second);
    who = member(second, 0);
    t_check(kill(second, SIGKILL) == 0, "kill");
    t_check(waitpid(second, NULL, 0) == second, "wait");
    request = ask();
    t_check(!answers(&who, request, 1), "the dead answer");
    close(go[1]);
    close(go[0]);
    t_join(first);
    t_join(bare);
}

/* ---- while it allocates */

static uint32_t over;

static void *churn(void *argument)
{
    CUdeviceptr block[64];

    t_cuda(cuCtxSetCurrent(argument));
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        for (int i = 0; i < 64; i++)
            t_check((block[i] = t_alloc(i % 2 ? 1000 : 3 * T_MIB)), "refused");
        for (int i = 0; i < 64; i++)
            t_cuda(cuMemFree(block[i]));
    }
    return NULL;
}

/* What is told while threads allocate is off by what is on its way, at most; what was there all the while is told. */
static void storm(void)
{
    CUcontext context = t_context(0);
    pthread_t thread[2];

    for (int i = 0; i < 100; i++)
        t_check(t_alloc(2 * T_MIB), "refused");
    for (int i = 0; i < 2; i++)
        t_equal(pthread_create(&thread[i], NULL, churn, context), 0);
    for (int i = 0; i < 4; i++) {
        hear(getpid());
        if (!(told.device[0].flags & EXPLAIN_MOVING))
            t_equal(explain_charged(&told.device[0]), told.device[0].committed);
        t_check(told.device[0].kind[EXPLAIN_PLAIN].size[1].bytes >= 200 * T_MIB, "what was there all the while is missing");
        t_check(told.device[0].kind[EXPLAIN_PLAIN].all.bytes <= 200 * T_MIB + 2 * 64 * 4 * T_MIB, "more than ever was there");
    }
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    kind_is(own(), EXPLAIN_PLAIN, 100, 200 * T_MIB);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"families", families}, {"unknown", unknown}, {"spilled", spilled},
                 {"asleep", asleep},     {"members", members}, {"storm", storm}};

    for (size_t i = 0; argc > 1 && i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strcmp(argv[1], tests[i].name) == 0) {
            tests[i].run();
            return 0;
        }
    }
    t_fail("which one?");
}
