/* SPDX-License-Identifier: Apache-2.0 */
/* The life cycle of the driver in a process: cuInit, fork, exit; which GPUs it sees. */
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <time.h>

#include "sim.h"
#include "virtual.h"

#pragma weak virtual_poll
#pragma weak virtual_enter

struct sim_driver *sim;

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t driver_lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialised; /* also true in forked children, where sim->ready reads as false */
static bool deinitialised;
static __thread bool in_callback;

void sim_callback_begin(void)
{
    in_callback = true;
}

void sim_callback_end(void)
{
    in_callback = false;
}

/* Says that somebody is inside before it looks whether that is allowed, as the one who locks the process does the other way round. */
void sim_lock(void)
{
    struct sim_proc *p = &sim->machine->proc[sim->row];

    pthread_mutex_lock(&driver_lock);
    for (;;) {
        struct timespec ts = {.tv_nsec = 200000};

        __atomic_store_n(&p->inside, 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&p->checkpoint, __ATOMIC_SEQ_CST))
            return;
        __atomic_store_n(&p->inside, 0, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&driver_lock);
        nanosleep(&ts, NULL);
        pthread_mutex_lock(&driver_lock);
    }
}

void sim_unlock(void)
{
    __atomic_store_n(&sim->machine->proc[sim->row].inside, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&driver_lock);
}

CUresult sim_enter(const char *function, bool before_init)
{
    sim_trace(function);
    sim_block(function);
    if (virtual_poll)
        virtual_poll();
    if (!before_init) {
        if (__atomic_load_n(&deinitialised, __ATOMIC_ACQUIRE))
            return CUDA_ERROR_DEINITIALIZED;
        if (!__atomic_load_n(&initialised, __ATOMIC_ACQUIRE) || !sim->ready)
            return CUDA_ERROR_NOT_INITIALIZED;
        if (in_callback)
            return CUDA_ERROR_NOT_PERMITTED;
    }
    return (CUresult)sim_fail_next(function);
}

int sim_driver_version(void)
{
    static int known; /* atomic */
    int version = __atomic_load_n(&known, __ATOMIC_RELAXED);

    if (!version) {
        struct sim_settings set;

        sim_settings_read(&set);
        version = set.driver_version;
        __atomic_store_n(&known, version, __ATOMIC_RELAXED);
    }
    return version;
}

static int gpu_by_uuid(const struct sim_settings *set, const char *text, size_t length)
{
    int found = -1;

    for (unsigned int gpu = 0; gpu < set->gpus; gpu++) {
        unsigned char u[16];
        char name[48];

        sim_gpu_uuid(set, gpu, u);
        snprintf(name, sizeof(name), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
                 u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
        if (length <= strlen(name) && strncasecmp(name, text, length) == 0) {
            if (found >= 0)
                return -1; /* an ambiguous prefix names nothing */
            found = (int)gpu;
        }
    }
    return found;
}

/* CUDA_VISIBLE_DEVICES: ordinals or prefixes of UUIDs; the first entry that is neither ends the list; one named twice hides all. */
static void visible_devices(struct sim_driver *d, const struct sim_settings *set)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");

    d->devices = 0;
    if (!text) {
        for (unsigned int gpu = 0; gpu < set->gpus; gpu++)
            d->gpu_of[d->devices++] = gpu;
        return;
    }
    while (*text && d->devices < SIM_MAX_GPUS) {
        size_t length = strcspn(text, ",");
        int gpu = -1;

        while (length && isspace((unsigned char)*text)) {
            text++;
            length--;
        }
        if (length && isdigit((unsigned char)*text))
            gpu = atoi(text);
        else if (length >= 4 && strncasecmp(text, "GPU-", 4) == 0)
            gpu = gpu_by_uuid(set, text, length);
        if (gpu < 0 || gpu >= (int)set->gpus)
            return;
        for (int i = 0; i < d->devices; i++)
            if (d->gpu_of[i] == (unsigned int)gpu) {
                d->devices = 0;
                return;
            }
        d->gpu_of[d->devices++] = (unsigned int)gpu;
        text += length;
        text += *text == ',';
    }
}

/* CUDA_MPS_PINNED_DEVICE_MEM_LIMIT: "0=1G,1=512M", by this process' ordinals (assumed). */
static void client_limits(struct sim_driver *d)
{
    const char *text = d->machine->set.mps ? getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT") : NULL;

    for (int dev = 0; dev < SIM_MAX_GPUS; dev++)
        d->limit[dev] = UINT64_MAX;
    while (text && *text) {
        char *end;
        unsigned long dev = strtoul(text, &end, 10);
        char value[32];

        if (*end == '=' && dev < SIM_MAX_GPUS) {
            snprintf(value, sizeof(value), "%.*s", (int)strcspn(end + 1, ","), end + 1);
            d->limit[dev] = sim_number(value, UINT64_MAX);
        }
        text += strcspn(text, ",");
        text += *text == ',';
    }
}

/* From here on every call answers DEINITIALIZED; the memory itself goes with the process. */
static void driver_exit(void)
{
    if (!sim->ready)
        return;
    sim_machine_lock(sim->machine);
    sim->machine->proc[sim->row].clean = 1;
    for (unsigned int gpu = 0; gpu < sim->machine->set.gpus; gpu++)
        sim_timeline_advance(sim->machine, gpu, sim_now_ns());
    sim_timeline_write(sim->machine);
    sim_machine_unlock(sim->machine);
    __atomic_store_n(&deinitialised, true, __ATOMIC_RELEASE);
}

static CUresult driver_start(void)
{
    struct sim_driver *d = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (d == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    madvise(d, 4096, MADV_WIPEONFORK);
    d->machine = sim_machine_open();
    if (!d->machine) {
        munmap(d, 4096);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    visible_devices(d, &d->machine->set);
    client_limits(d);
    d->budget = sim_env_number("SOFTSIM_DEVICE_BUDGET", UINT64_MAX);
    if (!d->devices) {
        munmap(d->machine, sizeof(*d->machine));
        munmap(d, 4096);
        return CUDA_ERROR_NO_DEVICE;
    }
    sim = d;
    if (!sim_proc_attach(d->machine, &d->row, sim_worker, d->machine)) {
        munmap(d->machine, sizeof(*d->machine));
        munmap(d, 4096);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    madvise(d->machine, sizeof(*d->machine), MADV_DONTFORK);
    d->ready = true;
    __atomic_store_n(&initialised, true, __ATOMIC_RELEASE);
    atexit(driver_exit);
    return CUDA_SUCCESS;
}

CUresult cuInit(unsigned int Flags)
{
    CUresult r = sim_enter(__func__, true);

    if (r != CUDA_SUCCESS)
        return r;
    if (Flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (__atomic_load_n(&deinitialised, __ATOMIC_ACQUIRE))
        return CUDA_ERROR_DEINITIALIZED;
    /* The child of a process that has initialised can never use the driver; its copy of the lock may be held for ever. */
    if (__atomic_load_n(&initialised, __ATOMIC_ACQUIRE))
        return sim->ready ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
    /* In virtual time, processes come to the machine in their order, not in the order in which they happened to start. */
    if (virtual_enter)
        virtual_enter();
    pthread_mutex_lock(&init_lock);
    if (!initialised)
        r = driver_start();
    pthread_mutex_unlock(&init_lock);
    return r;
}

CUresult cuDriverGetVersion(int *driverVersion)
{
    ENTER_EARLY();
    if (!driverVersion)
        return CUDA_ERROR_INVALID_VALUE;
    *driverVersion = sim_driver_version();
    return CUDA_SUCCESS;
}
