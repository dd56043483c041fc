/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays whose memory comes from tile pools: sparse ones, tile by tile, and ones with deferred mapping, as a whole. */
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "vmm.h"

#define TILE ((uint64_t)64 << 10)

/* How the tiles of a sparse array lie: level by level, in each layer by layer, row by row; then those of the tail. */
struct layout {
    unsigned int tile[3];              /* sides of a tile, in elements */
    unsigned int first;                /* level of the tail */
    uint64_t tail_at, tail;            /* tiles */
    uint64_t level[SIM_MAX_LEVELS][4]; /* tiles in x, y and z, and layers */
};

static bool layered(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    return d->Flags & CUDA_ARRAY3D_LAYERED;
}

/* The sides double in turn until they hold 64 KiB (assumed). */
static void tile_extent(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int tile[3])
{
    unsigned int dims = d->Depth && !layered(d) ? 3 : 2, next = 0;

    tile[0] = tile[1] = tile[2] = 1;
    for (uint64_t elements = TILE / sim_array_element(d); elements > 1; elements /= 2) {
        tile[next] *= 2;
        next = (next + 1) % dims;
    }
}

/* An array without levels has no tail, however small it is. */
static uint64_t layout_of(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, struct layout *l)
{
    uint64_t bytes = 0;

    memset(l, 0, sizeof(*l));
    tile_extent(desc, l->tile);
    l->first = levels;
    for (unsigned int i = 0; i < levels; i++) {
        CUDA_ARRAY3D_DESCRIPTOR d = sim_level_desc(desc, i);
        uint64_t depth = layered(&d) || !d.Depth ? 1 : d.Depth, layers = layered(&d) && d.Depth ? d.Depth : 1;

        if (levels > 1 && (d.Width < l->tile[0] || d.Height < l->tile[1] || depth < l->tile[2]) && l->first > i)
            l->first = i;
        if (i >= l->first) {
            bytes += d.Width * (d.Height ? d.Height : 1) * depth * layers * sim_array_element(&d);
            continue;
        }
        l->level[i][0] = (d.Width + l->tile[0] - 1) / l->tile[0];
        l->level[i][1] = (d.Height + l->tile[1] - 1) / l->tile[1];
        l->level[i][2] = (depth + l->tile[2] - 1) / l->tile[2];
        l->level[i][3] = layers;
        l->tail_at += l->level[i][0] * l->level[i][1] * l->level[i][2] * layers;
    }
    l->tail = (bytes + TILE - 1) / TILE;
    return l->tail_at + l->tail;
}

CUresult sim_tiles_init(struct sim_tiles *tiles, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, uint64_t size)
{
    struct layout l;

    if ((desc->Flags & SIM_UNMAPPED) == SIM_UNMAPPED || !desc->Height)
        return CUDA_ERROR_INVALID_VALUE;
    tiles->count = 1;
    tiles->bytes = sim_round_up(size, sim_granularity());
    if (desc->Flags & CUDA_ARRAY3D_SPARSE) {
        tiles->count = layout_of(desc, levels, &l);
        tiles->bytes = TILE;
    }
    tiles->tile = calloc(tiles->count, sizeof(struct sim_phys *));
    return tiles->tile ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static void put(struct sim_tiles *tiles, uint64_t i, struct sim_phys *memory)
{
    struct sim_phys *before = tiles->tile[i];

    tiles->tile[i] = memory;
    if (memory)
        memory->maps++;
    if (before) {
        before->maps--;
        sim_phys_put(before);
    }
}

void sim_tiles_free(struct sim_tiles *tiles)
{
    for (uint64_t i = 0; i < tiles->count && tiles->tile; i++)
        put(tiles, i, NULL);
    free(tiles->tile);
    *tiles = (struct sim_tiles){0};
}

static CUresult properties(CUDA_ARRAY_SPARSE_PROPERTIES *out, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, bool mipmap)
{
    struct layout l;

    if (!out || !(desc->Flags & CUDA_ARRAY3D_SPARSE))
        return CUDA_ERROR_INVALID_VALUE;
    layout_of(desc, levels, &l);
    memset(out, 0, sizeof(*out));
    out->tileExtent.width = l.tile[0];
    out->tileExtent.height = l.tile[1];
    out->tileExtent.depth = l.tile[2];
    /* One tail for all layers (assumed). */
    if (mipmap) {
        out->miptailFirstLevel = l.first;
        out->miptailSize = l.tail * TILE;
        out->flags = CU_ARRAY_SPARSE_PROPERTIES_SINGLE_MIPTAIL;
    }
    return CUDA_SUCCESS;
}

CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *sparseProperties, CUarray array)
{
    struct sim_array *a;

    ENTER();
    SIM_GUARD();
    a = sim_handle_find(array, SIM_ARRAY);
    return a && !a->level ? properties(sparseProperties, &a->desc, 1, false) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *sparseProperties, CUmipmappedArray mipmap)
{
    struct sim_mipmap *m;

    ENTER();
    SIM_GUARD();
    m = sim_handle_find(mipmap, SIM_MIPMAP);
    return m ? properties(sparseProperties, &m->desc, m->levels, true) : CUDA_ERROR_INVALID_VALUE;
}

struct target {
    struct sim_tiles *tiles;
    const CUDA_ARRAY3D_DESCRIPTOR *desc;
    unsigned int levels;
    struct layout layout;
    struct sim_phys *memory;
    uint64_t from[4], extent[4]; /* in tiles: x, y, z, layer */
    uint64_t base;               /* of the level, or place in the tail */
};

static bool find(const CUarrayMapInfo *info, struct target *t)
{
    struct sim_array *a;
    struct sim_mipmap *m;

    if (info->resourceType == CU_RESOURCE_TYPE_ARRAY) {
        a = sim_handle_find(info->resource.array, SIM_ARRAY);
        if (!a || a->level)
            return false;
        *t = (struct target){.tiles = &a->tiles, .desc = &a->desc, .levels = 1};
    } else if (info->resourceType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY) {
        m = sim_handle_find(info->resource.mipmap, SIM_MIPMAP);
        if (!m)
            return false;
        *t = (struct target){.tiles = &m->tiles, .desc = &m->desc, .levels = m->levels};
    } else {
        return false;
    }
    return t->tiles->tile != NULL;
}

/* Offset and extent begin at tiles; an extent may end at the edge of the level. */
static bool region(const CUarrayMapInfo *info, struct target *t)
{
    unsigned int at[3] = {info->subresource.sparseLevel.offsetX, info->subresource.sparseLevel.offsetY,
                          info->subresource.sparseLevel.offsetZ};
    unsigned int by[3] = {info->subresource.sparseLevel.extentWidth, info->subresource.sparseLevel.extentHeight,
                          info->subresource.sparseLevel.extentDepth};
    unsigned int level = info->subresource.sparseLevel.level, layer = info->subresource.sparseLevel.layer;
    const struct layout *l = &t->layout;
    CUDA_ARRAY3D_DESCRIPTOR d;

    if (level >= l->first)
        return false;
    d = sim_level_desc(t->desc, level);
    for (int i = 0; i < 3; i++) {
        size_t side = i == 0 ? d.Width : i == 1 ? d.Height : layered(&d) || !d.Depth ? 1 : d.Depth;

        if (at[i] % l->tile[i] || !by[i] || by[i] > side || at[i] > side - by[i] || (by[i] % l->tile[i] && at[i] + by[i] != side))
            return false;
        t->from[i] = at[i] / l->tile[i];
        t->extent[i] = (by[i] + l->tile[i] - 1) / l->tile[i];
    }
    if (layer >= l->level[level][3])
        return false;
    t->from[3] = layer;
    t->extent[3] = 1;
    for (unsigned int i = 0; i < level; i++)
        t->base += l->level[i][0] * l->level[i][1] * l->level[i][2] * l->level[i][3];
    return true;
}

/* Without shape: the tail, or all of an array with deferred mapping. */
static void line(struct target *t, uint64_t base, uint64_t count)
{
    t->base = base;
    for (int i = 0; i < 4; i++) {
        t->from[i] = 0;
        t->extent[i] = i ? 1 : count;
    }
}

static bool check(const CUarrayMapInfo *info, int dev, struct target *t)
{
    bool map = info->memOperationType == CU_MEM_OPERATION_TYPE_MAP;
    uint64_t bytes;

    if (!find(info, t) || info->flags || info->reserved[0] || info->reserved[1] || info->deviceBitMask != 1u << dev)
        return false;
    if (!map && info->memOperationType != CU_MEM_OPERATION_TYPE_UNMAP)
        return false;
    if (t->desc->Flags & CUDA_ARRAY3D_SPARSE) {
        layout_of(t->desc, t->levels, &t->layout);
        if (info->subresourceType == CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL) {
            uint64_t at = info->subresource.miptail.offset, size = info->subresource.miptail.size, tail = t->layout.tail * TILE;

            if (info->subresource.miptail.layer || !size || (at | size) % TILE || size > tail || at > tail - size)
                return false;
            line(t, t->layout.tail_at + at / TILE, size / TILE);
        } else if (!region(info, t)) {
            return false;
        }
    } else {
        line(t, 0, 1);
    }
    if (!map)
        return !info->memHandle.memHandle;
    t->memory = info->memHandleType == CU_MEM_HANDLE_TYPE_GENERIC ? sim_phys_of(info->memHandle.memHandle) : NULL;
    bytes = t->extent[0] * t->extent[1] * t->extent[2] * t->tiles->bytes;
    return t->memory && t->memory->dev == dev && (t->memory->prop.allocFlags.usage & CU_MEM_CREATE_USAGE_TILE_POOL) &&
           info->offset % (t->tiles->bytes < sim_granularity() ? t->tiles->bytes : sim_granularity()) == 0 &&
           bytes <= t->memory->size && info->offset <= t->memory->size - bytes;
}

static void apply(struct target *t, int level)
{
    const uint64_t *l = t->layout.level[level];

    for (uint64_t z = 0; z < t->extent[2]; z++)
        for (uint64_t y = 0; y < t->extent[1]; y++)
            for (uint64_t x = 0; x < t->extent[0]; x++)
                put(t->tiles, t->base + ((t->from[3] * l[2] + t->from[2] + z) * l[1] + t->from[1] + y) * l[0] + t->from[0] + x,
                    t->memory);
}

/* All of the list or nothing. It takes effect at once, whatever the stream still waits for (assumed). */
static CUresult map_arrays(const CUarrayMapInfo *list, unsigned int count, CUstream stream, bool per_thread)
{
    struct sim_stream *s;
    struct target t;
    CUresult r;
    SIM_GUARD();

    if (!list || !count)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, stream, per_thread);
    r = sim_capture_forbid(s);
    if (r != CUDA_SUCCESS)
        return r;
    for (unsigned int i = 0; i < count; i++)
        if (!check(&list[i], s->head.ctx->dev, &t))
            return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < count; i++) {
        bool shaped;

        check(&list[i], s->head.ctx->dev, &t);
        shaped = (t.desc->Flags & CUDA_ARRAY3D_SPARSE) && list[i].subresourceType != CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL;
        apply(&t, shaped ? (int)list[i].subresource.sparseLevel.level : 0);
    }
    return sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_EMPTY}, NULL);
}

CUresult cuMemMapArrayAsync(CUarrayMapInfo *mapInfoList, unsigned int count, CUstream hStream)
{
    ENTER();
    return map_arrays(mapInfoList, count, hStream, false);
}

CUresult cuMemMapArrayAsync_ptsz(CUarrayMapInfo *mapInfoList, unsigned int count, CUstream hStream)
{
    ENTER();
    return map_arrays(mapInfoList, count, hStream, true);
}
