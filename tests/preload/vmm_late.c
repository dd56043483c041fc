/* SPDX-License-Identifier: Apache-2.0 */
/* A call holds an allocation that another thread releases before the driver gets to it: the GPU has the memory back, the ledger still counts it. Who
 * compares the two meanwhile must not take the difference for something that the driver took less of. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- cuMemMap
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- cuMulticastBindMem
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm_helper.h"

#define CONTEXT (100 * T_MIB)
#define SIZE    (64 * T_MIB)

static char path[4096];
static CUcontext context;
static CUmemGenericAllocationHandle memory, team;
static CUdeviceptr place;

static void *late(void *function)
{
    t_cuda(cuCtxSetCurrent(context));
    CUresult result =
        !strcmp(function, "cuMemMap") ? cuMemMap(place, SIZE, 0, memory, 0) : cuMulticastBindMem(team, 0, memory, 0, SIZE, 0);
    t_check(result != CUDA_SUCCESS, "what was released could be held");
    return NULL;
}

static bool hangs(void)
{
    struct stat about;

    return stat(path, &about) == 0 && about.st_size > 0;
}

/* A refusal looks for what the driver gave back by itself, at most every 100 ms. */
static void look(void)
{
    usleep(150000);
    t_check(!t_create(0, T_GIB - 98 * T_MIB), "granted beyond the budget");
}

int main(int argc, char **argv)
{
    char setting[sizeof(path) + 64];
    pthread_t thread;

    t_check(argc == 2, "which function comes late?");
    snprintf(path, sizeof(path), "%s/hang", getenv("TEST_TMP"));
    snprintf(setting, sizeof(setting), "%s:%s", argv[1], path);
    setenv("SOFTSIM_BLOCK", setting, 1);
    context = t_context(0);
    place = t_reserve(SIZE);
    t_cuda(cuMulticastCreate(&team, &(CUmulticastObjectProp){.numDevices = 1, .size = SIZE}));
    t_cuda(cuMulticastAddDevice(team, 0));
    t_check((memory = t_create(0, SIZE)), "refused within the budget");

    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    t_check(fd >= 0, "%s: %s", path, strerror(errno));
    close(fd);
    t_check(!pthread_create(&thread, NULL, late, argv[1]), "pthread_create");
    while (!hangs())
        usleep(1000);
    t_cuda(cuMemRelease(memory));
    t_equal(t_used(0), CONTEXT); /* the GPU has it back */
    look();
    t_equal(unlink(path), 0);
    pthread_join(thread, NULL);
    t_equal(t_free(), T_GIB - CONTEXT);
    t_check(!t_create(0, T_GIB - CONTEXT + 2 * T_MIB), "granted what the context has");
    look();
    t_equal(t_free(), T_GIB - CONTEXT);
    return 0;
}
