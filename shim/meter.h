/* SPDX-License-Identifier: Apache-2.0 */
/* Meters: charges whose size only the driver knows, and tells when it is asked. A memory pool has one, for what it has reserved, and so has
 * a device's graph memory. They lie in the process's memory that a fork wipes. */
#ifndef SOFTSLICE_SHIM_METER_H
#define SOFTSLICE_SHIM_METER_H

#include <stdbool.h>

#include "process.h"

#define METERS_MAX 1024

/* Zero-filled memory is no meters, to be placed at a multiple of 64. */
struct meters;
size_t meters_size(void);

enum meter_kind {
    METER_POOL,
    METER_GRAPHS,  /* a device's graph memory */
    METER_FOREIGN, /* a pool that costs this process nothing: another process's, or on the host. Never asked */
};

struct meter {
    uint64_t handle;    /* CUmemoryPool, or 1 + the quota device of graph memory; does not change while the meter is held */
    uint64_t users;     /* atomic: low half: threads that hold it, high half: how many ever did */
    uint64_t blocks;    /* atomic: allocations from the pool that were recorded and not freed */
    uint64_t claimed;   /* atomic: of its room, by allocations on their way for which the budget has none */
    uint64_t threshold; /* atomic: up to this the driver keeps what a synchronisation finds unused */
    uint64_t tickets;   /* atomic: of readings, given out before the driver is asked */
    uint64_t applied;   /* under the lock: the latest ticket whose reading was applied */
    uint64_t charged;   /* under the lock, read without */
    uint64_t orphaned;  /* under the lock: what was charged when its pool was destroyed before its blocks */
    uint32_t lock;
    uint16_t device;
    uint8_t kind;
    uint8_t state; /* atomic */
} __attribute__((aligned(64)));

/* The meter of a pool that the driver named, not the program: found, or made if no pool has been ended or become current since `changes` was read,
 * before the driver was asked. NULL otherwise: the pool may have been destroyed meanwhile, and its meter would stay for ever. */
struct meter *meter_of_found(CUmemoryPool pool, unsigned device, uint64_t changes);

/* The meter of a pool on quota device `device`, or of that device's graph memory: found or made. NULL: there are METERS_MAX already, or no host
 * memory; what has no meter cannot be charged, so it must not grow. */
struct meter *meter_of_pool(struct membership *membership, CUmemoryPool pool, unsigned device);
struct meter *meter_of_graphs(struct membership *membership, unsigned device);

/* The meter of a pool if it has one, else NULL. */
struct meter *meter_find(CUmemoryPool pool);

/* The meter of a pool that was just made: one that had its address ended on a road that we do not see. NULL as above. */
struct meter *meter_new(struct membership *membership, CUmemoryPool pool, unsigned device, enum meter_kind kind);

/* The meter of the pool that a device's allocations come from unless they name one, NULL while that is not known; and make it so, if nothing was
 * changed since the driver was asked. */
struct meter *meter_current(unsigned device);
void meter_set_current(struct meter *meter, uint64_t changes);

/* Around a driver's call that may make another pool a device's current one. */
void meters_change_begin(void);
void meters_change_end(void);

/* Whether none is on its way, nor was or came since meters_changes() returned `before`. */
uint64_t meters_changes(void);
bool meters_unchanged(uint64_t before);

/* Hold a meter: until it is let go, its pool is not destroyed. False if it is on its way out. *order, for meter_alone(). */
bool meter_hold(struct meter *meter, uint64_t *order);
void meter_let_go(struct meter *meter);

/* Whether nobody else has held it since this thread does. */
bool meter_alone(const struct meter *meter, uint64_t order);

/* A pool grows in whole pieces of this, as far as was seen; a power of two. And what was seen: one took `grown` at once for an allocation of
 * `bytes`. */
uint64_t meters_step(void);
void meters_saw_growth(uint64_t bytes, uint64_t grown);

/* Ask the driver, and charge or refund the difference. Of racing readings the one whose ticket is latest stands, and every change is followed
 * by a reading of who made it, so what stands at rest is what the last change left. Returns by how much this reading raised the charge. A
 * driver that does not answer changes nothing: METER_UNKNOWN. */
#define METER_UNKNOWN UINT64_MAX
uint64_t meter_read(struct membership *membership, struct meter *meter);

/* Whether any charge fell, or was just falling, since meters_shrunk() returned `before`: the driver gave that memory back some time before it. */
uint64_t meters_shrunk(void);
bool meters_shrank(uint64_t before);

/* Claim `bytes` of what the pool has reserved and not handed out, as the driver says and as far as nobody else has claimed it. False if there
 * are not so many. Others that have a reservation may take them all the same. */
bool meter_claim(struct meter *meter, uint64_t bytes);
void meter_unclaim(struct meter *meter, uint64_t bytes);

/* Before the driver is told to destroy a pool: from here on no other thread asks about the handle, which may be another pool's at once.
 * NULL where the pool has no meter. After it: if `gone`, the charge ends, with the pool's last block if it has any left. */
struct meter *meter_ending(CUmemoryPool pool);
void meter_ended(struct membership *membership, struct meter *meter, bool gone);

/* A block of the pool was recorded; a record of it, whose `bytes` are meter_number(), came out. */
void meter_block(struct meter *meter);
void meter_unblock(struct membership *membership, uint64_t number);
uint64_t meter_number(const struct meter *meter);

/* Read all of a device. */
void meters_read(struct membership *membership, unsigned device);

/* Read what of all devices a synchronisation may have made smaller. */
void meters_read_released(void);

/* What is charged for a pool or graph memory, and how much of that the driver says is handed out; not `known` where it was not asked, or does not tell. */
struct meter_told {
    unsigned device;
    enum meter_kind kind;
    uint64_t charged, used;
    bool known, orphan;
};

/* Call `each` for every one that is charged, with the driver asked first if `ask`. */
void meters_tell(struct membership *membership, bool ask, void (*each)(void *argument, const struct meter_told *told),
                 void *argument);

/* Make the driver give back what all pools and graphs of this process keep on a device without using it, and read again. Whether anything came
 * back. What the GPU has not finished with stays: nothing is waited for. */
bool meters_give_back(struct membership *membership, unsigned device);

#endif
