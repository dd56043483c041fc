/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the ledger say to each other. */
#ifndef SOFTSLICE_CORE_LEDGER_INTERNAL_H
#define SOFTSLICE_CORE_LEDGER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "ledger_layout.h"
#include "new_file.h"
#include "softslice/ledger.h"

#define LEDGER_NAME        "ledger" /* the file in a tenant's folder */
#define LEDGER_OWN_PREFIX  "proc-"  /* a process-own tenant's folder: the prefix and 16 hexadecimal digits */
#define LEDGER_OWN_LENGTH  21
#define LEDGER_MADE_PREFIX "run-" /* a tenant whose name was made up: the prefix, a pid, '-' and so many hexadecimal digits */
#define LEDGER_MADE_DIGITS 8
#define LEDGER_ANSWER      "explain-" /* a member's ledger_answer(): the prefix and its slot */
#define LEDGER_TEMPORARY   ".new-"    /* a folder without its name yet; a file not yet published, where O_TMPFILE does not work */

/* Set ledger->error and return `code`. */
int ledger_fail(struct ledger *ledger, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A short reason for people: strerror() is not reentrant and takes the locale's locks. */
const char *ledger_reason(int code);

/* ---- ledger_apart.c */

/* Run `work` in a task that shares this process's memory but has a copy of its file table: what it opens is seen by no fork, dup2 or
 * closefrom of another thread, and what those do does not reach it. All signals are blocked in it. Where no such task can be had,
 * `work` runs in the calling thread; it may then run a second time, so it must start from its inputs. */
int ledger_apart(int (*work)(void *argument), void *argument);

/* ---- ledger_dir.c */

/* Who may write in a directory. */
enum ledger_trust { LEDGER_FOREIGN, LEDGER_PRIVATE, LEDGER_SHARED };
enum ledger_trust ledger_dir_trust(const struct stat *status);

/* Open a tenant's folder, creating it where needed. A directory fd or -errno with ledger->error. */
int ledger_folder_open(struct ledger *ledger, int dirfd, const char *name, enum ledger_trust state, bool own);

bool ledger_name_is_own(const char *name);

/* Remove folders of process-own and made-up tenants that have ended; looks at a bounded number of them, from a random one on. */
void ledger_collect(int dirfd);

/* Remove from a folder files that were never published, whose makers died, or find that out and begin again; and answers, whose members have ended. */
void ledger_sweep(int folder);

/* ---- ledger_file.c */

/* Fill the constant part for `slots` slots. */
void ledger_header_init(struct ledger_header *header, uint32_t slots);

/* Whether the constant part, read from `size` bytes of file, can be worked with. NULL, or what is wrong with it. */
const char *ledger_header_fault(const struct ledger_header *header, const void *constant, uint64_t size);

/* The same for devices, limits and slots of a mapped file whose header is good. */
const char *ledger_tables_fault(const struct ledger *ledger);

/* Fill a handle's copies of what a good header says. */
void ledger_take_header(struct ledger *ledger, const struct ledger_header *header);

/* Create an unpublished file of `slots` slots, all its space allocated. fd, or -errno. `temporary` receives its name, "" if none. */
int ledger_file_create(int folder, uint32_t slots, unsigned mode, char temporary[NEW_FILE_TEMPORARY]);

/* Publish it: 0, -EEXIST (another process was faster), or -errno. The temporary name is gone afterwards. */
int ledger_file_publish(int folder, int fd, const char *temporary);

/* ---- ledger_bury.c */

/* Zero what a slot holds and free it. The caller has a lock on it that lets nobody take it. */
void ledger_clear_slot(struct ledger *ledger, uint32_t slot);

/* A slot that the caller could lock for reading, so its owner is dead: its bytes stay counted if the witness can tell of them (true), and are
 * taken off else, like those of one that has been dead for 2 s. */
bool ledger_find_dead(struct ledger *ledger, uint32_t slot);

/* Bury every dead member, through an open file of its own, as far as the witness lets. The number of live members, this one included, or -errno where it cannot
 * be known (then nobody was buried). */
int ledger_bury(struct ledger *ledger);

/* Bury the dead, unless somebody of this process did in the last 100 ms. */
void ledger_look(struct ledger *ledger);

/* Whether a dead member's bytes still count. */
bool ledger_has_dead(const struct ledger *ledger);

/* ---- ledger_suspend.c */

/* Have a suspended word count as tentative bytes of `slot`. False where it is not suspended, or another slot is at it. */
bool ledger_begin_restoring(uint64_t *committed, uint32_t slot);

/* It is suspended as before, if it is `slot` that was at it. */
void ledger_end_restoring(uint64_t *committed, uint32_t slot);

/* ---- ledger.c */

/* Everything charged on a device, the dead who are not buried yet with it. */
uint64_t ledger_total(const struct ledger *ledger, unsigned device);

/* ledger_reserve() for what another member's suspended word has: 0 with that counted as tentative (or in no need of it), or -ENOMEM. */
int ledger_reserve_suspended(struct ledger *ledger, unsigned device, uint64_t *suspended, uint64_t cap);

/* ---- ledger_read.c */

/* Open a tenant's ledger with `flags` (O_RDONLY or O_RDWR) and read its header: fd, or -errno. */
int ledger_open(int dirfd, const char *name, int flags, struct ledger_header *header);
/* Open a file that others may have put there. One that is not regular is not opened at all, for that alone moves some devices, and root of a container can
 * make any: -EPROTO, -ELOOP for a symbolic link. */
int ledger_open_regular(int folder, const char *name, int flags);

/* ledger_read() of what was opened. */
int ledger_read_all(int fd, const struct ledger_header *header, struct ledger_view *view);

/* Read all of `size` bytes: 0, or -errno. */
int ledger_read_bytes(int fd, void *buffer, size_t size, uint64_t offset);

/* ---- ledger_events.c */

/* Tell of anybody; time, count and UUID are not the caller's to fill. */
void ledger_tell_of(struct ledger *ledger, const struct ledger_told *told, int device);

/* Tell of a slot's owner. */
void ledger_tell_member(struct ledger *ledger, unsigned slot, enum ledger_kind kind, int device, uint64_t bytes);

/* Tell of the end of a slot's owner, once: of each device on which it has something, or of none. `kind` is LEDGER_DIED or LEDGER_LEFT. */
void ledger_tell_end(struct ledger *ledger, unsigned slot, enum ledger_kind kind);

/* ---- ledger_change.c */

/* Whether this process may change an open ledger from outside, which is its owner's and root's: 0, or -EPERM, -EMLINK, another -errno. */
int ledger_may_change(int fd);

/* ---- ledger_ask.c */

/* What the member in `slot` answered last, as far as `size` reaches: its length, or -errno; -ENOENT where there is none. */
ssize_t ledger_read_answer(int dirfd, const char *name, uint32_t slot, void *data, size_t size);

/* ---- ledger_members.c */

/* What a slot that is taken keeps on the host of a device's data. */
uint64_t ledger_spilled(const struct ledger *ledger, unsigned device, unsigned slot);

/* ---- ledger_compute.c */

/* Whether the owner of a slot that is taken is of a library that knows of shares, and what it has armed. */
bool ledger_knows_compute(const struct ledger *ledger, unsigned slot);
unsigned ledger_arms_of(const struct ledger *ledger, unsigned slot);

/* Begin the shares and weights of all devices anew. */
void ledger_begin_compute(struct ledger *ledger);

/* No work of this slot's, anywhere. */
void ledger_clear_busy(struct ledger *ledger, unsigned slot);

/* Add what the file says of a device's share to its state: from a copy of it (NULL: the file has none). */
void ledger_tell_compute(const struct ledger_compute *compute, bool armed, struct ledger_device_state *state);

/* ---- the mapped file */

static inline bool ledger_usable(const struct ledger *ledger, unsigned device)
{
    return ledger->file && device < ledger->devices;
}

static inline struct ledger_device *ledger_device_at(const struct ledger *ledger, unsigned device)
{
    return (struct ledger_device *)((char *)ledger->file + ledger->device_offset + (size_t)device * ledger->device_stride);
}

static inline struct ledger_slot *ledger_slot_at(const struct ledger *ledger, unsigned slot)
{
    return (struct ledger_slot *)((char *)ledger->file + ledger->slot_offset + (size_t)slot * ledger->slot_stride);
}

/* NULL where the file has none, or an older library took the slot. */
static inline struct ledger_slot_more *ledger_slot_more(const struct ledger *ledger, unsigned slot)
{
    struct ledger_slot *first = ledger_slot_at(ledger, slot);
    struct ledger_slot_more *more = (struct ledger_slot_more *)(first + 1);

    return ledger->extra_offset && __atomic_load_n(&more->tag, __ATOMIC_SEQ_CST) == __atomic_load_n(&first->since, __ATOMIC_SEQ_CST)
               ? more
               : NULL;
}

/* The same, for a slot on a device. */
static inline struct ledger_extra *ledger_extra(const struct ledger *ledger, unsigned device, unsigned slot)
{
    if (!ledger_slot_more(ledger, slot))
        return NULL;
    return (struct ledger_extra *)((char *)ledger->file + ledger->extra_offset +
                                   ((size_t)device * ledger->slots + slot) * ledger->extra_stride);
}

/* NULL where the file has none. */
static inline struct ledger_compute *ledger_compute(const struct ledger *ledger, unsigned device)
{
    if (!ledger->compute_offset)
        return NULL;
    return (struct ledger_compute *)((char *)ledger->file + ledger->compute_offset + (size_t)device * ledger->compute_stride);
}

/* Of a slot on a device, in a file that has struct ledger_compute. */
static inline uint64_t *ledger_busy_at(const struct ledger *ledger, unsigned device, unsigned slot)
{
    return (uint64_t *)((char *)ledger->file + ledger->busy_offset + ((size_t)device * ledger->slots + slot) * ledger->busy_stride);
}

/* The holds of all slots on a device. */
static inline struct ledger_hold *ledger_holds(const struct ledger *ledger, unsigned device)
{
    return (struct ledger_hold *)((char *)ledger->file + ledger->hold_offset) + (size_t)device * ledger->slots;
}

static inline uint64_t ledger_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static inline void ledger_store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static inline uint32_t ledger_used(const struct ledger *ledger)
{
    uint32_t used = __atomic_load_n(&ledger->file->slots_used, __ATOMIC_SEQ_CST);

    return used < ledger->slots ? used : ledger->slots;
}

#endif
