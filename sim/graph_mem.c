/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of graphs: addresses fixed when a node is made, HBM from a pool of the device when a launch needs it. */
#include "graph.h"

/* Of a record of kind SIM_MEM_GRAPH: `aux` counts the nodes that know it, `flags` says whether it is allocated now. */

static struct {
    uint64_t reserved, reserved_high, used, used_high;
} pools[SIM_MAX_GPUS];

static struct sim_mem *graph_mem(uint64_t address)
{
    struct sim_mem *mem = sim_mem_find(address);

    return mem && mem->kind == SIM_MEM_GRAPH && mem->base == address ? mem : NULL;
}

static uint64_t cost(const struct sim_mem *mem)
{
    return sim_round_up(mem->size, sim_granularity());
}

CUresult sim_graph_mem_reserve(struct sim_node *node)
{
    CUDA_MEM_ALLOC_NODE_PARAMS *p = &node->params.alloc;
    struct sim_mem *mem;

    if (!p->bytesize || p->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE || !sim_device_valid(p->poolProps.location.id))
        return CUDA_ERROR_INVALID_VALUE;
    if (p->bytesize > (size_t)1 << 46)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem = sim_mem_new(SIM_MEM_GRAPH, p->poolProps.location.id, NULL, 0, p->bytesize);
    if (!mem)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem->aux = 1;
    p->dptr = mem->base;
    return CUDA_SUCCESS;
}

void sim_graph_mem_hold(uint64_t address)
{
    struct sim_mem *mem = graph_mem(address);

    if (mem)
        mem->aux++;
}

void sim_graph_mem_unhold(uint64_t address)
{
    struct sim_mem *mem = graph_mem(address);

    if (mem && !--mem->aux && !mem->flags)
        sim_mem_free(mem);
}

CUresult sim_graph_mem_free(struct sim_mem *mem)
{
    if (!mem->flags)
        return CUDA_ERROR_INVALID_VALUE;
    mem->flags = 0;
    pools[mem->dev].used -= cost(mem);
    if (!mem->aux)
        sim_mem_free(mem);
    return CUDA_SUCCESS;
}

void sim_graph_mem_alloc(uint64_t address)
{
    struct sim_mem *mem = graph_mem(address);

    if (!mem || mem->flags)
        return;
    mem->flags = 1;
    pools[mem->dev].used += cost(mem);
    if (pools[mem->dev].used_high < pools[mem->dev].used)
        pools[mem->dev].used_high = pools[mem->dev].used;
}

/* Walks the nodes in launch order. */
static CUresult peak(const struct sim_graph *g, int dev, bool auto_free, int64_t *now, int64_t *most)
{
    for (size_t i = 0; i < g->count; i++) {
        const struct sim_node *n = g->nodes[i];
        struct sim_mem *mem;

        if (n->child) {
            CUresult r = peak(n->child, dev, auto_free, now, most);

            if (r != CUDA_SUCCESS)
                return r;
        }
        if (n->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
            mem = graph_mem(n->params.alloc.dptr);
            if (!mem)
                return CUDA_ERROR_INVALID_VALUE;
            if (mem->flags && !auto_free)
                return CUDA_ERROR_INVALID_VALUE; /* still allocated since the last launch */
            if (mem->flags)
                sim_graph_mem_free(mem);
            if (mem->dev == dev)
                *now += (int64_t)cost(mem);
        } else if (n->type == CU_GRAPH_NODE_TYPE_MEM_FREE) {
            mem = graph_mem(n->params.free);
            if (mem && mem->dev == dev)
                *now -= (int64_t)cost(mem);
        }
        if (*most < *now)
            *most = *now;
    }
    return CUDA_SUCCESS;
}

static CUresult prepare(const struct sim_graph *g, int dev, bool auto_free)
{
    int64_t now = 0, most = 0;
    uint64_t need;
    CUresult r = peak(g, dev, auto_free, &now, &most);

    if (r != CUDA_SUCCESS)
        return r;
    need = pools[dev].used + (uint64_t)most;
    if (!most || need <= pools[dev].reserved)
        return CUDA_SUCCESS;
    if (!sim_hbm_take(dev, need - pools[dev].reserved))
        return CUDA_ERROR_OUT_OF_MEMORY;
    pools[dev].reserved = need;
    if (pools[dev].reserved_high < need)
        pools[dev].reserved_high = need;
    return CUDA_SUCCESS;
}

CUresult sim_graph_mem_prepare(const struct sim_graph *g, bool auto_free)
{
    for (int dev = 0; sim_device_valid(dev); dev++) {
        CUresult r = prepare(g, dev, auto_free);

        if (r != CUDA_SUCCESS)
            return r;
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    ENTER();
    SIM_GUARD();
    if (!sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    UNSAFE_IN_CAPTURE();
    sim_hbm_give(device, pools[device].reserved - pools[device].used);
    pools[device].reserved = pools[device].used;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
    cuuint64_t *out = value;

    ENTER();
    SIM_GUARD();
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    UNSAFE_IN_CAPTURE();
    switch (attr) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT:
        *out = pools[device].used;
        return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH:
        *out = pools[device].used_high;
        return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT:
        *out = pools[device].reserved;
        return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH:
        *out = pools[device].reserved_high;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

/* Only the high-water marks can be set, and only to zero, which resets them. */
CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
    ENTER();
    SIM_GUARD();
    if (!value || *(const cuuint64_t *)value)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    switch (attr) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH:
        pools[device].used_high = pools[device].used;
        return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH:
        pools[device].reserved_high = pools[device].reserved;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}
