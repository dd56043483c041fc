/* SPDX-License-Identifier: Apache-2.0 */
/* The file that HAMi's monitor reads of a container: who lives there, what each holds of which GPU, and the limits. Written for the monitor alone: nothing
 * that is in it is believed, but for what the monitor says in it about the compute limit. No CUDA in here. */
#ifndef SOFTSLICE_HAMI_H
#define SOFTSLICE_HAMI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HAMI_MAGIC   19920718
#define HAMI_MAJOR   1
#define HAMI_MINOR   2
#define HAMI_DEVICES 16
#define HAMI_SLOTS   1024
#define HAMI_UUID    96

/* The layout, version 1.2. The monitor maps the file once for a container, so it is never replaced or cut, and adds up the slots below `slots_used`
 * whatever their status: one that nobody has is all zeros. */
struct hami_head {
    int32_t magic, major, minor, shares_begun;
    uint64_t owner;     /* of the semaphore */
    uint8_t locked[32]; /* a sem_t, which nobody here waits for */
    uint64_t devices;   /* how many of the following count */
    char uuid[HAMI_DEVICES][HAMI_UUID];
    uint64_t limit[HAMI_DEVICES]; /* bytes */
    uint64_t share[HAMI_DEVICES]; /* percent */
};

struct hami_memory {
    uint64_t context, module, data, offset, total, unused[3];
};

struct hami_utilization {
    uint64_t decoder, encoder, sm, unused[3]; /* percent */
};

struct hami_slot {
    int32_t pid, host_pid;
    struct hami_memory memory[HAMI_DEVICES];
    uint64_t monitored[HAMI_DEVICES];
    struct hami_utilization utilization[HAMI_DEVICES];
    int32_t status, unused;
    uint64_t sequence; /* odd: being written, for HAMi's own library */
    uint64_t author;   /* HAMI_AUTHOR: a process of ours */
    uint64_t unused_too;
};

#define HAMI_AUTHOR UINT64_C(0x63696c7374666f73) /* "softslic" */

struct hami_tail {
    int32_t slots_used, share_holds, recent_kernel, priority;
    int64_t last_kernel;    /* s since 1970, 0 unknown */
    uint8_t locked_too[32]; /* another sem_t */
};

#define HAMI_SLOT_AT(slot) (sizeof(struct hami_head) + (size_t)(slot) * sizeof(struct hami_slot))
#define HAMI_TAIL_AT       HAMI_SLOT_AT(HAMI_SLOTS)
#define HAMI_LEAST         (HAMI_TAIL_AT + sizeof(struct hami_tail)) /* bytes without which the monitor does not read it */
#define HAMI_SIZE          (HAMI_LEAST + 1)                          /* what HAMi's library makes it */

_Static_assert(sizeof(struct hami_head) == 1856 && offsetof(struct hami_head, owner) == 16 &&
                   offsetof(struct hami_head, locked) == 24 && offsetof(struct hami_head, devices) == 56 &&
                   offsetof(struct hami_head, uuid) == 64 && offsetof(struct hami_head, limit) == 1600 &&
                   offsetof(struct hami_head, share) == 1728,
               "another's file format");
_Static_assert(sizeof(struct hami_slot) == 1960 && offsetof(struct hami_slot, memory) == 8 &&
                   offsetof(struct hami_slot, monitored) == 1032 && offsetof(struct hami_slot, utilization) == 1160 &&
                   offsetof(struct hami_slot, status) == 1928 && offsetof(struct hami_slot, sequence) == 1936,
               "another's file format");
_Static_assert(HAMI_TAIL_AT == 2008896 && HAMI_LEAST == 2008952, "another's file format");

/* What a process has to say. */
struct hami_told {
    uint32_t slot; /* its own: nobody else of the container has it */
    uint32_t devices;
    bool begins; /* no other process of the container lives: what is there is of a former life */
    bool active; /* work was launched since the last time, or may have been */
    bool worked; /* it was, a moment ago */
    uint8_t priority;
    struct hami_slot own;
    struct {
        char uuid[HAMI_UUID]; /* "": this process does not know it */
        uint64_t limit, share;
    } device[HAMI_DEVICES];
    uint64_t living[HAMI_SLOTS / 64]; /* bits: slots of all who live, its own among them */
};

/* Write it to the file `path`, making that where it is missing. What is there of processes that died is taken out; what HAMi's own library has there of
 * processes that live stays. *holds: whether the monitor wants the compute limit kept, unchanged where that cannot be told. 0, or -errno: -EPROTO where
 * there is a file that is another's. Waits for nobody; no descriptor of it is seen by other threads; keeps errno. */
int hami_tell(const char *path, const struct hami_told *told, bool *holds);

/* This process ends: take out its slot, if the file is there. */
void hami_leave(const char *path, uint32_t slot);

/* The file as hami_tell() makes it, without any process. */
void hami_begin(const struct hami_told *told, struct hami_head *head, struct hami_tail *tail);

#endif
