/* SPDX-License-Identifier: Apache-2.0 */
/* A pool and a block of it in another process: the memory is its exporter's charge alone, however often it is imported and freed. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=imports SOFTSIM_CONTEXT_BYTES=100M
// unemulated: rests on robust mutexes: the emulator gives the kernel no list of them, so the simulated GPU sees no process die
#include <sys/socket.h>

#include "../pool_helper.h"

static int channel[2];

static void send_pool(int fd, const CUmemPoolPtrExportData *data)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec bytes = {(void *)data, sizeof(*data)};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);

    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    t_check(sendmsg(channel[0], &message, 0) == sizeof(*data), "sendmsg");
}

static int receive_pool(CUmemPoolPtrExportData *data)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec bytes = {data, sizeof(*data)};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    int fd = -1;

    t_check(recvmsg(channel[1], &message, 0) == sizeof(*data), "the exporter is gone");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

static void importer(void)
{
    CUmemPoolPtrExportData data;
    CUmemoryPool pool;
    CUdeviceptr pointer, more = T_UNTOUCHED;
    CUstream stream;
    int fd = receive_pool(&data);

    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    uint64_t left = t_free();
    t_cuda(cuMemPoolImportFromShareableHandle(&pool, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    t_equal(t_free(), left);
    for (int i = 0; i < 4; i++) {
        t_cuda(cuMemPoolImportPointer(&pointer, pool, &data));
        t_equal(t_free(), left);
        t_cuda(i & 1 ? cuMemFree(pointer) : cuMemFreeAsync(pointer, stream));
        t_cuda(cuStreamSynchronize(stream));
        t_equal(t_free(), left);
    }
    t_cuda(cuMemPoolImportPointer(&pointer, pool, &data));
    t_check(cuMemAllocFromPoolAsync(&more, 1000, pool, stream) != CUDA_SUCCESS && more == T_UNTOUCHED,
            "an imported pool hands out memory");
    t_check(!t_alloc(left + T_MIB), "a block beyond the budget was granted"); /* everything is given back before that */
    t_equal(t_free(), left);
    t_cuda(cuMemPoolDestroy(pool));
    t_equal(t_free(), left);
    _exit(0);
}

int main(void)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    CUmemPoolPtrExportData data;
    CUmemoryPool pool;
    CUdeviceptr pointer;
    CUstream stream;
    int fd;

    t_check(!socketpair(AF_UNIX, SOCK_STREAM, 0, channel), "socketpair");
    pid_t child = t_fork();
    if (child == 0)
        importer();
    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuMemPoolCreate(&pool, &props));
    t_check((pointer = t_draw(pool, 200 << 20, stream)), "a block that fits was refused");
    t_at_rest(0);
    uint64_t left = t_free();
    t_cuda(cuMemPoolExportToShareableHandle(&fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    t_cuda(cuMemPoolExportPointer(&data, pointer));
    send_pool(fd, &data);
    t_join(child);
    for (uint64_t end = t_now_ms() + 5000; t_now_ms() < end && t_free() != left;) /* the child's context goes a moment after it */
        usleep(1000);
    t_equal(t_free(), left);
    t_at_rest(0);
    return 0;
}
