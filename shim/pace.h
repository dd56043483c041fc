/* SPDX-License-Identifier: Apache-2.0 */
/* The pace of this process's launches: which streams have work, how much of it is in flight, up to when the GPU is known to have been busy, and
 * whether more may be launched. What is shared with the tenant's other processes is softslice/share.h and softslice/turns.h.
 *
 * A stream that work is launched in is a *flow*. While its epoch is the process's, its launches pass without asking, each taking what it is
 * expected to take from what the flow has left until the next mark. Everything that may close the gate, and the end of all work, makes a new epoch. */
#ifndef SOFTSLICE_SHIM_PACE_H
#define SOFTSLICE_SHIM_PACE_H

#include "guard.h"
#include "process.h"
#include "softslice/estimate.h"
#include "softslice/share.h"
#include "softslice/turns.h"

#define PACE_FLOWS   1024
#define PACE_PROBES  16
#define PACE_LANES   256
#define PACE_MARKS   32                   /* of a lane that are on their way */
#define PACE_MARK_NS UINT64_C(1000000)    /* of work between two marks, over all flows of a device */
#define PACE_LEAST   UINT64_C(250000)     /* the same for one flow, however many there are */
#define PACE_AHEAD   2                    /* marks of a flow that may be on their way when it launches more */
#define PACE_ALONE   7                    /* the same while no other process wants the GPU */
#define PACE_STRAYS  8                    /* marks of streams that are gone: as many, whatever is launched */
#define PACE_LONG    (4 * PACE_MARK_NS)   /* of what takes so long, one */
#define PACE_BURST   UINT64_C(8000000)    /* GPU time that an idle tenant may use at once */
#define PACE_LOOK    UINT64_C(50000)      /* between two looks of one who waits for a mark */
#define PACE_WAITS   UINT64_C(20000)      /* what a call that has to wait for nothing does not take */
#define PACE_WAITED  UINT64_C(1000000000) /* of turn.waited, what counts as earning */

struct flow {
    uint64_t key;   /* the stream; 0: free. See flow_key() */
    int64_t left;   /* atomic: estimated ns of work until the next mark; below 0 if several threads launched at once */
    int64_t budget; /* what it began with; both are the same where nothing was launched since */
    uint32_t epoch; /* atomic */
    uint16_t device, lane;
    int32_t priority;                /* as the driver tells it: less comes first */
    uint32_t life;                   /* another one each time: the driver gives a handle of a stream that is gone to the next */
    struct estimate_segment segment; /* since the last mark */
    /* Under the pace's lock. */
    uint32_t marks;   /* on their way */
    uint32_t woken;   /* how often it was waited for without a mark */
    uint32_t guessed; /* how often it was taken for done without a mark */
    uint32_t wary;    /* so many launches more are marked each: what they were expected to take was wrong */
    uint32_t hasty;   /* so many marks more are looked for often: work took far less than it was expected to */
    bool active;      /* in pace.active */
    bool stalled;     /* its marks were waited for in vain: until one of them is reached nobody waits for them again */
    uint64_t begun;   /* when the work began that was launched while it had none */
    uint64_t done;    /* the newest of its marks that was reached */
    uint64_t ahead;   /* estimate of what lies before its marks that are on their way */
    uint64_t newer;   /* another flow's mark behind which `older` of this one's work is done that has no mark; 0: none */
    int64_t older;
    int64_t gone;     /* of its work without mark, what is done */
    uint64_t unknown; /* the key of a launch without estimate before the newest mark; 0: all were known */
    /* Atomic: when a thread last came to launch here after another flow. */
    const struct flow_thread *by; /* which; NULL: none; FLOW_SHARED: several have */
    uint64_t came;                /* by its count */
    int64_t came_left;            /* what was left then, or after the newest mark since */
} __attribute__((aligned(64)));

/* A thread that launches: in which flow it last did, and how often it has come to another one. One that begins in the place of another that is gone is
 * taken for that one until it has come to each flow. */
struct flow_thread {
    const struct flow *last;
    uint64_t came;
};
#define FLOW_SHARED ((const struct flow_thread *)1)
extern __thread struct flow_thread flow_thread __attribute__((visibility("hidden"), tls_model("initial-exec")));

/* An event of ours in a stream of the program's, right behind a launch. */
enum mark_state { MARK_FREE, MARK_TAKEN, MARK_PENDING, MARK_REFERENCE };
struct mark {
    uint32_t state; /* atomic */
    uint32_t flow;
    uint32_t life;     /* a flow with another one now is another stream's */
    CUevent event;     /* NULL: not yet made */
    bool own;          /* made in the lane's context, not in its home */
    uint64_t recorded; /* when */
    uint64_t number;   /* of the device's marks; see pace_reached() */
    bool late;         /* as pace_marked() has it */
    uint64_t position; /* in the device's work: estimate of all that was launched before it */
    struct estimate_segment segment;
};

/* A context with marks. Events belong to contexts, and times are told between two of one context. */
enum lane_state { LANE_FREE, LANE_OPEN, LANE_ENDING, LANE_GONE }; /* GONE: its users go first */
struct lane {
    uint64_t context;    /* CUcontext */
    uint64_t home;       /* its events' context: the primary one under a green one, which is one thread's alone; 0: gone */
    uint32_t state;      /* atomic */
    uint32_t users;      /* atomic: threads that call the driver for it */
    uint32_t collecting; /* atomic: somebody looks at its marks; nobody waits for that */
    uint16_t device;
    int32_t reference;       /* the mark whose time is known best; -1: none */
    uint64_t reference_time; /* of it, by our clock: never earlier than the truth, and never later as far as it was seen */
    uint64_t set;            /* atomic: when that was last made sure of */
    uint32_t pending;        /* atomic: how many marks are */
    struct mark mark[PACE_MARKS];
};

/* One device. */
struct pace {
    uint32_t lock;      /* of what follows, and of the flows of the device */
    bool busy;          /* this process has work on it, as far as is known */
    uint64_t from;      /* since */
    uint64_t done;      /* the newest mark that was reached */
    uint64_t idled;     /* since when it is idle; 0: something was to be launched since */
    uint64_t mended;    /* of that, what was charged after all since the guess was wrong: what lasts longer is not kernels */
    uint64_t gap;       /* how long the program tends to leave it idle between two launches */
    uint32_t marks;     /* on their way */
    uint64_t recorded;  /* marks, so far */
    uint64_t marked;    /* estimate of all work before marks, so far */
    uint64_t position;  /* the last one that was reached, or where it became busy */
    uint64_t over;      /* estimate of what lies behind that and was waited for */
    uint64_t launched;  /* estimate of all work so far, when it was last looked at */
    uint64_t newest;    /* when what was launched until then should be done, if it was launched just before it was seen */
    uint64_t again;     /* atomic: when it is to be seen whether it is idle by now; 0: that is not in question */
    uint64_t unsure;    /* the mark that is behind work which by estimate is done, but may have been launched only now */
    uint64_t doubted;   /* since when that is so */
    bool doubts;        /* no mark that is as new was reached since */
    uint64_t doubtful;  /* the mark that may have waited for what was before: the first one after a guess that the device is idle */
    uint64_t waking;    /* ns: how much later than the work a wait for it ends */
    uint64_t placed;    /* when the last mark was reached: `done` may be later, by a synchronisation */
    uint32_t strays;    /* those of flows that are gone */
    bool stalled;       /* room for a mark was waited for in vain */
    bool told;          /* atomic: the tenant's other processes know that work here is late */
    uint32_t launching; /* launches that are done, or come back when they are, and are not yet counted */
    uint32_t claiming;  /* threads that claim for work before `from`, which the process may begin anew meanwhile */
    uint32_t actives;
    uint32_t guesses; /* atomic: flows in `active` when the device was taken for idle, if any had work without marks; else 0 */
    uint16_t active[PACE_FLOWS + PACE_LANES]; /* flows with work since `from` */
    struct share_account own; /* this process's alone, where the ledger has none: it is of an older layout, or full */
} __attribute__((aligned(64)));

/* This process's part in the tenant's turns: shim/turn.h. */
struct turn {
    uint32_t lock, joined;
    bool held, going;               /* the turn is the tenant's, and asked for here; it is to be let go */
    bool lost;                      /* ... or was lost to time, with work of it on the GPU */
    uint64_t gone;                  /* since when it is to be let go */
    uint64_t asked;                 /* when a launch last did: while those come the pacer has little to see */
    uint64_t looked;                /* atomic: when one that waited did so for others */
    bool contended;                 /* somebody else waited when it was last looked at */
    uint64_t devices;               /* held or asked for */
    uint64_t used[TURNS_DEVICES];   /* atomic: GPU time that was not reported yet: what ended after a turn counts in the next one */
    uint64_t theirs[TURNS_DEVICES]; /* of the time since the last claim, what others' slices took */
    uint64_t claimed[TURNS_DEVICES]; /* atomic: when that was */
    unsigned crowd[TURNS_DEVICES];   /* how many others were beside this tenant when it was last looked */
    uint64_t counted;                /* until when they are in `theirs` */
    uint64_t wanted;                 /* since when it is waited for; 0: it is not */
    uint64_t waited; /* atomic: how long the newest turn was waited for, before it and while others had slices of it */
    uint64_t afresh; /* when a join that failed is tried again */
    unsigned failed; /* joins, as far as that counts */
    uint64_t told;   /* when weights and counters were last renewed; the pacer's */
    uint64_t unseen; /* when it was last seen late that work was done which others waited for */
    uint64_t blind;  /* atomic: until when turn_blind() holds */
    uint64_t idle;   /* when it was first seen held and not used; 0: it is used */
    uint32_t weight[TURNS_DEVICES];
    struct turns turns;
    struct ledger errors; /* for ledger_state_dir() */
};

struct paces {
    uint32_t epoch;     /* atomic; 0 is no flow's */
    uint32_t word;      /* futex that never changes, to sleep on: by time alone */
    uint32_t devices;   /* atomic, a bit each: this process has launched on it */
    uint32_t flow_lock; /* of keys and of new lanes; before a pace's lock */
    uint32_t lanes;     /* atomic: how many have ever been in use; the first ones */
    uint64_t context; /* atomic: the CUcontext that all work so far was launched in; 0: there are several, none, or more devices */
    struct thread pacer;
    uint32_t asleep;   /* atomic: the pacer waits to be woken */
    uint64_t looks;    /* atomic: when it will look again */
    uint32_t blocking; /* atomic: whether launches come back when their work is done; 0: not yet known */
    struct turn turn;
    struct pace pace[QUOTA_DEVICES];
    struct flow flow[PACE_FLOWS + PACE_LANES]; /* the last ones are the lanes', for all streams that find no place */
    struct lane lane[PACE_LANES];
    /* struct estimate_table follows */
} __attribute__((aligned(64)));

size_t paces_size(void);

/* Zero-filled, in memory that a fork wipes; NULL where there is no membership or not even memory for that. */
struct paces *process_paces(void);

static inline struct estimate_table *pace_estimates(struct paces *paces)
{
    return (struct estimate_table *)(paces + 1);
}

/* The share that this process's tenant has of a device now, to be used at once. */
struct share pace_share(struct membership *membership, int device);

/* Whether no other process is seen to want the GPU that this one uses: one of another tenant, or another one of its own. Then nobody has to learn soon what
 * becomes of its work. False where it uses several. */
bool pace_alone(struct membership *membership, const struct paces *paces);

/* To the tenant's other processes: since when this one has work on the device, 0 if it has none. */
void pace_tell_busy(struct membership *membership, int device, uint64_t since);

/* Where the flow of a stream is looked for: never 0 but for a special stream of a thread without a context. The legacy and the per-thread stream
 * are one for each context (and thread). */
static inline uint64_t flow_key_in(CUcontext context, CUstream stream, bool per_thread)
{
    /* Handles are addresses of objects: no other stream's key is odd, or even between two of them. */
    if (stream == CU_STREAM_PER_THREAD || (!stream && per_thread))
        return ((uint64_t)(uintptr_t)context ^ (uint64_t)(uintptr_t)&guard_depth << 8) | 1;
    return (uint64_t)(uintptr_t)context | 2;
}

/* What was launched in a flow since its last mark, by estimate. Lock held. */
static inline int64_t flow_unmarked(const struct flow *flow)
{
    int64_t unmarked = flow->budget - __atomic_load_n(&flow->left, __ATOMIC_RELAXED);

    return unmarked > 0 ? unmarked : 0;
}

/* Of that, what is not known to be done. */
static inline uint64_t flow_tail(const struct flow *flow)
{
    int64_t tail = flow_unmarked(flow) - flow->gone;

    return tail > 0 ? (uint64_t)tail : 0;
}

/* When all that was launched on a device should be done, if nothing else holds it up; for what has marks on their way, by estimate too. Lock held. */
static inline uint64_t pace_due(const struct paces *paces, const struct pace *pace)
{
    uint64_t due = pace->done > pace->from ? pace->done : pace->from;

    for (unsigned i = 0; i < pace->actives; i++)
        due += flow_tail(&paces->flow[pace->active[i]]) + paces->flow[pace->active[i]].ahead;
    return due;
}

/* NULL, CU_STREAM_LEGACY or CU_STREAM_PER_THREAD. */
static inline bool flow_special(CUstream stream)
{
    return (uintptr_t)stream <= 2;
}

static inline uint64_t flow_key(CUstream stream, bool per_thread)
{
    CUcontext context = NULL;

    if (!flow_special(stream))
        return (uint64_t)(uintptr_t)stream;
    called.cuCtxGetCurrent(&context);
    return flow_key_in(context, stream, per_thread);
}

static inline unsigned flow_home(uint64_t key)
{
    return (unsigned)(key * UINT64_C(0x9e3779b97f4a7c15) >> 54) % PACE_FLOWS;
}

/* Whether a launch that is expected to take so long is to be followed by a mark: another one like it would be too much. What nobody knows is. */
static inline bool flow_wants_mark(const struct flow *flow, uint64_t expected)
{
    return expected >= PACE_MARK_NS || 2 * (int64_t)expected > __atomic_load_n(&flow->left, __ATOMIC_RELAXED);
}

/* Take a launch off what is left. Threads that launch in one stream at the same moment may lose each other's, and the next mark comes later by that: an
 * atomic subtraction would cost each launch more than all the rest. */
static inline void flow_take(struct flow *flow, uint64_t expected)
{
    __atomic_store_n(&flow->left, __atomic_load_n(&flow->left, __ATOMIC_RELAXED) - (int64_t)expected, __ATOMIC_RELAXED);
}

/* Of two flows that one thread launches in, which has the newer work is known by this. Most launches are in the flow of the last one: one comparison. */
static inline void flow_come(struct flow *flow)
{
    if (__builtin_expect(flow_thread.last == flow, 1))
        return;
    const struct flow_thread *by = __atomic_load_n(&flow->by, __ATOMIC_RELAXED);

    flow_thread.last = flow;
    if (__builtin_expect(by != &flow_thread, 0))
        __atomic_store_n(&flow->by, by ? FLOW_SHARED : &flow_thread, __ATOMIC_RELAXED);
    __atomic_store_n(&flow->came, ++flow_thread.came, __ATOMIC_RELAXED);
    __atomic_store_n(&flow->came_left, __atomic_load_n(&flow->left, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}

static inline struct flow *flow_find(struct paces *paces, uint64_t key)
{
    for (unsigned i = 0, at = flow_home(key); i < PACE_PROBES; i++, at = (at + 1) % PACE_FLOWS)
        if (__atomic_load_n(&paces->flow[at].key, __ATOMIC_RELAXED) == key)
            return &paces->flow[at];
    return NULL;
}

/* The flow of a stream, made where it has none, for work on the current context. NULL: not possible, let the launch pass. */
struct flow *flow_of(struct membership *membership, struct paces *paces, CUstream stream, bool per_thread);

/* A stream ends, or all of a lane do: what has its handle next is another. */
void flow_forget(struct paces *paces, uint64_t key);
void flow_forget_lane(struct paces *paces, unsigned lane);

/* A launch that is to be. */
struct pace_request {
    CUstream stream;
    bool per_thread;
    uint64_t key, expected; /* softslice/estimate.h */
    uint32_t life;          /* of the flow, when it was found for this stream */
};

static inline uint32_t flow_life(const struct flow *flow)
{
    return __atomic_load_n(&flow->life, __ATOMIC_SEQ_CST);
}

/* Wait until `flow` may launch it. What the flow has not marked yet is marked before it waits. */
void pace_admit(struct membership *membership, struct paces *paces, struct flow *flow, const struct pace_request *request);

/* Whether a launch in it is to be followed by a mark. */
bool pace_wants_mark(struct paces *paces, struct flow *flow, uint64_t expected);

/* When a device is to be looked at again whose work may have been launched only just before the last look; CLOCK_NEVER: none is. */
uint64_t pace_again(const struct paces *paces);

/* Work was launched in it, or is now by a call that comes back when it is done, and: it has been marked or taken off what the flow has left, or was not
 * launched after all. The first returns the device for the second; PROCESS_NO_DEVICE: the stream was destroyed meanwhile, and the flow may be another's by
 * now. */
int pace_launched(struct membership *membership, struct paces *paces, struct flow *flow, uint32_t life);
void pace_counted(struct paces *paces, int device);

/* Work that has no mark and is not in what the flow has left takes so long, or if negative is over, by estimate. */
void pace_expect(struct paces *paces, struct flow *flow, uint32_t life, int64_t ns);

/* All that was launched in the flow, or where that is NULL in all flows of `context`, before the caller began to wait is done. `entered`: when that was;
 * 0: not known. */
void pace_synchronised(struct membership *membership, struct paces *paces, struct flow *flow, CUcontext context, uint64_t entered);

/* A launch that may come back when its work is done did, having been made at `since`: if the flow's work without marks was expected to be done by now, it took
 * until now. */
void pace_returned(struct membership *membership, struct paces *paces, struct flow *flow, uint32_t life, uint64_t since);

/* Work on the device was not done before `now`, though it may have been taken for that; from `since` on, or since then. */
void pace_unfinished(struct membership *membership, struct paces *paces, int device, uint64_t since, uint64_t now);

/* The process ends: what it has done on the device since it was looked at is charged, and what it has not yet is taken for busy until now. */
void pace_end(struct membership *membership, struct paces *paces, int device, uint64_t now);

/* The device that is taken for idle by a guess; PROCESS_NO_DEVICE: none, or several. */
int pace_guessed(const struct paces *paces);

/* Look what has been reached, and whether devices are idle. When there may be something new to see, CLOCK_NEVER if no work is known. Of work without marks
 * it is known by `sure` that it was launched as long ago as it takes. Launches that pass do not read the clock, so else it may have been launched just before
 * it was first seen. */
uint64_t pace_look(struct membership *membership, struct paces *paces, uint64_t now, bool sure);

/* The same before a launch in the flow, after which the device's work is known to be done, or has a mark behind it, or the next mark counts for it. */
uint64_t pace_look_before(struct membership *membership, struct paces *paces, struct flow *flow, const struct pace_request *request,
                          uint64_t now);

/* A mark was recorded, behind all that the flow's segment held; and a mark was reached, `at` that moment. When it is, so is what the device's other flows
 * had launched before it and not marked: less work than there is between two marks, in the order of the launches as far as a GPU keeps that. `late`: the
 * flow's last launch was some time ago, and each of the others may have launched since. */
void pace_marked(struct paces *paces, int device, struct flow *flow, struct mark *mark, bool late);
void pace_reached(struct membership *membership, struct paces *paces, int device, struct mark *mark, uint64_t at);

/* Marks (mark.c). Record one behind a launch in the flow: the flow begins anew. `late`: as pace_marked() has it. False where
 * that is not possible now, or the flow has another life. */
bool mark_record(struct paces *paces, struct flow *flow, uint32_t life, CUstream stream, bool per_thread, bool late);

/* Before a launch in the flow of a device without work: an event there is reached at once, which tells how the GPU's clock stands to ours. Else only bounds
 * of that are known, from when marks were seen to be reached, and a kernel of 20 us may seem to take 45. Does it now and then. */
void mark_set_clock(struct paces *paces, struct flow *flow, uint32_t life, CUstream stream, bool per_thread);

/* Whether the lane has a place for one more. */
bool mark_room(const struct lane *lane);

/* Ask the driver which marks of a device have been reached, and pass each to pace_reached(). At most once at a time for a lane. */
void mark_collect(struct membership *membership, struct paces *paces, int device);

/* The lane that a context has; NULL: none. */
struct lane *lane_open(struct paces *paces, CUcontext context);

/* The lane of a context and its home, made where it has none; NULL: there are PACE_LANES already. */
struct lane *lane_of(struct paces *paces, CUcontext context, CUcontext home, int device);

/* A context that the program may launch in; NULL: one beside the primary one. */
void mark_context_made(CUcontext context);

/* Before and after the driver is told something that may end a context, and its events with it. Waits for who is asking about them, which takes
 * microseconds, and a second at most. `gone`: it did end. */
bool mark_contexts(void); /* whether there are any with marks */
void mark_context_ending(CUcontext context);
void mark_context_ended(CUcontext context, bool gone);

/* Of work that a flow may launch until its next mark. Lock held. */
static inline int64_t pace_budget(const struct pace *pace)
{
    uint64_t part = PACE_MARK_NS / (pace->actives ? pace->actives : 1);

    return (int64_t)(part > PACE_LEAST ? part : PACE_LEAST);
}

/* Let the launches ask again. */
static inline void pace_new_epoch(struct paces *paces)
{
    if (__atomic_add_fetch(&paces->epoch, 1, __ATOMIC_SEQ_CST) == 0)
        __atomic_add_fetch(&paces->epoch, 1, __ATOMIC_SEQ_CST);
}

#endif
