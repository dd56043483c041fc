/* SPDX-License-Identifier: Apache-2.0 */
/* HBM held by several processes, and IPC handles on top of it. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

#define IPC_MAGIC UINT64_C(0x6370692d6d697366)

struct ipc_handle {
    uint64_t magic, object, size;
    int32_t row; /* of the process that made it */
    uint64_t generation;
};
_Static_assert(sizeof(struct ipc_handle) <= sizeof(CUipcMemHandle), "the driver's handles have 64 bytes");

uint64_t sim_share(int dev, uint64_t size, bool counted)
{
    struct sim_machine *m = sim->machine;
    struct sim_object *o;
    uint64_t id = 0;

    sim_machine_lock(m);
    o = sim_object_new(m, (unsigned int)sim->row, sim_gpu(dev), size);
    if (o) {
        id = o->id;
        if (counted)
            sim_client(dev)->used -= size;
        else
            o->size = 0;
    }
    sim_machine_unlock(m);
    return id;
}

int sim_share_export(uint64_t object)
{
    struct sim_object *o;
    int fd = -1;

    sim_machine_lock(sim->machine);
    o = sim_object_find(sim->machine, object);
    if (o)
        fd = sim_object_open(o);
    sim_machine_unlock(sim->machine);
    return fd;
}

uint64_t sim_share_id(int fd)
{
    uint64_t id;

    return pread(fd, &id, sizeof(id), 0) == sizeof(id) ? id : 0;
}

unsigned char *sim_share_map(uint64_t object, uint64_t from, uint64_t size)
{
    void *p = MAP_FAILED;
    int fd = sim_share_export(object);

    if (fd >= 0) {
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)(SIM_OBJECT_HEADER + from));
        close(fd);
    }
    return p == MAP_FAILED ? NULL : p;
}

struct sim_mem *sim_share_mem(enum sim_mem_kind kind, int dev, struct sim_ctx *ctx, uint64_t object, uint64_t from, uint64_t size)
{
    struct sim_mem *mem = sim_mem_new(kind, dev, ctx, 0, size);

    if (!mem)
        return NULL;
    mem->bytes = sim_share_map(object, from, mem->reserved);
    mem->bytes_mapped = mem->bytes != NULL;
    if (!mem->bytes) {
        sim_mem_free(mem);
        return NULL;
    }
    mem->object = object;
    return mem;
}

bool sim_share_hold(uint64_t object, uint64_t *size, int *dev)
{
    struct sim_object *o;
    bool ok = false;

    sim_machine_lock(sim->machine);
    sim_reap(sim->machine);
    o = sim_object_find(sim->machine, object);
    for (int d = 0; o && d < sim->devices; d++)
        if (sim_gpu(d) == o->gpu) {
            *dev = d;
            *size = o->size;
            o->holds[sim->row]++;
            ok = true;
        }
    sim_machine_unlock(sim->machine);
    return ok;
}

void sim_share_drop(uint64_t object)
{
    struct sim_object *o;

    sim_machine_lock(sim->machine);
    o = sim_object_find(sim->machine, object);
    if (o)
        sim_object_drop(sim->machine, o, (unsigned int)sim->row);
    sim_machine_unlock(sim->machine);
}

/* Small allocations lie in slabs together with others; a handle on one is not modelled. */
CUresult cuIpcGetMemHandle(CUipcMemHandle *pHandle, CUdeviceptr dptr)
{
    struct ipc_handle h = {.magic = IPC_MAGIC};
    struct sim_mem *mem;
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    mem = sim_mem_find(dptr);
    if (!pHandle || !mem || mem->kind != SIM_MEM_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    if (mem->slab)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!mem->object) {
        uint64_t id = sim_share(mem->dev, mem->charged, true);
        unsigned char *bytes = id ? sim_share_map(id, 0, mem->reserved) : NULL;

        if (!id)
            return CUDA_ERROR_OUT_OF_MEMORY;
        mem->object = id;
        mem->charged = 0;
        if (!bytes)
            return CUDA_ERROR_OUT_OF_MEMORY;
        if (mem->bytes) {
            memcpy(bytes, mem->bytes, mem->size);
            munmap(mem->bytes, mem->reserved);
        }
        mem->bytes = bytes;
        mem->bytes_mapped = true;
    }
    h.object = mem->object;
    h.size = mem->size;
    h.row = sim->row;
    h.generation = sim->machine->proc[sim->row].generation;
    memset(pHandle, 0, sizeof(*pHandle));
    memcpy(pHandle, &h, sizeof(h));
    return CUDA_SUCCESS;
}

static struct sim_mem *opened(uint64_t object)
{
    for (struct sim_mem *mem = sim_mem_next(NULL); mem; mem = sim_mem_next(mem))
        if (mem->kind == SIM_MEM_IPC && mem->object == object)
            return mem;
    return NULL;
}

static CUresult ipc_open(CUdeviceptr *out, const CUipcMemHandle *handle, unsigned int flags)
{
    struct ipc_handle h;
    struct sim_mem *mem;
    struct sim_ctx *ctx;
    uint64_t size;
    int dev;
    SIM_GUARD();

    CONTEXT(ctx);
    if (!out || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    memcpy(&h, handle, sizeof(h));
    if (h.magic != IPC_MAGIC)
        return CUDA_ERROR_INVALID_VALUE;
    if (h.row == sim->row && h.generation == sim->machine->proc[sim->row].generation)
        return CUDA_ERROR_INVALID_CONTEXT; /* not in the process that made it */
    mem = opened(h.object);
    if (mem) {
        mem->aux++;
        *out = mem->base;
        return CUDA_SUCCESS;
    }
    if (!sim_share_hold(h.object, &size, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    mem = sim_share_mem(SIM_MEM_IPC, dev, ctx, h.object, 0, h.size);
    if (!mem) {
        sim_share_drop(h.object);
        return CUDA_ERROR_MAP_FAILED;
    }
    mem->aux = 1;
    *out = mem->base;
    return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    ENTER();
    return ipc_open(pdptr, &handle, Flags);
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    ENTER();
    return ipc_open(pdptr, &handle, Flags);
}

CUresult cuIpcCloseMemHandle(CUdeviceptr dptr)
{
    struct sim_mem *mem;
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    UNSAFE_IN_CAPTURE();
    mem = sim_mem_find(dptr);
    if (!mem || mem->kind != SIM_MEM_IPC || mem->base != dptr)
        return CUDA_ERROR_INVALID_VALUE;
    if (!--mem->aux)
        sim_mem_free(mem);
    return CUDA_SUCCESS;
}
