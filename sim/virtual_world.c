/* SPDX-License-Identifier: Apache-2.0 */
/* The file that all share who take part in virtual time: mapped, renewed, and who of them lives. */
#include "virtual_world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "virtual_syscall.h"

#define EPOCH     UINT64_C(1000000000000) /* what the clock shows when a world begins */
#define STAT_SIZE 512

struct virtual_world *virtual_shared; /* atomic */
static uint32_t state;                /* atomic: 0 not looked yet, 1 real, 2 virtual */

void virtual_lock(struct virtual_world *w)
{
    if (pthread_mutex_lock(&w->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&w->lock);
}

void virtual_unlock(struct virtual_world *w)
{
    pthread_mutex_unlock(&w->lock);
}

void virtual_robust(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;

    memset(mutex, 0, sizeof(*mutex));
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
}

bool virtual_dead(struct virtual_row *r)
{
    int result = pthread_mutex_trylock(&r->life);

    if (result == EOWNERDEAD)
        pthread_mutex_consistent(&r->life);
    if (result == 0 || result == EOWNERDEAD)
        pthread_mutex_unlock(&r->life);
    return result != EBUSY;
}

uint64_t virtual_real_now(void)
{
    struct timespec t = {0};

    virtual_raw(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0, 0, 0, 0);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

char virtual_thread_state(const struct virtual_row *r)
{
    char path[64], text[STAT_SIZE];
    const char *end;
    long size;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", r->pid, r->tid ? r->tid : r->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    end = strrchr(text, ')');
    return end && end[1] ? end[2] : 0;
}

uint64_t virtual_thread_ran(const struct virtual_row *r)
{
    char path[64], text[64];
    long size;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", r->pid, r->tid ? r->tid : r->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[size > 0 ? size : 0] = '\0';
    return strtoull(text, NULL, 10);
}

/* A thread that a living process has just created, and that has nothing of its own yet by which it could be known to live. */
static bool unborn(const struct virtual_row *r)
{
    char what = r->state == VIRTUAL_NEW && !r->tid ? virtual_thread_state(r) : 0;

    return what && what != 'Z' && what != 'X';
}

/* The file, its lock held: a world in which nobody takes part any more waits for processes anew; its clock goes on. */
static void renew(struct virtual_world *w, unsigned int needed)
{
    if (w->magic != VIRTUAL_MAGIC) {
        virtual_robust(&w->lock);
        w->bytes = sizeof(*w);
        w->clock = EPOCH;
        w->holder = -1;
        __atomic_store_n(&w->magic, VIRTUAL_MAGIC, __ATOMIC_RELEASE);
    }
    virtual_lock(w);
    for (unsigned int i = 0; i < w->rows_high; i++) {
        if (w->row[i].state != VIRTUAL_FREE && (unborn(&w->row[i]) || !virtual_dead(&w->row[i]))) {
            virtual_unlock(w);
            return;
        }
        w->row[i].state = VIRTUAL_FREE;
    }
    w->needed = needed;
    w->holder = -1;
    w->started = 0;
    w->begun = 0;
    virtual_unlock(w);
}

static struct virtual_world *map(unsigned int needed)
{
    const char *given = getenv("SOFTSIM_STATE");
    struct virtual_world *w = MAP_FAILED;
    char path[256];
    struct stat st;
    int fd;

    if (given && *given)
        snprintf(path, sizeof(path), "%s.virtual", given);
    else
        snprintf(path, sizeof(path), "/dev/shm/softsim-%u.virtual", (unsigned int)getuid());
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return NULL;
    while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
        ;
    if (fstat(fd, &st) == 0 && (!st.st_size || (uint64_t)st.st_size == sizeof(*w)) &&
        (st.st_size || ftruncate(fd, sizeof(*w)) == 0))
        w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (w != MAP_FAILED)
        renew(w, needed);
    flock(fd, LOCK_UN);
    close(fd);
    return w == MAP_FAILED ? NULL : w;
}

/* A world that cannot be had must not look like one in which time is real. */
static void look_up(void)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    const char *text = getenv("SOFTSIM_VIRTUAL");
    unsigned int needed = text ? (unsigned int)strtoul(text, NULL, 10) : 0;

    pthread_mutex_lock(&once);
    if (!state && needed) {
        virtual_shared = map(needed);
        if (!virtual_shared || !virtual_prepare()) {
            dprintf(2, "libvirtualtime: no virtual time beside SOFTSIM_STATE: %s\n", strerror(errno));
            abort();
        }
    }
    if (!state)
        __atomic_store_n(&state, needed ? 2 : 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&once);
}

struct virtual_world *virtual_world(void)
{
    uint32_t known = __atomic_load_n(&state, __ATOMIC_ACQUIRE);

    if (!known) {
        static __thread bool looking;
        int error = errno;

        /* What it calls may ask for the time itself, as a sanitizer's allocator does. */
        if (looking)
            return NULL;
        looking = true;
        look_up();
        looking = false;
        errno = error;
        known = __atomic_load_n(&state, __ATOMIC_ACQUIRE);
    }
    return known == 2 ? virtual_shared : NULL;
}
