/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds how much: one file per tenant, mapped by each of its processes. Design, section 5.
 *
 * The total of a device is the sum of its slots, never a counter of its own, so a process that is killed at any instruction takes
 * its share of the total with it. A slot is alive while its owner holds an OFD lock on the slot's byte through an open file of
 * which one page stays mapped (MADV_DONTFORK): the kernel releases it at death, in any PID namespace. */
#ifndef SOFTSLICE_LEDGER_H
#define SOFTSLICE_LEDGER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softslice/share.h"

#define LEDGER_DEVICES   32   /* devices in one ledger */
#define LEDGER_SLOTS     1024 /* processes of one named tenant; a process-own tenant's file has one slot */
#define LEDGER_ERROR_MAX 512
#define LEDGER_NO_LIMIT  UINT64_MAX
#define LEDGER_DEAD_NS   UINT64_C(2000000000) /* for so long after its burial a dead member's bytes may count */
#define LEDGER_RENEW_NS  UINT64_C(50000000)   /* a busy word that is older is looked into */

/* The state directory where a name in the environment, and not the user, says what is one tenant: the programs of a container can be of several users.
 * Made where it is missing, for all to write, sticky. */
#define LEDGER_COMMON_DIR "/dev/shm/softslice-hami"

/* What a member has armed (design, section 2), bits. */
#define LEDGER_ARMS_VRAM    1
#define LEDGER_ARMS_COMPUTE 2

struct ledger_header; /* the mapped layout: core/ledger_layout.h */

/* What is told of a tenant in its ring of events; they stand in the file, and are only appended to. `bytes`, `limit` and `current` of each: */
enum ledger_kind {
    LEDGER_REFUSED = 1, /* an allocation: what was asked for, the limit in force, what the tenant had */
    LEDGER_OOM,         /* the GPU itself was full: 0, the limit in force, what the tenant had */
    LEDGER_DIED, /* a member went without an exit (killed, crashed, _exit, exec): what it had there; its slot's `since`; what the tenant has */
    LEDGER_LEFT,        /* a member exited: the same, what it had still being counted */
    LEDGER_JOINED,      /* a member came: 0; its slot's `since`; 0 */
    LEDGER_SET_VRAM,    /* somebody set the limit: the one before, the new one (LEDGER_NO_LIMIT: none), what the tenant had */
    LEDGER_SET_COMPUTE, /* the same of the share, in hundredths of a percent: before, new, 0 */
    LEDGER_SET_WEIGHT,  /* the same of the weight: before (0: none), new, 0 */
    LEDGER_CHECKPOINTED, /* a member: what it had there, which leaves the total; its slot's `since`; what the tenant has without it */
    LEDGER_RESTORED,     /* a member: the same, with it */
    LEDGER_KINDS
};

/* Of a kind that can come in storms, on a device: where the last of them was told, so that those within LEDGER_STORM_NS are one with a count. */
struct ledger_storm {
    uint64_t until;   /* clock_now() */
    uint64_t entry;   /* the check of the entry in bits 32-63, its index plus 1 below; 0: none */
    uint64_t pending; /* to be added to a count */
};

#define LEDGER_STORM_NS UINT64_C(100000000)

/* A process's handle. All zeros is "not attached", so it can live in a MADV_WIPEONFORK page: a forked child owns no slot until it
 * attaches itself; its parent's stays. No other member than `error` is for callers. */
struct ledger {
    struct ledger_header *file; /* the mapping also keeps the slot's lock */
    uint64_t size;
    uint64_t file_device, file_inode;
    uint64_t pid_namespace;              /* inode of the one that this process is in, 0 unknown */
    uint64_t last_look;                  /* atomic: when the dead were last looked for */
    uint64_t answered, answered_at;      /* the newest request of ledger_ask() that is done with; when, 0: there is no answer */
    uint32_t slot, slots, devices;       /* own; how many of each there are */
    uint32_t device_stride, slot_stride; /* copies of what was validated: the file may be scribbled over later */
    uint32_t device_offset, slot_offset, hold_offset;
    uint32_t extra_offset, extra_stride;                               /* 0: the file is of version 1.0 */
    uint32_t compute_offset, compute_stride, busy_offset, busy_stride; /* 0: it is older than 1.2 */
    uint32_t event_offset, event_stride, event_lane;                   /* 0: it is older than 1.3; entries of a lane */
    struct ledger_storm storm[2][LEDGER_DEVICES];                      /* refusals, physical out-of-memory */
    bool first;                                                        /* no other member lived when this one attached */
    bool first_to_share;                                               /* the same for members that know of shares */
    char path[PATH_MAX];          /* of the file, to find the dead; "" where it could not be learned */
    char error[LEDGER_ERROR_MAX]; /* one line for people after a failed call */
};

/* The state directory to use: `configured` if not "" (LEDGER_COMMON_DIR is made where it is missing), else /run/softslice where it exists and is ours
 * (or is a sticky directory that everybody may write), else /dev/shm/softslice-UID, created 0700. Never a symlink. Returns an O_PATH-like directory fd
 * (O_CLOEXEC), or -errno with ledger->error set: missing, full, read-only, a symlink, foreign-owned. `path` receives its name. */
int ledger_state_dir(struct ledger *ledger, const char *configured, char *path, size_t path_size);

/* Close what ledger_state_dir() opened at `path`, unless another thread of the program has closed that number meanwhile and has something else
 * there now (a closefrom() while this process joined). */
void ledger_state_dir_close(int fd, const char *path);

/* Join the tenant `name` (NULL: a tenant of this process alone) in the state directory `dirfd`, creating its folder and file where
 * needed, and take a slot. Ledgers of ended process-own tenants are collected on the way. 0, or -errno with ledger->error:
 * -EPROTO (damaged or of another major version), -EUSERS (no free slot), -EACCES, -ENOSPC (file space is allocated at creation),
 * -EAGAIN (another process kept the attach lock for 5 s). Several threads may call it at once on different handles; publish one. */
int ledger_attach(struct ledger *ledger, int dirfd, const char *name);

/* A name for a tenant that nobody named, as `softslice run` makes it up: "run-PID-" of this process and 8 hexadecimal digits. Its folder is
 * collected like a process-own tenant's, once the process PID and all members have ended. */
void ledger_make_name(char name[64]);

/* Whether `name` has that form, and whose it is. */
bool ledger_name_is_made(const char *name, int *pid);

/* Give up the slot and unmap. Bytes still held vanish from the total. */
void ledger_detach(struct ledger *ledger);

/* Find or add `uuid` and enter `limit` as the ledger's limit if this process is the tenant's first live one or nobody set one yet.
 * LEDGER_NO_LIMIT enters none. Returns the device's index, -ENOSPC (LEDGER_DEVICES devices are there), -EINVAL (all-zero UUID). */
int ledger_add_device(struct ledger *ledger, const uint8_t uuid[16], uint64_t limit);

/* The ledger's limit for a device (LEDGER_NO_LIMIT if none), and its replacement (`softslice set`). Seen by the next reserve. */
uint64_t ledger_limit(const struct ledger *ledger, unsigned device);
void ledger_set_limit(struct ledger *ledger, unsigned device, uint64_t limit);

/* Whether a joiner's own limit binds it: always where the ledger's has not been replaced (the smaller of the two holds), after that only where it was
 * started with less than what the tenant's first process set. Two loads. */
bool ledger_own_binds(const struct ledger *ledger, unsigned device, uint64_t own);

/* Charge `bytes` tentatively if the tenant's total stays within min(ledger's limit, `cap`). 0; -ENOMEM where it does not fit even with
 * other processes' tentative charges set apart, after burying the dead; never blocks for longer than a racing charge takes to
 * settle, 1 s at most. Lock-free, no system call unless about to refuse. */
int ledger_reserve(struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t cap);

/* Turn `reserved` tentative bytes into `actual` committed ones (0: give all back). Never refuses: actual may be larger. */
void ledger_settle(struct ledger *ledger, unsigned device, uint64_t reserved, uint64_t actual);

/* Give back committed bytes of this process; saturates at 0 and counts an event if more is given back than held. */
void ledger_refund(struct ledger *ledger, unsigned device, uint64_t bytes);

/* The tenant's total of a device, committed and tentative, saturating. Buries the dead first, at most every 100 ms. */
uint64_t ledger_current(struct ledger *ledger, unsigned device);

/* This process's committed bytes on a device, and what it has reserved beside them and not settled. */
uint64_t ledger_own(const struct ledger *ledger, unsigned device);
uint64_t ledger_own_tentative(const struct ledger *ledger, unsigned device);

/* Whether `bytes` would fit now if what dead members had were gone: who was refused by ledger_reserve() asks again in a while, for it goes
 * within LEDGER_DEAD_NS of its burial. */
bool ledger_fits_without_dead(const struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t cap);

/* Change by `delta` what this process keeps of a device's data on the host (spill = host): no HBM, so apart from every total. Saturates
 * at 0 and at the largest; goes with the process. */
void ledger_spill(struct ledger *ledger, unsigned device, int64_t delta);

/* When (clock_now(), 0 never) a member was last found dead that had bytes here, or they were taken off the total: within 2 s of it a
 * physical CUDA_ERROR_OUT_OF_MEMORY may mean that the driver has not released them yet. */
uint64_t ledger_last_burial(const struct ledger *ledger, unsigned device);

enum ledger_event { LEDGER_EVENT_REFUSED, LEDGER_EVENT_OOM, LEDGER_EVENT_BURIED, LEDGER_EVENT_UNDERFLOW, LEDGER_EVENTS };

/* Count an event, as memory.events does. */
void ledger_count(struct ledger *ledger, unsigned device, enum ledger_event event);

/* ---- what happens, told to whoever watches: ledger_events.c. No lock, and no system call but the clock's; in a file older than 1.3 nothing is told */

/* Tell of this process (`device` -1: of no device in particular). Keeps errno. */
void ledger_tell(struct ledger *ledger, enum ledger_kind kind, int device, uint64_t bytes, uint64_t limit, uint64_t current);

/* Tell of a refusal or a physical out-of-memory (LEDGER_REFUSED, LEDGER_OOM); `family` is an enum quota_family. Those of one process and
 * device within LEDGER_STORM_NS of the first are one event with a count, whose bytes are the first one's. */
void ledger_tell_storm(struct ledger *ledger, enum ledger_kind kind, unsigned device, uint64_t bytes, uint64_t limit,
                       unsigned family);

/* This process exits: tell so, once, and not that it died. It may go on using the ledger. */
void ledger_tell_left(struct ledger *ledger);

/* Say what this process has armed (LEDGER_ARMS_*, beside what it said before). */
void ledger_arm(struct ledger *ledger, unsigned arms);

/* ---- compute: ledger_compute.c. In a file older than 1.2 there is none of it */

/* Whether the file has them. */
bool ledger_has_compute(const struct ledger *ledger);

/* The tenant's account of a device; NULL where the file has none. Zeros when it was never used; it outlives the members. */
struct share_account *ledger_account(struct ledger *ledger, unsigned device);

/* Enter a share (hundredths of a percent) and a weight (1 to 10000; 0: none) for a device, each where this process is the first live member that
 * knows of them or nobody set one yet. A share of SHARE_WHOLE enters none. */
void ledger_enter_compute(struct ledger *ledger, unsigned device, uint32_t share, uint32_t weight);

/* The ledger's share, SHARE_WHOLE where nobody set one, and its weight, 0 where nobody did; damaged ones read as 1. Their replacement: seen at the
 * next reading. */
uint32_t ledger_share(const struct ledger *ledger, unsigned device);
void ledger_set_share(struct ledger *ledger, unsigned device, uint32_t share);
uint32_t ledger_weight(const struct ledger *ledger, unsigned device);
void ledger_set_weight(struct ledger *ledger, unsigned device, uint32_t weight);

/* The share that the first live member entered, whatever it is now; 0 where it has entered none yet. *replaced: `softslice set` has replaced it. */
uint32_t ledger_first_share(const struct ledger *ledger, unsigned device, bool *replaced);

/* This process's own word for a device: 0 while it has no work there, else clock_now() when it last said that it has, to be renewed well within
 * LEDGER_RENEW_NS. NULL where the file has none. Only the owner writes it, atomically. */
uint64_t *ledger_busy_word(struct ledger *ledger, unsigned device);

/* Whether another live member has work on a device, by its busy word; one that is checkpointed has none. Looks for the dead, at most every 100 ms,
 * where a word was not renewed. Keeps errno. */
bool ledger_others_busy(struct ledger *ledger, unsigned device, uint64_t now);

/* What a device of a ledger looks like now, for status and tests. */
struct ledger_device_state {
    uint8_t uuid[16];
    uint64_t limit, current, peak, tentative, context_bytes;
    uint64_t spilled; /* on the host, of all live members */
    uint64_t events[LEDGER_EVENTS];
    bool compute;                       /* a live member has armed it; else all below is to be told as absent, not as 0 */
    uint32_t share, weight;             /* as ledger_share() and ledger_weight() have them */
    uint64_t busy, throttled, forgiven; /* ns, of the account, as the next ones are */
    uint64_t nr_periods, nr_throttled, turns_taken, turns_lost;
};
int ledger_device_state(struct ledger *ledger, unsigned device, struct ledger_device_state *state);

/* Bytes that a context took on this device when it was last measured by any process of the tenant, 0 if never. */
uint64_t ledger_context_bytes(const struct ledger *ledger, unsigned device);
void ledger_set_context_bytes(struct ledger *ledger, unsigned device, uint64_t bytes);

/* Whether the driver still shows processes on a device: sets shown[i] for each that it does. All are of the PID namespace of the caller; where
 * nobody can tell, none is shown. Called with nothing locked, by whoever buries the dead. */
typedef void ledger_witness(const uint8_t uuid[16], const uint32_t *pids, bool *shown, unsigned count);

/* Death is not free memory: a process's lock falls before the driver has released its memory. With a witness, the bytes of the dead of this
 * PID namespace stay in every total until it does not see them on that device any more, LEDGER_DEAD_NS at most. NULL: they go at once. */
void ledger_set_witness(ledger_witness *witness);

/* Another member of the tenant, or this process itself. */
struct ledger_peer {
    uint32_t slot;
    uint64_t since;
};

/* The live member that has this number in this process's PID namespace. 0 or -ENOENT. */
int ledger_find(const struct ledger *ledger, uint32_t pid, struct ledger_peer *peer);

/* A peer was checkpointed: what it holds on all devices leaves the totals but stays its own. It may go on refunding and settling meanwhile. */
void ledger_suspend(struct ledger *ledger, const struct ledger_peer *peer);

/* Whether this process itself is, with what it holds on a device. */
bool ledger_is_suspended(const struct ledger *ledger, unsigned device);

/* It is to be restored: count it again, on all devices or on none. How many devices that was, 0 if nothing of it is suspended, or -ENOMEM with
 * the first device that has no room under min(the ledger's limit, cap[device]), and for how much. */
struct ledger_refusal {
    unsigned device;
    uint64_t bytes;
};
int ledger_resume(struct ledger *ledger, const struct ledger_peer *peer, const uint64_t cap[LEDGER_DEVICES],
                  struct ledger_refusal *refusal);

/* It runs, whoever restored it: count what is suspended, whatever the limit. */
void ledger_resume_anyway(struct ledger *ledger, const struct ledger_peer *peer);

/* A tenant's ledger seen from outside, without joining or changing it: for status and exporters. */
struct ledger_view {
    unsigned members, devices; /* live members; devices known */
    unsigned arms;             /* what any live member has armed; those of a library older than 1.2 count as LEDGER_ARMS_VRAM */
    struct ledger_device_state device[LEDGER_DEVICES];
};

/* Look at tenant `name` in `dirfd`. Reads with bounded buffers and follows no symbolic link; the dead count for nothing, though they
 * stay unburied. 0, or -errno: -ENOENT (no such tenant), -ELOOP or -ENOTDIR, -EPROTO (damaged, of another major version, not a ledger). */
int ledger_read(int dirfd, const char *name, struct ledger_view *view);

/* What is wrong with a ledger for which ledger_read() gave -EPROTO, in a few words. */
const char *ledger_read_fault(int dirfd, const char *name);

/* A live member, or a dead one whose bytes still count, with what it has on each device of the view. */
struct ledger_seen {
    uint32_t slot, pid;     /* the latter in its own PID namespace */
    uint64_t since;         /* as in struct ledger_member */
    uint64_t pid_namespace; /* its inode; 0 unknown */
    unsigned arms;          /* LEDGER_ARMS_*; 0 for a dead one */
    bool dead;
    struct {
        uint64_t committed, tentative, spilled;
        bool suspended; /* as in struct ledger_member */
    } device[LEDGER_DEVICES];
};

/* ledger_read() that tells `hear` of each member on the way, when the view has its devices, in the order of the slots. */
typedef void ledger_hear(void *context, const struct ledger_seen *member);
int ledger_read_whole(int dirfd, const char *name, struct ledger_view *view, ledger_hear *hear, void *context);

/* What is to replace what the ledger says, for `softslice set`. */
struct ledger_change {
    bool vram, compute, weighted; /* which of the three are meant */
    uint64_t limit;
    uint32_t share, weight;
};

/* Change a running tenant's ledger from outside, on one device or (`uuid` NULL) on all that it knows. Nobody joins or leaves meanwhile. The number of
 * devices, with *before as ledger_read() saw it; or, with nothing changed, -errno as ledger_read(), or: -ESRCH (no live member), -ENODEV (it does not
 * know the device, or none at all), -EOPNOTSUPP (no live member has armed what is meant: before->arms), -EPERM (the file is another user's, and the caller
 * is not root), -EMLINK (to root: it has a second name, so it may be another tenant's), -EACCES, -EROFS, -EAGAIN (a process kept the attach lock for a
 * second), -ESTALE (its folder keeps being replaced). A file of another user can be cut short while it is mapped here: SIGBUS is the caller's. */
int ledger_change(int dirfd, const char *name, const uint8_t uuid[16], const struct ledger_change *change,
                  struct ledger_view *before);

/* Ask the members of a tenant where their bytes are: softslice/explain.h. Nobody is waited for or disturbed. 0 with the number of the request, or -errno
 * as ledger_read(), or as ledger_change(): -EPERM, -EMLINK, -EACCES, -EROFS. */
int ledger_ask(int dirfd, const char *name, uint64_t *request);

/* In a member, by one thread of it: whether there is a request that it has not answered; one from before it joined is none. */
bool ledger_is_asked(const struct ledger *ledger, uint64_t *request);

/* clock_wait() that ends too when there has been a request since ledger_asked() returned `asked`. */
uint32_t ledger_asked(const struct ledger *ledger);
bool ledger_wait_asked(const struct ledger *ledger, uint32_t asked, const uint32_t *word, uint32_t seen, uint64_t until);

/* Whether an answer of ours is still to be taken away. */
bool ledger_has_answer(const struct ledger *ledger);

/* Answer it with `size` bytes, a multiple of 8, in a file of the tenant's folder. 0 or -errno; the request is done with in any case. No descriptor
 * is to be seen by other threads. */
int ledger_answer(struct ledger *ledger, uint64_t request, const void *data, size_t size);

/* Take the answer away again: if it is some seconds old, or now. */
void ledger_withdraw_answer(struct ledger *ledger, bool now);

/* When (CLOCK_REALTIME, ns) this process took its slot. */
uint64_t ledger_own_since(const struct ledger *ledger);

/* The number of that slot, below LEDGER_SLOTS: no other live member has it. */
uint32_t ledger_own_slot(const struct ledger *ledger);

/* Whether another process has a slot: a look at the slots' words. Where there is one, looks for the dead, at most every 100 ms. Any thread. */
bool ledger_has_others(struct ledger *ledger);

/* Number of live members, the caller included; buries the dead first. */
unsigned ledger_members(struct ledger *ledger);

/* A member as far as a device is concerned. */
struct ledger_member {
    uint32_t pid;                           /* in its own PID namespace */
    uint64_t pid_namespace;                 /* its inode; 0 unknown */
    uint64_t committed, tentative, spilled; /* bytes */
    bool suspended;                         /* it is checkpointed: `committed` is not on the GPU and in no total */
    bool dead;                              /* the driver may not have released its bytes yet: they are still in the total */
    uint32_t slot;
    uint64_t since; /* CLOCK_REALTIME ns at which it took the slot: another owner of that has another one */
};

/* The live members, the caller among them, and the dead whose bytes still count, in the order of their slots. Writes at most `size` of them
 * and returns how many there are. Buries the dead first, as ledger_current() does. */
unsigned ledger_members_list(struct ledger *ledger, unsigned device, struct ledger_member *list, unsigned size);

/* The same from outside, like ledger_read(). Their number, or -errno; -ENOENT too where the tenant does not know the device. */
int ledger_read_members(int dirfd, const char *name, const uint8_t uuid[16], struct ledger_member *list, unsigned size);

/* Something that was told. */
struct ledger_told {
    enum ledger_kind kind;
    uint64_t time; /* CLOCK_REALTIME, ns */
    uint64_t bytes, limit, current;
    uint32_t count;         /* how many of them at once; 1 but for refusals and physical out-of-memory */
    uint32_t pid, uid;      /* of whom it is told, the pid in its own PID namespace; of a LEDGER_SET_*: who set it */
    uint64_t pid_namespace; /* its inode; 0 unknown */
    unsigned family;        /* enum quota_family of what was refused */
    bool on_device;         /* and then */
    uint8_t uuid[16];
};

/* How far somebody has read. All zeros: from the oldest that is there. */
struct ledger_cursor {
    uint64_t file_device, file_inode, file_origin; /* of whose ring this is: another file is read from its beginning */
    uint64_t next[2], awaited[2], waiting_since[2];
    uint64_t lost;    /* overwritten before they were read, or never written whole */
    uint64_t damaged; /* scribbled over */
    bool began;
    uint32_t size; /* entries of the ring, as of the last call */
};

/* Read on in a tenant's ring, like ledger_read(): the number of events, at most `size`, in the order in which each lane of it was written, not in that of
 * time; what is left if it is `size` comes with the next call. What is being told right now is left for the next call too, unless `all`: entries
 * that are not whole, for a second, and counts that may still grow. -errno as ledger_read(), or -EOPNOTSUPP where the file is older than 1.3. */
int ledger_read_events(int dirfd, const char *name, struct ledger_cursor *cursor, bool all, struct ledger_told *list,
                       unsigned size);

/* Members that died and that no member has buried yet, for there may be none left: a LEDGER_DIED for each device on which one had something, or one of
 * none, with time and `current` 0. A member's burial tells the same with the same `limit` later. At most `size`; how many, or -errno as ledger_read(). */
int ledger_read_dead(int dirfd, const char *name, struct ledger_told *list, unsigned size);

#endif
