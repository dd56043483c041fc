/* SPDX-License-Identifier: Apache-2.0 */
/* The file that several processes share as one machine: settings, rows of processes, who is alive. */
#include "shared.h"
#include "virtual.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* There when libvirtualtime.so is preloaded. */
#pragma weak virtual_now

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define GIB (MIB * KIB)

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t sim_number(const char *text, uint64_t otherwise)
{
    char *end;
    unsigned long long value;

    if (!text || !*text)
        return otherwise;
    value = strtoull(text, &end, 0);
    switch (*end) {
    case 'K':
    case 'k':
        value *= KIB;
        break;
    case 'M':
    case 'm':
        value *= MIB;
        break;
    case 'G':
    case 'g':
        value *= GIB;
        break;
    case '\0':
        break;
    default:
        return otherwise;
    }
    return value;
}

uint64_t sim_env_number(const char *name, uint64_t otherwise)
{
    return sim_number(getenv(name), otherwise);
}

bool sim_random(unsigned int which, uint64_t *drawn)
{
    const char *seed = getenv("SOFTSIM_RANDOMISE");

    if (!seed || !*seed)
        return false;
    *drawn = mix(strtoull(seed, NULL, 0) + which);
    return true;
}

/* N, or RANDOM:LEAST:MOST, drawn anew for each death. */
static void release_delay_read(struct sim_settings *set)
{
    const char *text = getenv("SOFTSIM_RELEASE_DELAY_MS");
    unsigned long long least, most;

    if (!text || sscanf(text, "RANDOM:%llu:%llu", &least, &most) != 2)
        least = most = sim_env_number("SOFTSIM_RELEASE_DELAY_MS", 0);
    set->release_delay_ns[0] = least * 1000000;
    set->release_delay_ns[1] = (most < least ? least : most) * 1000000;
}

void sim_settings_read(struct sim_settings *set)
{
    static const uint64_t granules[] = {64 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB};
    uint64_t gpus = sim_env_number("SOFTSIM_GPUS", 1), drawn;

    set->gpus = (uint32_t)(gpus > SIM_MAX_GPUS ? SIM_MAX_GPUS : gpus);
    set->driver_version = (int32_t)sim_env_number("SOFTSIM_DRIVER_VERSION", 13000);
    set->mem = sim_env_number("SOFTSIM_MEM", 16 * GIB);
    set->context_bytes = sim_env_number("SOFTSIM_CONTEXT_BYTES", 512 * MIB);
    set->granularity = sim_env_number("SOFTSIM_GRANULARITY", 2 * MIB);
    set->slice_ns = sim_env_number("SOFTSIM_SLICE_US", 2000) * 1000;
    release_delay_read(set);
    set->uuid_seed = sim_env_number("SOFTSIM_UUID_SEED", 1);
    set->mps = sim_env_number("SOFTSIM_MPS", 0) != 0;
    if (sim_random(0, &drawn))
        set->granularity = granules[drawn % (sizeof(granules) / sizeof(granules[0]))];
    if (sim_random(1, &drawn))
        set->context_bytes = (128 + drawn % 512) * MIB;
    if (set->granularity < 64 * KIB || (set->granularity & (set->granularity - 1)))
        set->granularity = 2 * MIB;
    if (!set->slice_ns)
        set->slice_ns = 2000000;
    set->switch_ns = sim_env_number("SOFTSIM_SWITCH_US", 0) * 1000;
    snprintf(set->timeline, sizeof(set->timeline), "%s", getenv("SOFTSIM_TIMELINE") ? getenv("SOFTSIM_TIMELINE") : "");
    set->context_bytes = (set->context_bytes + set->granularity - 1) & ~(set->granularity - 1);
}

void sim_gpu_uuid(const struct sim_settings *set, unsigned int gpu, unsigned char out[16])
{
    uint64_t half[2] = {mix(set->uuid_seed * 64 + gpu), mix(~(set->uuid_seed * 64 + gpu))};

    memcpy(out, half, 16);
}

/* What this process's time namespace adds to the machine's clock. Known from the first look on: who unshares one has its children in it. */
static int64_t namespace_offset(void)
{
    static uint64_t known; /* atomic; one more than it is */
    uint64_t seen = __atomic_load_n(&known, __ATOMIC_RELAXED);
    long long seconds = 0, ns = 0;
    struct stat own, children;
    char line[128];

    if (seen)
        return (int64_t)(seen - 1);
    int error = errno;
    FILE *file = stat("/proc/self/ns/time", &own) == 0 && stat("/proc/self/ns/time_for_children", &children) == 0 &&
                         own.st_ino == children.st_ino
                     ? fopen("/proc/self/timens_offsets", "re")
                     : NULL;

    while (file && fgets(line, sizeof(line), file) && sscanf(line, "monotonic %lld %lld", &seconds, &ns) != 2)
        ;
    if (file)
        fclose(file);
    errno = error;
    __atomic_store_n(&known, (uint64_t)(seconds * 1000000000 + ns) + 1, __ATOMIC_RELAXED);
    return seconds * 1000000000 + ns;
}

uint64_t sim_now_ns(void)
{
    uint64_t virtual = virtual_now ? virtual_now() : 0;
    struct timespec ts;

    if (virtual)
        return virtual;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec - (uint64_t)namespace_offset();
}

void sim_machine_lock(struct sim_machine *m)
{
    if (pthread_mutex_lock(&m->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&m->lock);
}

void sim_machine_unlock(struct sim_machine *m)
{
    pthread_mutex_unlock(&m->lock);
}

static void robust_mutex_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;

    memset(mutex, 0, sizeof(*mutex));
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
}

static void settings_apply(struct sim_machine *m)
{
    if (m->magic == SIM_MAGIC)
        sim_timeline_write(m);
    sim_settings_read(&m->set);
    memset(m->gpu, 0, sizeof(m->gpu));
    memset(m->meeting, 0, sizeof(m->meeting));
    m->gated = 0;
    m->records = 0;
    for (unsigned int i = 0; i < SIM_MAX_GPUS; i++)
        m->gpu[i].owner = m->gpu[i].last = -1;
}

static void proc_clear(struct sim_machine *m, unsigned int row)
{
    struct sim_proc *p = &m->proc[row];

    for (unsigned int i = 0; i < m->objects_high; i++)
        while (m->object[i].id && m->object[i].holds[row])
            sim_object_drop(m, &m->object[i], row);
    for (unsigned int gpu = 0; gpu < SIM_MAX_GPUS; gpu++) {
        p->client[gpu].used = 0;
        p->client[gpu].resident = 0;
        p->client[gpu].contexts = 0;
        p->client[gpu].saved = 0;
        p->client[gpu].saved_contexts = 0;
    }
    p->state = SIM_PROC_FREE;
}

/* The life mutex of a dead process is left unlocked by whoever finds that out; of a live one it cannot be had. */
static bool proc_is_dead(struct sim_proc *p)
{
    int r = pthread_mutex_trylock(&p->life);

    if (r == EOWNERDEAD)
        pthread_mutex_consistent(&p->life);
    if (r == 0 || r == EOWNERDEAD)
        pthread_mutex_unlock(&p->life);
    return r != EBUSY;
}

static uint64_t release_delay(const struct sim_machine *m, unsigned int row)
{
    const uint64_t *delay = m->set.release_delay_ns;

    return delay[0] + mix(m->proc[row].generation * SIM_MAX_PROCS + row) % (delay[1] - delay[0] + 1);
}

void sim_reap(struct sim_machine *m)
{
    uint64_t now = 0;

    for (unsigned int row = 0; row < m->procs_high; row++) {
        struct sim_proc *p = &m->proc[row];

        if (p->state == SIM_PROC_FREE)
            continue;
        if (p->state == SIM_PROC_LIVE) {
            if (!proc_is_dead(p))
                continue;
            now = sim_now_ns();
            p->died_ns = now;
            for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++)
                sim_timeline_advance(m, gpu, now);
            sim_timeline_drop(m, row);
            p->release_ns = release_delay(m, row);
            p->state = SIM_PROC_DEAD;
        }
        if (!now)
            now = sim_now_ns();
        if (p->clean || now - p->died_ns >= p->release_ns)
            proc_clear(m, row);
    }
}

uint64_t sim_gpu_used(const struct sim_machine *m, unsigned int gpu)
{
    uint64_t used = 0;

    for (unsigned int row = 0; row < m->procs_high; row++)
        if (m->proc[row].state != SIM_PROC_FREE)
            used += m->proc[row].client[gpu].used + m->proc[row].client[gpu].resident;
    for (unsigned int i = 0; i < m->objects_high; i++)
        if (m->object[i].id && m->object[i].gpu == gpu)
            used += m->object[i].size;
    return used;
}

bool sim_gpu_fits(struct sim_machine *m, unsigned int gpu, uint64_t bytes)
{
    uint64_t used = sim_gpu_used(m, gpu), managed = 0, over;

    if (bytes > m->set.mem)
        return false;
    if (used <= m->set.mem - bytes)
        return true;
    over = used - (m->set.mem - bytes);
    for (unsigned int row = 0; row < m->procs_high; row++)
        if (m->proc[row].state == SIM_PROC_LIVE)
            managed += m->proc[row].client[gpu].resident;
    if (managed < over)
        return false;
    for (unsigned int row = 0; row < m->procs_high && over; row++) {
        struct sim_client *c = &m->proc[row].client[gpu];
        uint64_t give = (over + m->set.granularity - 1) & ~(m->set.granularity - 1);

        if (m->proc[row].state != SIM_PROC_LIVE)
            continue;
        give = c->resident < give ? c->resident : give;
        c->resident -= give;
        over -= over < give ? over : give;
    }
    return true;
}

uint64_t sim_proc_used(const struct sim_machine *m, unsigned int row, unsigned int gpu)
{
    uint64_t used = m->proc[row].client[gpu].used + m->proc[row].client[gpu].resident;

    for (unsigned int i = 0; i < m->objects_high; i++)
        if (m->object[i].id && m->object[i].gpu == gpu && m->object[i].payer == (int32_t)row)
            used += m->object[i].size;
    return used;
}

static bool machine_idle(struct sim_machine *m)
{
    sim_reap(m);
    for (unsigned int row = 0; row < m->procs_high; row++)
        if (m->proc[row].state != SIM_PROC_FREE)
            return false;
    return true;
}

void sim_state_path(char *path, size_t size)
{
    const char *given = getenv("SOFTSIM_STATE");

    if (given && *given)
        snprintf(path, size, "%s", given);
    else
        snprintf(path, size, "/dev/shm/softsim-%u", (unsigned int)getuid());
}

/* With the file locked: a file of another size is another build's; it is replaced, and its users keep the old one. */
static struct sim_machine *state_map(int fd, bool *foreign)
{
    struct sim_machine *m;
    struct stat st;

    *foreign = false;
    if (fstat(fd, &st) < 0)
        return NULL;
    if (st.st_size && (uint64_t)st.st_size != sizeof(struct sim_machine)) {
        *foreign = true;
        return NULL;
    }
    if (!st.st_size && ftruncate(fd, sizeof(struct sim_machine)) < 0)
        return NULL;
    m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (m == MAP_FAILED)
        return NULL;
    if (m->magic == SIM_MAGIC && m->bytes != sizeof(*m)) {
        munmap(m, sizeof(*m));
        *foreign = true;
        return NULL;
    }
    if (m->magic != SIM_MAGIC) {
        robust_mutex_init(&m->lock);
        m->procs_high = 0;
        m->objects_high = 0;
        m->next_id = 1;
        m->bytes = sizeof(*m);
        settings_apply(m);
        __atomic_store_n(&m->magic, SIM_MAGIC, __ATOMIC_RELEASE);
    }
    return m;
}

struct sim_machine *sim_machine_open(void)
{
    char path[SIM_PATH_MAX];
    struct sim_machine *m = NULL;

    for (int attempt = 0; attempt < 3 && !m; attempt++) {
        bool foreign;
        int fd;

        sim_state_path(path, sizeof(path));
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd < 0)
            return NULL;
        while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
            ;
        m = state_map(fd, &foreign);
        if (foreign)
            unlink(path);
        else if (!m)
            attempt = 3;
        /* The mapping keeps the open file, and the lock with it. */
        flock(fd, LOCK_UN);
        close(fd);
    }
    if (!m)
        return NULL;
    sim_machine_lock(m);
    if (machine_idle(m))
        settings_apply(m);
    sim_machine_unlock(m);
    return m;
}

/* What the attaching thread hands to the one that holds the life mutex. */
static struct {
    unsigned int row;
    sem_t held;
} attaching;

void sim_proc_hold(struct sim_machine *m)
{
    pthread_mutex_lock(&m->proc[attaching.row].life);
    m->proc[attaching.row].thread = (int32_t)syscall(SYS_gettid);
    sem_post(&attaching.held);
}

/* Lock held. Ids of the machine's first PID namespace stay as they are; those of each further one that is there at the same time lie above them. */
static uint32_t outer_pid(const struct sim_machine *m, const struct sim_process_id *id)
{
    bool taken[SIM_MAX_PROCS] = {false};
    uint32_t rank = 0;

    for (unsigned int row = 0; row < m->procs_high; row++) {
        const struct sim_proc *p = &m->proc[row];

        if (p->state == SIM_PROC_FREE)
            continue;
        if (sim_process_near(&p->id, id))
            return (uint32_t)id->pid + (p->outer - (uint32_t)p->id.pid);
        taken[p->outer / SIM_NAMESPACE % SIM_MAX_PROCS] = true;
    }
    while (taken[rank])
        rank++;
    return (uint32_t)id->pid + rank * SIM_NAMESPACE;
}

bool sim_proc_attach(struct sim_machine *m, int *out, void *(*thread)(void *), void *arg)
{
    struct sim_process_id self = sim_process_self();
    struct sim_proc *p = NULL;
    unsigned int row;
    sigset_t all, before;
    pthread_t id;
    int failed;

    sim_machine_lock(m);
    sim_reap(m);
    for (row = 0; row < SIM_MAX_PROCS && !p; row++)
        if (m->proc[row].state == SIM_PROC_FREE)
            p = &m->proc[row];
    if (!p) {
        sim_machine_unlock(m);
        return false;
    }
    row--;
    *out = (int)row;
    robust_mutex_init(&p->life);
    p->id = self;
    p->outer = outer_pid(m, &self); /* the row is free yet */
    p->clean = 0;
    p->checkpoint = 0;
    p->inside = 0;
    p->generation++;
    for (unsigned int gpu = 0; gpu < SIM_MAX_GPUS; gpu++)
        memset(&p->client[gpu], 0, offsetof(struct sim_client, history));
    if (m->procs_high < row + 1)
        m->procs_high = row + 1;

    /* The row becomes LIVE only once its life is held, so nobody can take a starting process for a dead one. */
    attaching.row = row;
    sem_init(&attaching.held, 0, 0);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&id, NULL, thread, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) {
        pthread_detach(id);
        while (sem_wait(&attaching.held) < 0 && errno == EINTR)
            ;
        p->state = SIM_PROC_LIVE;
    }
    sim_machine_unlock(m);
    return !failed;
}
