/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated machine: GPUs, the processes that use them, and the timeline of GPU work, in one file mapped by all of them.
 *
 * Contract. Everything but `magic` is read and written with the machine's robust lock held. A process may be killed between any two
 * instructions: what it holds stands in its own rows and goes with them, and no total is kept anywhere, so there is nothing to
 * repair. Which processes live is told by the kernel: each holds a robust mutex on a thread of its own for as long as it lives. */
#ifndef SIM_SHARED_H
#define SIM_SHARED_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process_id.h"

#define SIM_MAX_GPUS    16
#define SIM_MAX_PROCS   512
#define SIM_MAX_OBJECTS 4096
#define SIM_HISTORY     2048
#define SIM_GATES       64
#define SIM_GATE_GPUS   32 /* more than can meet at a gate: their number is a gate's key modulo this */
#define SIM_MEETINGS    256
#define SIM_RECORDS     1024
#define SIM_PATH_MAX    200
#define SIM_NAMESPACE   (1u << 22) /* ids that a PID namespace has */
#define SIM_MAGIC       UINT64_C(0x3830736d69735f67)

/* What SOFTSIM_* said to the first process; see docs/simulated-gpu.md. */
struct sim_settings {
    uint32_t gpus;
    int32_t driver_version;
    uint64_t mem;
    uint64_t context_bytes;
    uint64_t granularity;
    uint64_t slice_ns;
    uint64_t switch_ns;
    uint64_t release_delay_ns[2]; /* least and most */
    uint64_t uuid_seed;
    uint32_t mps;                /* whether processes are clients of one MPS server */
    char timeline[SIM_PATH_MAX]; /* a file that gets a line for each stretch of time in which a process had a GPU; empty: none */
};

/* A stretch of wall time in which one process had the GPU. */
struct sim_slice {
    uint64_t wall_ns;
    uint64_t served_ns; /* GPU time the process had received before it */
    uint64_t length_ns;
};

/* A kernel that starts only together with its partners on other GPUs, and occupies its own from when it could. */
struct sim_gate {
    uint64_t mark; /* GPU time that the process receives before it */
    uint64_t key;  /* the same for all */
};

/* Who came to a gate so far, and who went on, as bits of GPUs. */
struct sim_meeting {
    uint64_t key; /* 0: free */
    uint32_t arrived;
    uint32_t passed;
};

/* A stretch of time in which a process had a GPU, for the file. */
struct sim_record {
    uint32_t gpu;
    uint32_t pid; /* sim_proc.outer */
    uint64_t begin_ns, end_ns;
};

/* One process on one GPU. */
struct sim_client {
    uint64_t used;     /* bytes of HBM, contexts included, shared objects not */
    uint64_t resident; /* bytes of managed memory besides; whoever needs the room lowers it, and the process notices */
    uint64_t contexts; /* live contexts; the first one costs context_bytes */
    uint64_t saved;    /* what `used` and `contexts` were when the process was checkpointed */
    uint64_t saved_contexts;
    uint64_t submitted_ns; /* GPU work handed in since the process attached */
    uint64_t served_ns;    /* GPU time received */
    uint64_t sampled_ns;   /* served_ns at the end of the last NVML sample period */
    uint32_t utilization;  /* percent of that period */
    uint32_t slices;       /* slices ever begun; the newest is history[(slices - 1) % SIM_HISTORY] */
    uint32_t gates_made;   /* gates in its work; the next is gate[gates_passed % SIM_GATES] */
    uint32_t gates_passed;
    struct sim_gate gate[SIM_GATES];
    struct sim_slice history[SIM_HISTORY]; /* last: only as much of it is touched as was written */
};

enum sim_proc_state { SIM_PROC_FREE, SIM_PROC_LIVE, SIM_PROC_DEAD };

struct sim_proc {
    pthread_mutex_t life; /* robust; held by a thread of the process */
    uint32_t state;
    struct sim_process_id id;
    uint32_t outer;      /* as an observer outside of all PID namespaces would call it */
    int32_t thread;      /* the one that holds `life` */
    uint32_t checkpoint; /* a CUprocessState; anything but 0 keeps the process out of the driver */
    uint32_t inside;     /* whether one of its threads is in the driver; both are atomic */
    uint32_t clean;      /* left by exit(): its memory is free at once */
    uint64_t died_ns;    /* when somebody first saw that it is dead */
    uint64_t release_ns; /* how long after that its memory is free */
    uint64_t generation; /* tells this life of the row from the one before */
    struct sim_client client[SIM_MAX_GPUS];
};

/* HBM that several processes can hold: exported VMM memory, IPC memory. It counts as memory of `payer`, which is not in that one's
 * `used`; when the payer lets go of it or dies, another holder becomes the payer. */
struct sim_object {
    uint64_t id; /* 0: free row */
    uint64_t size;
    uint32_t gpu;
    int32_t payer;
    uint16_t holds[SIM_MAX_PROCS];   /* references by process */
    char backing[SIM_PATH_MAX + 40]; /* the file that holds the bytes */
};

struct sim_gpu {
    uint64_t clock_ns; /* the timeline is settled up to here */
    int32_t owner;     /* process row that has the GPU, or -1 */
    int32_t last;      /* process row that had it last, or -1 */
    uint64_t slice_left_ns;
    uint64_t switch_left_ns; /* of the time that switching to the owner takes */
    uint64_t busy_ns;
    struct sim_record record; /* goes on; begin == end: none */
    uint64_t sampled_at_ns;
    uint64_t sampled_busy_ns;
    uint32_t utilization;
};

struct sim_machine {
    uint64_t magic;
    uint64_t bytes; /* sizeof(struct sim_machine) of the build that made the file */
    pthread_mutex_t lock;
    struct sim_settings set;
    uint64_t next_id;
    uint32_t procs_high;   /* rows at and above this one have never been used */
    uint32_t objects_high; /* the same of objects */
    uint32_t gated;        /* whether there ever was a gate */
    uint32_t records;
    struct sim_gpu gpu[SIM_MAX_GPUS];
    struct sim_record record[SIM_RECORDS]; /* not yet in the file */
    struct sim_meeting meeting[SIM_MEETINGS];
    struct sim_proc proc[SIM_MAX_PROCS];
    struct sim_object object[SIM_MAX_OBJECTS];
};

/* Map the machine, making it from the environment where it is absent or where nobody uses it. NULL on failure. */
struct sim_machine *sim_machine_open(void);

/* Where the machine's file is. */
void sim_state_path(char *path, size_t size);

/* The settings that the environment asks for. */
void sim_settings_read(struct sim_settings *set);

/* A number, in a text or in the environment; K, M and G are powers of 1024. `otherwise` where it is missing or none. */
uint64_t sim_number(const char *text, uint64_t otherwise);
uint64_t sim_env_number(const char *name, uint64_t otherwise);
/* The seed SOFTSIM_RANDOMISE and `which` of the things to draw make *drawn; false: nothing is drawn. */
bool sim_random(unsigned int which, uint64_t *drawn);

void sim_machine_lock(struct sim_machine *m);
void sim_machine_unlock(struct sim_machine *m);

/* Take a row for this process, *row, and then start the thread that holds its life; false when there is none left. Called without the
 * lock. */
bool sim_proc_attach(struct sim_machine *m, int *row, void *(*thread)(void *), void *arg);

/* On the thread that sim_proc_attach started, before anything else. */
void sim_proc_hold(struct sim_machine *m);

/* Lock held: clear the rows of processes that died long enough ago. */
void sim_reap(struct sim_machine *m);

/* Lock held: bytes of HBM in use on a GPU by all processes, the dead ones that are not reaped included. */
uint64_t sim_gpu_used(const struct sim_machine *m, unsigned int gpu);

/* Lock held: make room for `bytes` on a GPU, by sending managed memory of any process to the host where it must; false: there is none. */
bool sim_gpu_fits(struct sim_machine *m, unsigned int gpu, uint64_t bytes);

/* Lock held: bytes of HBM that one process has on a GPU, shared objects that it pays for included. */
uint64_t sim_proc_used(const struct sim_machine *m, unsigned int row, unsigned int gpu);

/* Lock held: a new object of this process, held once by it; NULL: no row, or no file for its bytes. */
struct sim_object *sim_object_new(struct sim_machine *m, unsigned int row, unsigned int gpu, uint64_t size);
/* Lock held: the object with that id, or NULL. */
struct sim_object *sim_object_find(struct sim_machine *m, uint64_t id);
/* Lock held: a process gives back one reference. */
void sim_object_drop(struct sim_machine *m, struct sim_object *o, unsigned int row);
/* A descriptor of the object's file: a header of SIM_OBJECT_HEADER bytes that begins with the id, then the bytes; -1 on failure. */
int sim_object_open(const struct sim_object *o);
#define SIM_OBJECT_HEADER 4096

/* Lock held: settle the timeline of a GPU up to now. */
void sim_timeline_advance(struct sim_machine *m, unsigned int gpu, uint64_t now_ns);
/* Lock held, timeline settled: when a process will have received `mark` of GPU time if nobody hands in more work; never too late. */
uint64_t sim_timeline_expect(const struct sim_machine *m, unsigned int gpu, unsigned int row, uint64_t mark);
/* Lock held: write what the file does not have yet. */
void sim_timeline_write(struct sim_machine *m);
/* Lock held: a process died; its work is off the GPUs. */
void sim_timeline_drop(struct sim_machine *m, unsigned int row);

/* The failure that is injected into the next call of `function`, or 0 (fail.c; no lock needed). */
int sim_fail_next(const char *function);
/* Where the function is to hang: it does here (fail.c). The caller holds no lock. */
void sim_block(const char *function);
void sim_trace(const char *function);

/* The one clock of the simulator, in nanoseconds. */
uint64_t sim_now_ns(void);

/* The 16 bytes of a GPU's UUID. */
void sim_gpu_uuid(const struct sim_settings *set, unsigned int gpu, unsigned char out[16]);

#endif
