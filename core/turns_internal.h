/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of turns say to each other. */
#ifndef SOFTSLICE_CORE_TURNS_INTERNAL_H
#define SOFTSLICE_CORE_TURNS_INTERNAL_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "ledger_layout.h"
#include "softslice/turns.h"
#include "turns_layout.h"

#define TURNS_FOLDER    "turns"
#define TURNS_SUFFIX    ".turns"
#define TURNS_TEMPORARY ".turns-" /* not published yet, where O_TMPFILE does not work */
#define TURNS_NAME_MAX  (64 + sizeof(TURNS_SUFFIX))
#define TURNS_SLACK     UINT64_C(50000000)  /* ns that a moment may lie in the future: we may have been held up with our own */
#define TURNS_STALE     UINT64_C(100000000) /* ns after which a want that was not said again is none */
#define TURNS_RENEW     UINT64_C(500000)    /* ns after which it is said again */
#define TURNS_MARGIN    UINT64_C(50000000)  /* ns, weighted: by so much a peer's own rank may be below what was seen of it */
#define TURNS_DEBT_MAX  UINT64_C(1000000000)
#define TURNS_WINDOW    UINT64_C(65536) /* a whole number of pages, however large they are */
#define TURNS_NO_DEVICE 0xff
#define TURNS_COUNTED   UINT64_C(1000000000) /* ns of an unfinished turn that count in a rank at most */
#define TURNS_DRAIN     UINT64_C(10)         /* quanta after which one that still drains has lost its turn, too */
#define TURNS_OVER      8                    /* units of turns_over_moment() for which that holds */
#define TURNS_NEVER     UINT64_MAX

/* What people should know about a peer. */
enum turns_note { TURNS_NOTE_DAMAGED, TURNS_NOTE_ABSURD, TURNS_NOTE_OVERSTAYS, TURNS_NOTE_EARLY, TURNS_NOTE_LIES, TURNS_NOTES };

/* What this process has seen of a peer on a device, in times of its own. */
struct turns_track {
    uint64_t look;    /* when it was last looked at, 0 never */
    uint64_t hold;    /* its word then */
    uint64_t expired; /* the word whose time is over, 0 none */
    uint64_t dead;    /* the word that a dead tenant left, 0 none */
    uint64_t missed;  /* the want with which it was next and did not come, 0 none */
    uint64_t blame;   /* ns that it held while this process waited and was ahead of it */
    uint64_t seen;    /* rank, by what was seen of it */
    uint64_t unseen;  /* by how much its own was below that at first sight: what had been before, this process did not see */
    uint64_t caught;  /* until when it is given no benefit of a doubt, 0 not */
    uint64_t due;     /* when it was to let its turn go for this process, 0 not known */
    uint64_t drain;   /* ns that it takes from then on, as a rule */
    uint64_t excused; /* the wait in which it was taken for one that had released and claimed again */
    uint32_t wake;
    bool known, waited, wanted;
    bool absurd; /* it said a moment in the future at the last look */
};

/* A peer's entry as it was read. */
struct turns_view {
    bool good;
    uint64_t hold, want, since, rank, settings;
    uint32_t wake, over;
};

struct turns_peer {
    bool present, here; /* `here`: found by the scan that is going on */
    bool dead;
    bool foreign;      /* another uid's, or for others to write: they may take the file away under us */
    uint8_t told, due; /* bits of enum turns_note */
    char name[TURNS_NAME_MAX];
    dev_t file_device;
    ino_t file_inode;
    uint64_t id;
    uint8_t entry[TURNS_DEVICES]; /* in its file, of this process's devices; TURNS_NO_DEVICE */
    struct turns_track track[TURNS_DEVICES];
};

/* What this process knows of its own turn on a device. */
struct turns_mine {
    struct turns_device *entry;
    uint64_t *slots;    /* of all processes of the tenant, on this device */
    uint64_t waits;     /* since when this process does, 0 not */
    uint64_t look;      /* when the peers were last looked at */
    uint64_t contended; /* since when, as this process saw it, another wants while this tenant holds; 0 not */
    uint64_t awaited;   /* the same of one that wants, or waits patiently */
    uint64_t free;      /* since when, as this process saw it, nobody holds; 0 somebody does */
    uint64_t granted;   /* when this process was last answered `mine`, 0 not since its release */
    unsigned crowd;     /* other tenants that had work on the GPU beside this process's when it last looked */
    uint64_t partial;   /* since when it is had while others of its mask are not */
    uint64_t lowest;    /* the lowest rank of the `others` that wanted or held at the last look */
    bool others;
    uint8_t uuid[16];
};

struct turns_room {
    uint32_t lock;
    unsigned devices, slot;
    unsigned peers; /* that are present */
    int pid;
    bool direct; /* the kernel does not read for us: plain loads */
    uint64_t quantum, grace, minimum, credit;
    char *own, *windows; /* the own file; TURNS_PEERS times TURNS_WINDOW bytes of peers' */
    char folder[PATH_MAX];
    char name[TURNS_NAME_MAX];
    uint64_t id, own_inode;
    uint64_t last_stat, last_scan;
    uint64_t pressed;        /* devices that the tenant needs with others and presses for, once the last of them is due */
    uint64_t ready;          /* when it expects to have all then; 0 not yet */
    bool scan_again;         /* something may have been missed */
    struct timespec changed; /* the folder's, at the last scan */
    unsigned ignored[TURNS_DEVICES];
    uint64_t now; /* the latest that a caller gave */
    struct turns_mine mine[TURNS_DEVICES];
    struct turns_peer peer[TURNS_PEERS];
    struct turns_view view[TURNS_PEERS]; /* of the device that is being looked at */
};

/* ---- turns_file.c */

/* Read and check the header of an open file. */
int turns_read_header(int fd, struct turns_header *header, struct stat *status);

/* Whether the open file still has its name. */
bool turns_is_named(int folder, int fd, const char *name);

/* Whether some process has the tenant's lock: 1, 0, or -errno. */
int turns_is_alive(int fd);

/* ---- turns_peers.c */

/* Look for peers, thoroughly if `all`. */
void turns_scan(struct turns_room *room, uint64_t now, bool all);

static inline struct turns_header *turns_header_of(const struct turns_room *room)
{
    return (struct turns_header *)room->own;
}

static inline char *turns_window(const struct turns_room *room, unsigned peer)
{
    return room->windows + (size_t)peer * TURNS_WINDOW;
}

/* ---- turns_judge.c */

/* What is believed of all peers on a device, for one who is ranked `rank`. */
struct turns_survey {
    unsigned held;    /* peers whose turn it is */
    unsigned over;    /* peers whose turn it is not any more, with work of it on the GPU */
    uint64_t due;     /* when the last of them is to let go for this process */
    uint64_t drain;   /* the longest that one of them takes from then on, as a rule */
    bool drains;      /* all of them do */
    uint64_t expires; /* when the first of those turns is over */
    uint64_t newest;  /* when the newest of them was claimed; 0 none */
    int newest_peer;
    unsigned claims_better, claims_worse; /* peers that are just claiming */
    unsigned ahead;                       /* peers that want, may come, and are ranked better */
    uint32_t *word;                       /* of a holder; where there is none, of the first in rank */
    uint32_t seen;
    bool wanted;      /* somebody else wants */
    bool patient;     /* somebody else will, when it can have its other devices */
    uint64_t since;   /* since when the first of them says it does */
    uint64_t quantum; /* the least of theirs and ours */
    uint64_t first;   /* where somebody wants: the lowest rank of those, and its weight */
    uint32_t first_weight;
    uint64_t weights;   /* of all that want or hold, ours included */
    bool any, any_idle; /* there is a lowest and highest rank of those; there is a highest of the others */
    uint64_t lowest, highest, highest_idle;
};
void turns_survey(struct turns_room *room, unsigned device, uint64_t rank, uint64_t now, struct turns_survey *survey);

/* Who was ahead and did not come in its time is passed over until it wants anew. */
void turns_pass_over(struct turns_room *room, unsigned device, uint64_t rank, uint64_t now);

/* ---- turns_joint.c */

/* Which of the devices that a tenant needs together it does not press for yet: of what it would get sooner than the last of them others go on making
 * use. */
struct turns_patience {
    uint64_t devices;
    uint64_t until; /* when to look again */
    bool comes;     /* who has what is missing is letting it go */
};
struct turns_patience turns_patience(struct turns_room *room, uint64_t devices, uint64_t now);

void turns_note(struct turns_room *room, unsigned device, unsigned peer, enum turns_note note);

/* ---- turns_entry.c: the own entry */

/* With what the turn has cost so far. */
uint64_t turns_rank_by_now(const struct turns_mine *mine, uint64_t now);

/* What this process of the tenant does. */
void turns_set_slot(const struct turns_room *room, struct turns_mine *mine, enum turns_slot slot, uint64_t now);

/* Whether another process of the tenant is at least at `least`. One that was killed is not for longer than it would have renewed its slot. */
bool turns_others_at(const struct turns_room *room, const struct turns_mine *mine, enum turns_slot least, uint64_t now);

/* Say that the tenant wants; `how`: 0, or the bits of `want`. One that comes back from idling takes its place among the others first. */
void turns_say_want(struct turns_room *room, unsigned device, unsigned how, uint64_t now);

/* It has to go, lives, and waits for what it has on the GPU. */
void turns_say_draining(struct turns_mine *mine, uint64_t now);

/* So much GPU time was used. */
void turns_charge(struct turns_mine *mine, uint64_t ns);

/* Work of a turn that was lost is still on the GPU, or is not. */
void turns_say_over(struct turns_mine *mine, bool over, uint64_t now);

/* The turn became free. */
void turns_wake(struct turns_mine *mine);

/* ---- own words */

static inline uint64_t turns_load(const uint64_t *word, enum turns_word_kind kind)
{
    uint64_t value = __atomic_load_n(word, __ATOMIC_SEQ_CST);

    return turns_word_good(kind, value) ? value & TURNS_VALUE_MASK : 0;
}

static inline void turns_store(uint64_t *word, enum turns_word_kind kind, uint64_t value)
{
    __atomic_store_n(word, turns_word(kind, value), __ATOMIC_SEQ_CST);
}

/* Change the word if it has `value`; what is damaged counts as 0. */
static inline bool turns_swap(uint64_t *word, enum turns_word_kind kind, uint64_t value, uint64_t next)
{
    uint64_t raw = __atomic_load_n(word, __ATOMIC_SEQ_CST);

    return (turns_word_good(kind, raw) ? raw & TURNS_VALUE_MASK : 0) == (value & TURNS_VALUE_MASK) &&
           __atomic_compare_exchange_n(word, &raw, turns_word(kind, next), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline void turns_add(uint64_t *word, enum turns_word_kind kind, uint64_t units)
{
    uint64_t value;

    do
        value = turns_load(word, kind);
    while (!turns_swap(word, kind, value, value + units));
}

/* ---- times, and what own words say */

static inline uint64_t turns_later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t turns_sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t turns_since(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

/* How long ago a moment of an own word was. One in the future is of a clock that has jumped back: long ago. */
static inline uint64_t turns_age(uint64_t value, uint64_t now)
{
    uint64_t then = turns_moment_ns(value);

    return then > now + TURNS_SLACK ? UINT64_MAX : turns_since(then, now);
}

static inline unsigned turns_state(uint64_t hold)
{
    return (unsigned)(hold & 3);
}

static inline uint32_t turns_own_weight(const struct turns_mine *mine)
{
    return turns_settings_weight(turns_load(&mine->entry->settings, TURNS_WORD_SETTINGS));
}

static inline uint64_t turns_own_rank(const struct turns_mine *mine)
{
    return turns_load(&mine->entry->rank, TURNS_WORD_RANK);
}

#endif
