/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps what executable graphs take, and reserves it around their launches.
 *
 * From CUDA's documentation: a launch maps memory to the graph's allocations and they stay mapped for the next one; graphs that run one after
 * the other in a stream may share it; a launch into another stream, a trim, and another graph's allocation that was left in shared memory
 * make the driver map anew. So at its first launch, and after each of these, a graph may take as much as its allocations come to: that is
 * reserved before, and what the driver's graph memory has become is read after. A replay of the same graph in the same stream takes nothing:
 * nothing is reserved and nothing asked, unless some graph leaves allocations behind. Then a replay may have to make room, and reserves it
 * as long as there is any; where there is not it is let through, for nearly always it needs none, and the reading tells.
 *
 * A trim in another thread, ours before a refusal for instance, would take a replayed graph's memory away while it is on its way into the
 * driver: it waits a little for launches under way, and launches wait a little for it. */
#include "graphs.h"

#include <errno.h>

#include "../core/compat.h"
#include "draw.h"
#include "meter.h"
#include "relaxed.h"
#include "take.h"

/* How long a launch waits for a trim to be over, and a trim for launches, which take microseconds. */
#define WAIT_ROUNDS   200
#define WAIT_SLEEP_NS 50000

/* The number of an executable graph's part is in bits that no address uses. */
#define PART_SHIFT 58

uint32_t graphs_memory_nodes;

static uint32_t leaving; /* some graph leaves allocations behind */

static struct {
    uint64_t generation; /* trims that took something away */
    uint32_t launching, trimming;
} __attribute__((aligned(64))) state[QUOTA_DEVICES];

void graphs_note_memory_node(void)
{
    if (!graphs_noted())
        __atomic_store_n(&graphs_memory_nodes, 1, __ATOMIC_RELAXED);
}

/* ---- what is remembered: a record for each device that a graph has memory on; `context` is what backing() said at its last launch,
 * `family` how many records there are, `small` whether it leaves allocations behind */

static uint64_t part_key(CUgraphExec exec, unsigned part)
{
    return (uint64_t)(uintptr_t)exec | (uint64_t)part << PART_SHIFT;
}

/* A number for where and when a launch was: never 0. */
static uint64_t backing(uint64_t stream, uint64_t generation)
{
    uint64_t mixed = (stream ^ generation * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xff51afd7ed558ccd);
    return (mixed ^ mixed >> 32) | 1;
}

static bool put(CUgraphExec exec, unsigned part, struct record *record)
{
    struct record old;

    record->key = part_key(exec, part);
    return records_put(process_graphs(), record, &old) >= 0;
}

static void read_meter(struct membership *m, unsigned device)
{
    struct meter *meter = meter_of_graphs(m, device);

    if (meter)
        meter_read(m, meter);
}

/* Take out what is remembered; how many parts it was. */
static unsigned take_out(CUgraphExec exec, struct record *record)
{
    unsigned parts = 0;

    while (process_graphs() && parts < QUOTA_DEVICES && (!parts || parts < record[0].family) &&
           records_take(process_graphs(), part_key(exec, parts), &record[parts]))
        parts++;
    return parts;
}

void graphs_ending_begin(struct graphs_ending *ending, CUgraphExec exec)
{
    ending->membership = process_membership(NULL);
    ending->parts = ending->membership ? take_out(exec, ending->part) : 0;
}

void graphs_ending_end(struct graphs_ending *ending, CUresult result)
{
    struct record old;

    for (unsigned i = 0; i < ending->parts; i++) {
        if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED)
            read_meter(ending->membership, ending->part[i].device);
        else
            records_put(process_graphs(), &ending->part[i], &old);
    }
}

/* Memory nodes that are made on a road which we do not see are found when a graph is instantiated. The next ABI of cuGraphAddNode is such a
 * road: a driver that has it has its graphs looked at. */
static bool may_have_memory(void)
{
    return graphs_noted() || real_address((unsigned)resolve_name("cuGraphAddNode_v3"));
}

bool graphs_measure(struct graph_need *need, CUgraph graph)
{
    struct membership *m;

    if (!may_have_memory() || !(m = process_membership(NULL)) || !process_graphs())
        return false;
    if (graph_need(m, graph, need))
        graphs_note_memory_node();
    return graphs_noted();
}

/* In place of what an executable graph that had the same address took. */
static bool remember(const struct graph_need *need, CUgraphExec exec)
{
    struct record old[QUOTA_DEVICES];

    take_out(exec, old);
    for (unsigned i = 0; i < need->devices; i++) {
        struct record record = {.bytes = need->on[i].bytes,
                                .device = (uint16_t)need->on[i].device,
                                .family = (uint8_t)need->devices,
                                .small = need->on[i].left != 0};
        if (record.small)
            __atomic_store_n(&leaving, 1, __ATOMIC_RELAXED);
        if (!put(exec, i, &record))
            return false;
    }
    return true;
}

bool graphs_remember(const struct graph_need *need, CUgraphExec exec)
{
    struct membership *m = process_membership(NULL);

    for (unsigned i = 0; m && i < need->devices; i++)
        if (need->on[i].bytes > quota_limit(&m->quota, need->on[i].device)) {
            quota_refuse(&m->quota, need->on[i].device, need->on[i].bytes, QUOTA_GRAPH);
            return false;
        }
    return remember(need, exec);
}

void graphs_updated(CUgraphExec exec, CUgraph graph)
{
    struct graph_need need;

    if (graphs_measure(&need, graph))
        remember(&need, exec);
}

/* ---- launches */

/* The default streams are a context's, or a thread's in a context. */
static uint64_t stream_number(CUstream stream)
{
    CUcontext context = NULL;

    if (stream && stream != CU_STREAM_PER_THREAD && stream != CU_STREAM_LEGACY)
        return (uint64_t)(uintptr_t)stream;
    called.cuCtxGetCurrent(&context);
    return (uint64_t)(uintptr_t)context * 31 + (stream == CU_STREAM_PER_THREAD ? (uint64_t)(uintptr_t)&guard_depth : 1);
}

static void wait_while(const uint32_t *busy)
{
    int saved = errno;

    for (unsigned round = 0; round < WAIT_ROUNDS && __atomic_load_n(busy, __ATOMIC_SEQ_CST); round++)
        compat_sleep(WAIT_SLEEP_NS);
    errno = saved;
}

/* Announce the launch on a device, so that nothing is trimmed there meanwhile. */
static void enter(struct graphs_launch *launch, unsigned part, unsigned device)
{
    __atomic_fetch_add(&state[device].launching, 1, __ATOMIC_SEQ_CST);
    launch->part[part].generation = __atomic_load_n(&state[device].generation, __ATOMIC_SEQ_CST);
}

static void leave(unsigned device)
{
    __atomic_fetch_sub(&state[device].launching, 1, __ATOMIC_SEQ_CST);
}

/* Whether the memory of an announced launch is where it was at the last one, and stays there. */
static bool backed(const struct graphs_launch *launch, unsigned part, const struct record *record)
{
    return record->context == backing(launch->stream, launch->part[part].generation) &&
           !__atomic_load_n(&state[record->device].trimming, __ATOMIC_SEQ_CST);
}

static void cancel(struct graphs_launch *launch)
{
    for (unsigned i = 0; i < launch->parts; i++) {
        leave(launch->part[i].charge.device);
        quota_cancel(&launch->membership->quota, &launch->part[i].charge);
    }
    launch->membership = NULL;
}

/* Announce a part whose memory is where it was. False: it may take as much as it comes to. */
static bool replay(struct graphs_launch *launch, unsigned part, const struct record *record)
{
    struct quota_charge *charge = &launch->part[part].charge;

    wait_while(&state[record->device].trimming);
    enter(launch, part, record->device);
    if (!backed(launch, part, record)) {
        leave(record->device);
        return false;
    }
    if (__atomic_load_n(&leaving, __ATOMIC_RELAXED)) {
        quota_try_reserve(&launch->membership->quota, charge, record->device, record->bytes, QUOTA_GRAPH);
        launch->asks = true;
    }
    return true;
}

/* Reserve a part, and announce it only then: what can be given back may have to be. */
static bool reserve(struct graphs_launch *launch, unsigned part, const struct record *record)
{
    struct membership *m = launch->membership;

    launch->asks = true;
    if (!meter_of_graphs(m, record->device) ||
        !take_reserve(m, &launch->part[part].charge, record->device, record->bytes, QUOTA_GRAPH))
        return false;
    enter(launch, part, record->device);
    return true;
}

static CUresult begin(struct graphs_launch *launch, const struct record *record, unsigned parts, CUstream stream)
{
    launch->attempt = 0;
    launch->asks = false;
    launch->stream = stream_number(stream);
    for (launch->parts = 0; launch->parts < parts; launch->parts++) {
        unsigned part = launch->parts;
        launch->part[part].charge = (struct quota_charge){.device = record[part].device, .family = QUOTA_GRAPH};
        if (replay(launch, part, &record[part]))
            continue;
        bool captured = draw_captures(stream);
        if (captured || !reserve(launch, part, &record[part])) {
            cancel(launch);
            return captured ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    guard_enter();
    return CUDA_SUCCESS;
}

CUresult graphs_launch_begin(struct graphs_launch *launch, CUgraphExec exec, CUstream stream, bool per_thread)
{
    struct record record[QUOTA_DEVICES];
    unsigned parts = 1;

    launch->exec = exec;
    launch->membership = process_membership(NULL);
    record[0].family = 0;
    for (unsigned i = 0; launch->membership && process_graphs() && i < parts && i < QUOTA_DEVICES; i++) {
        if (!records_find(process_graphs(), part_key(exec, i), &record[i]))
            break;
        parts = record[0].family;
    }
    if (!record[0].family) { /* no memory nodes in this one */
        launch->membership = NULL;
        return CUDA_SUCCESS;
    }
    return begin(launch, record, parts, draw_stream(stream, per_thread));
}

CUresult graphs_upload_begin(struct graphs_launch *launch, const struct graph_need *need, CUstream stream, bool per_thread)
{
    struct record record[QUOTA_DEVICES];

    launch->exec = NULL;
    launch->membership = process_membership(NULL);
    for (unsigned i = 0; i < need->devices; i++)
        record[i] = (struct record){.bytes = need->on[i].bytes, .device = (uint16_t)need->on[i].device};
    return launch->membership ? begin(launch, record, need->devices, draw_stream(stream, per_thread)) : CUDA_SUCCESS;
}

bool graphs_launch_again(struct graphs_launch *launch, CUresult result)
{
    if (result != CUDA_ERROR_OUT_OF_MEMORY || !launch->membership)
        return false;
    for (unsigned i = 0; i < launch->parts; i++)
        if (quota_retry_oom(&launch->membership->quota, launch->part[i].charge.device, &launch->attempt))
            return true;
    return false;
}

/* Remember that a part's memory is where this launch put it. */
static void note_backing(const struct graphs_launch *launch, unsigned part)
{
    struct record record;

    if (!launch->exec || !records_take(process_graphs(), part_key(launch->exec, part), &record))
        return;
    record.context = backing(launch->stream, launch->part[part].generation);
    put(launch->exec, part, &record);
}

void graphs_launch_end(struct graphs_launch *launch, CUresult result)
{
    struct membership *m = launch->membership;

    if (!m)
        return;
    guard_leave();
    for (unsigned i = 0; i < launch->parts; i++) {
        const struct graphs_part *part = &launch->part[i];
        unsigned device = part->charge.device;

        leave(device);
        if (launch->asks || __atomic_load_n(&state[device].generation, __ATOMIC_SEQ_CST) != part->generation)
            read_meter(m, device);
        quota_cancel(&m->quota, &part->charge);
        if (launch->asks && result == CUDA_SUCCESS)
            note_backing(launch, i);
    }
}

/* ---- trims */

static uint64_t charged(struct membership *m, unsigned device)
{
    struct meter *meter = meter_of_graphs(m, device);

    return meter ? __atomic_load_n(&meter->charged, __ATOMIC_RELAXED) : 0;
}

bool graphs_trim_begin(struct graphs_trim *trim, struct membership *m, unsigned device, bool asked)
{
    *trim = (struct graphs_trim){.device = device, .before = charged(m, device)};
    __atomic_fetch_add(&state[device].trimming, 1, __ATOMIC_SEQ_CST);
    wait_while(&state[device].launching);
    if (asked || !__atomic_load_n(&state[device].launching, __ATOMIC_SEQ_CST))
        return true;
    __atomic_fetch_sub(&state[device].trimming, 1, __ATOMIC_SEQ_CST);
    return false;
}

/* What a launch under way has counted on stays charged until that has read the meter, which it does where the generation has changed. */
bool graphs_trim_end(const struct graphs_trim *trim, struct membership *m)
{
    unsigned device = trim->device;
    bool launching = __atomic_load_n(&state[device].launching, __ATOMIC_SEQ_CST);

    if (!launching)
        read_meter(m, device);
    bool less = charged(m, device) < trim->before;
    if (less || launching)
        __atomic_fetch_add(&state[device].generation, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_sub(&state[device].trimming, 1, __ATOMIC_SEQ_CST);
    if (launching && !__atomic_load_n(&state[device].launching, __ATOMIC_SEQ_CST))
        read_meter(m, device);
    return less;
}
