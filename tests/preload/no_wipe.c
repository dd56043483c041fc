/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel that does not know MADV_WIPEONFORK: no limit can be kept, which is said once, and either CUDA does not start or everything works
 * without limits. */
// unemulated: rests on a filter for system calls
// unsanitized: a sanitizer's runtime makes system calls of its own
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_ON_ERROR=open -- open
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "../cuda_helper.h"

static void refuse_to_wipe(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
                                 BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_WIPEONFORK, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
        t_skip("no filter for system calls here: %s", strerror(errno));
}

static void call_everything(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUDA_ARRAY_DESCRIPTOR shape = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = props, .bytesize = T_MIB};
    CUmemGenericAllocationHandle handle;
    CUgraphExec executable;
    CUmemoryPool pool;
    CUgraphNode node;
    CUcontext other;
    CUmodule module;
    CUgraph graph;
    CUdeviceptr p;
    CUarray array;

    t_context(0);
    t_check((p = t_alloc(2 * T_GIB)), "there is a limit");
    t_cuda(cuMemFree(p));
    t_cuda(cuDevicePrimaryCtxRetain(&other, 0));
    t_cuda(cuDevicePrimaryCtxRelease(0));
    t_cuda(cuMemPoolCreate(&pool, &props));
    t_cuda(cuMemAllocFromPoolAsync(&p, T_MIB, pool, NULL));
    t_cuda(cuMemFreeAsync(p, NULL));
    t_cuda(cuCtxSynchronize());
    t_cuda(cuMemPoolTrimTo(pool, 0));
    t_cuda(cuMemPoolDestroy(pool));
    t_cuda(cuMemCreate(&handle, t_granule(), &prop, 0));
    t_cuda(cuMemRelease(handle));
    t_cuda(cuArrayCreate(&array, &shape));
    t_cuda(cuArrayDestroy(array));
    t_cuda(cuModuleLoadData(&module, "an image"));
    t_cuda(cuModuleUnload(module));
    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params));
    t_cuda(cuGraphInstantiate(&executable, graph, 0));
    t_cuda(cuGraphLaunch(executable, NULL));
    t_cuda(cuGraphExecDestroy(executable));
    t_cuda(cuDeviceGraphMemTrim(0));
}

int main(int argc, char **argv)
{
    char said[4096] = "", path[4096];
    (void)argv;

    snprintf(path, sizeof(path), "%s/stderr", getenv("TEST_TMP"));
    t_check(freopen(path, "w+", stderr), "freopen");
    refuse_to_wipe();
    if (argc > 1)
        call_everything();
    else
        t_result(cuInit(0), CUDA_ERROR_OPERATING_SYSTEM);
    rewind(stderr);
    t_check(fgets(said, sizeof(said), stderr) && strstr(said, "MADV_WIPEONFORK"), "it is not said why: %s", said);
    t_check(!fgets(said, sizeof(said), stderr), "more is said: %s", said);
    return 0;
}
