/* SPDX-License-Identifier: Apache-2.0 */
/* Physical memory that one process exports and another one imports is charged once, as long as anybody holds it: to its maker, and when that one
 * let go of it or is gone, to who has it still. */
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=import SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=import SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_NVML_SHARED=1 -- counted
#include <sys/socket.h>

#include "vmm_helper.h"

#define SIZE (200 * T_MIB)

enum { MAKER, USER, PEERS };

static struct peer {
    pid_t pid;
    int socket;
} peer[PEERS];

struct answer {
    int result;
    uint64_t charged;
};

/* ---- in a peer */

static int between[2]; /* the way of descriptors */

static void send_fd(int fd)
{
    char space[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);

    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(control), &fd, sizeof(int));
    t_check(sendmsg(between[MAKER], &message, 0) == 1, "sendmsg");
}

static int receive_fd(void)
{
    char space[CMSG_SPACE(sizeof(int))], byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
    int fd;

    t_check(recvmsg(between[USER], &message, 0) == 1 && CMSG_FIRSTHDR(&message), "recvmsg");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    return fd;
}

static CUmemGenericAllocationHandle handle;
static CUdeviceptr place[2];

static int obey(char what)
{
    CUmodule module;
    int fd, result = 0;

    switch (what) {
    case 'e': /* make, export */
        t_check((handle = t_create(0, SIZE)), "refused within the budget");
        t_cuda(cuMemMap(place[0], SIZE, 0, handle, 0));
        t_cuda(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        send_fd(fd);
        close(fd);
        break;
    case 'i':
        fd = receive_fd();
        result = cuMemImportFromShareableHandle(&handle, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
        close(fd);
        break;
    case 'm':
    case 'n':
        result = cuMemMap(place[what == 'n'], SIZE, 0, handle, 0);
        break;
    case 'u':
    case 'v':
        result = cuMemUnmap(place[what == 'v'], SIZE);
        break;
    case 'r':
        result = cuMemRelease(handle);
        break;
    case 'g': /* past softslice: what only the driver's figure shows */
        result = ((CUresult(*)(CUdeviceptr *, size_t))t_real("cuMemAlloc_v2"))(&(CUdeviceptr){0}, SIZE);
        break;
    case 'l': /* makes the driver's figure be read again */
        t_cuda(cuModuleLoadData(&module, ".version 8.0"));
        t_cuda(cuModuleUnload(module));
        break;
    }
    return result;
}

static void serve(int socket)
{
    char what;

    t_context(0);
    for (int i = 0; i < 2; i++)
        place[i] = t_reserve(SIZE);
    t_check(write(socket, "", 1) == 1, "write");
    while (read(socket, &what, 1) == 1) {
        struct answer answer = {.result = obey(what)};

        answer.charged = t_total() - t_free();
        t_check(write(socket, &answer, sizeof(answer)) == sizeof(answer), "write");
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
        if (peer[!who].pid)
            close(peer[!who].socket);
        close(sockets[0]);
        serve(sockets[1]);
    }
    close(sockets[1]);
    peer[who].socket = sockets[0];
    t_check(read(peer[who].socket, &ready, 1) == 1, "a peer ended");
}

static struct answer ask(int who, char what)
{
    struct answer answer;

    t_check(write(peer[who].socket, &what, 1) == 1 &&
                recv(peer[who].socket, &answer, sizeof(answer), MSG_WAITALL) == (ssize_t)sizeof(answer),
            "peer %d ended", who);
    return answer;
}

static void end(int who, int signal)
{
    if (signal)
        kill(peer[who].pid, signal);
    close(peer[who].socket);
    t_check(waitpid(peer[who].pid, NULL, 0) == peer[who].pid, "waitpid");
    peer[who] = (struct peer){0};
}

static uint64_t charged(void)
{
    uint64_t bytes = 0;

    for (int i = 0; i < PEERS; i++)
        if (peer[i].pid) {
            uint64_t one = ask(i, 'l').charged;
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
    t_check(seen == t_used(0) && seen <= most, "%s: %llu MiB are charged, the GPU says %llu MiB", when,
            (unsigned long long)(seen / T_MIB), (unsigned long long)(t_used(0) / T_MIB));
}

static void import(void)
{
    ask(MAKER, 'e');
    t_cuda(ask(USER, 'i').result);
    t_cuda(ask(USER, 'm').result);
}

static void in_order(bool counted)
{
    uint64_t before = t_used(0);

    for (unsigned i = 0; i < 6; i++) {
        import();
        settled("imported and mapped", before + SIZE);
        t_cuda(ask(USER, 'n').result);
        settled("mapped twice", before + SIZE);
        t_cuda(ask(USER, 'r').result);
        t_cuda(ask(USER, 'u').result);
        settled("released and unmapped once", before + SIZE);
        t_check(ask(USER, 'u').result != CUDA_SUCCESS, "unmapped twice");
        t_cuda(ask(USER, 'v').result);
        settled("let go", before + SIZE);
        t_cuda(ask(MAKER, 'r').result);
        t_cuda(ask(MAKER, 'u').result);
        settled("let go by its maker", before);
    }
    /* It hides no growth of as many bytes once it is gone. */
    import();
    t_cuda(ask(USER, 'r').result);
    t_cuda(ask(USER, 'u').result);
    t_cuda(ask(MAKER, 'r').result);
    t_cuda(ask(MAKER, 'u').result);
    t_cuda(ask(USER, 'g').result);
    settled("something else is in the figure", before + SIZE);
    if (counted) /* such a figure does not tell who holds it */
        return;
    end(USER, SIGKILL);
    start(USER);
    settled("another user", before);

    /* The maker first. */
    import();
    t_cuda(ask(MAKER, 'r').result);
    t_cuda(ask(MAKER, 'u').result);
    t_equal(t_used(0), before + SIZE);
    settled("let go by its maker first", before + SIZE);
    t_cuda(ask(USER, 'u').result);
    settled("not mapped any more", before + SIZE);
    t_cuda(ask(USER, 'r').result);
    settled("let go last", before);

    /* The maker dies. */
    import();
    end(MAKER, SIGKILL);
    settled("its maker died", before + SIZE);
    start(MAKER);
    settled("another maker", before + SIZE);
    t_cuda(ask(USER, 'r').result);
    t_cuda(ask(USER, 'u').result);
    settled("let go after the maker's death", before);

    import();
    end(USER, SIGKILL);
    settled("its user died", before + SIZE);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc == 1 && getenv("TEST_EMULATED")) /* no robust mutexes there */
        t_skip("the simulated GPU sees no process die in the emulator");
    t_check(socketpair(AF_UNIX, SOCK_STREAM, 0, between) == 0, "socketpair");
    for (int i = 0; i < PEERS; i++)
        start(i);
    settled("nothing", PEERS * t_bytes("SOFTSIM_CONTEXT_BYTES", 0));
    in_order(argc > 1);
    for (int i = 0; i < PEERS; i++)
        if (peer[i].pid)
            end(i, 0);
    return 0;
}
