/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that several processes have open is charged once, whoever closes, frees, ends or is killed first, in one tenant and in several: when all
 * have settled, what is charged is what the GPU has given. */
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=ipc SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=ipc SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_RELEASE_DELAY_MS=300
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=ipc SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_NVML_SHARED=1 -- counted
#include <sys/socket.h>

#include "../cuda_helper.h"

#define SIZE (200 * T_MIB)

enum { PEERS = 3 };

struct question {
    enum { EXPORT, FREE, OPEN, CLOSE, STRAY_FREE, NEW_CONTEXT, GROW, LOOK } what;
    CUdeviceptr pointer;
    CUipcMemHandle handle;
};

struct answer {
    int result, drivers; /* the driver's own, where the call was made past us too */
    CUdeviceptr pointer;
    CUipcMemHandle handle;
    uint64_t charged; /* of this process's budget */
};

static struct peer {
    pid_t pid;
    int socket;
} peer[PEERS];

/* ---- in a peer */

static CUcontext context;

static struct answer obey(const struct question *q)
{
    struct answer a = {0};
    CUmodule module;

    switch (q->what) {
    case EXPORT:
        a.result = cuMemAlloc(&a.pointer, SIZE);
        t_cuda(cuIpcGetMemHandle(&a.handle, a.pointer));
        break;
    case FREE:
        a.result = cuMemFree(q->pointer);
        break;
    case OPEN:
        a.result = cuIpcOpenMemHandle(&a.pointer, q->handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
        break;
    case CLOSE:
        a.result = cuIpcCloseMemHandle(q->pointer);
        break;
    case STRAY_FREE:
        a.drivers = ((CUresult(*)(CUdeviceptr))t_real("cuMemFree_v2"))(q->pointer);
        a.result = cuMemFree(q->pointer);
        break;
    case NEW_CONTEXT:
        t_cuda(cuCtxDestroy(context));
        t_cuda(cuCtxCreate(&context, NULL, 0, 0));
        break;
    case GROW: /* past softslice: what only the driver's figure shows */
        a.result = ((CUresult(*)(CUdeviceptr *, size_t))t_real("cuMemAlloc_v2"))(&a.pointer, SIZE);
        break;
    case LOOK:
        /* Makes the driver's figure be read again. */
        t_cuda(cuModuleLoadData(&module, ".version 8.0"));
        t_cuda(cuModuleUnload(module));
        break;
    }
    a.charged = t_total() - t_free();
    return a;
}

static void serve(int socket)
{
    struct question q;

    context = t_context(0);
    t_check(write(socket, "", 1) == 1, "write");
    while (read(socket, &q, sizeof(q)) == sizeof(q)) {
        struct answer a = obey(&q);
        t_check(write(socket, &a, sizeof(a)) == sizeof(a), "write");
    }
    _exit(0);
}

/* ---- in the one that asks them, which has no CUDA of its own */

static void start(int who)
{
    int sockets[2];
    char ready;

    t_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0, "socketpair");
    peer[who].pid = t_fork();
    if (peer[who].pid == 0) {
        for (int i = 0; i < PEERS; i++)
            if (i != who && peer[i].pid)
                close(peer[i].socket);
        close(sockets[0]);
        serve(sockets[1]);
    }
    close(sockets[1]);
    peer[who].socket = sockets[0];
    t_check(read(peer[who].socket, &ready, 1) == 1, "a peer ended");
}

static struct answer ask(int who, struct question q)
{
    struct answer a;

    t_check(write(peer[who].socket, &q, sizeof(q)) == sizeof(q) &&
                recv(peer[who].socket, &a, sizeof(a), MSG_WAITALL) == (ssize_t)sizeof(a),
            "peer %d ended", who);
    return a;
}

static void end(int who, int signal)
{
    int status;

    if (signal)
        kill(peer[who].pid, signal);
    close(peer[who].socket);
    t_check(waitpid(peer[who].pid, &status, 0) == peer[who].pid, "waitpid");
    t_check(signal ? WIFSIGNALED(status) : WIFEXITED(status) && !WEXITSTATUS(status), "peer %d ended with 0x%x", who, status);
    peer[who] = (struct peer){0};
}

/* What the budgets of all that live say is charged. */
static uint64_t charged(void)
{
    uint64_t bytes = 0;

    for (int i = 0; i < PEERS; i++) {
        if (!peer[i].pid)
            continue;
        uint64_t one = ask(i, (struct question){.what = LOOK}).charged;
        bytes = getenv("SOFTSLICE_TENANT") ? one : bytes + one;
    }
    return bytes;
}

/* At rest what is charged is what the GPU has given: never less, never twice. */
static void settled(const char *when, uint64_t most)
{
    uint64_t end_ms = t_now_ms() + 20000, seen = 0;

    do /* a dead one's memory may be there for a while, charged */
        seen = charged();
    while ((seen != t_used(0) || seen > most) && t_now_ms() < end_ms);
    t_check(seen == t_used(0), "%s: %llu MiB are charged, the GPU says %llu MiB", when, (unsigned long long)(seen / T_MIB),
            (unsigned long long)(t_used(0) / T_MIB));
    t_check(t_used(0) <= most, "%s: the GPU says %llu MiB", when, (unsigned long long)(t_used(0) / T_MIB));
}

static struct answer export_to(int from)
{
    struct answer a = ask(from, (struct question){.what = EXPORT});
    t_cuda(a.result);
    return a;
}

static CUdeviceptr open_in(int who, const struct answer *exported)
{
    struct answer a = ask(who, (struct question){.what = OPEN, .handle = exported->handle});
    t_cuda(a.result);
    return a.pointer;
}

static int close_in(int who, CUdeviceptr pointer)
{
    return ask(who, (struct question){.what = CLOSE, .pointer = pointer}).result;
}

static void in_order(void)
{
    uint64_t with = t_used(0) + SIZE;
    struct answer exported = export_to(0);

    settled("exported", with);
    CUdeviceptr pointer = open_in(1, &exported);
    settled("opened", with);
    t_equal(open_in(1, &exported), pointer);
    settled("opened twice", with);
    struct answer stray = ask(1, (struct question){.what = STRAY_FREE, .pointer = pointer});
    t_result(stray.result, stray.drivers);
    t_check(stray.result != CUDA_SUCCESS, "opened memory was freed");
    settled("not freed", with);
    t_cuda(close_in(1, pointer));
    settled("closed once", with);
    t_cuda(close_in(1, pointer));
    t_check(close_in(1, pointer) != CUDA_SUCCESS, "closed more often than opened");
    settled("closed", with);
    open_in(1, &exported);
    ask(1, (struct question){.what = NEW_CONTEXT});
    settled("its context ended", with);
    t_cuda(ask(1, (struct question){.what = GROW}).result);
    settled("something else is in the figure", with + SIZE);
    ask(1, (struct question){.what = NEW_CONTEXT});
    t_cuda(ask(0, (struct question){.what = FREE, .pointer = exported.pointer}).result);
    settled("freed", with - SIZE);
}

static void maker_first(void)
{
    uint64_t with = t_used(0) + SIZE;
    struct answer exported = export_to(0);
    CUdeviceptr pointer = open_in(1, &exported);

    t_cuda(ask(0, (struct question){.what = FREE, .pointer = exported.pointer}).result);
    t_equal(t_used(0), with);
    settled("freed by its maker", with);
    t_cuda(close_in(1, pointer));
    settled("closed last", with - SIZE);
}

static void context_ends(void)
{
    uint64_t with = t_used(0) + SIZE;
    struct answer exported = export_to(0);

    open_in(1, &exported);
    ask(1, (struct question){.what = NEW_CONTEXT});
    settled("the context ended in which it was open", with);
    open_in(1, &exported);
    ask(0, (struct question){.what = NEW_CONTEXT});
    settled("its maker's context ended", with);
    ask(1, (struct question){.what = NEW_CONTEXT});
    settled("both ended", with - SIZE);
}

static void killed(int victim, int signal)
{
    uint64_t cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0), with = t_used(0) + SIZE;
    struct answer exported = export_to(0);
    CUdeviceptr pointer[PEERS] = {0};

    for (int i = 1; i < PEERS; i++)
        pointer[i] = open_in(i, &exported);
    settled("opened by two", with);
    end(victim, signal);
    settled("one is gone", with);
    t_check(t_used(0) >= with - cost, "the others lost it");
    start(victim);
    settled("another came", with);
    if (victim != 0)
        t_cuda(ask(0, (struct question){.what = FREE, .pointer = exported.pointer}).result);
    for (int i = 1; i < PEERS; i++) {
        settled("one less", with);
        if (i != victim)
            t_cuda(close_in(i, pointer[i]));
    }
    settled("nobody has it", with - SIZE);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc == 1 && getenv("TEST_EMULATED")) /* no robust mutexes there */
        t_skip("the simulated GPU sees no process die in the emulator");
    for (int i = 0; i < PEERS; i++)
        start(i);
    settled("nothing", PEERS * t_bytes("SOFTSIM_CONTEXT_BYTES", 0));
    in_order();
    if (argc > 1) /* a figure that counts opened memory from the start does not tell who holds it */
        return 0;
    maker_first();
    context_ends();
    for (int victim = 0; victim < PEERS; victim++) {
        killed(victim, SIGKILL);
        killed(victim, 0);
    }
    for (int i = 0; i < PEERS; i++)
        end(i, 0);
    return 0;
}
