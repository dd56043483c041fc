/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of two members allocate and free under one budget that is too small for all of them. Never is more charged than the budget,
 * and in the end all is given back. A plain program with both members in one process, so that it can run under ThreadSanitizer. */
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "softslice/quota.h"

#define MEMBERS 2
#define THREADS 8
#define ROUNDS  20000
#define BLOCKS  12
#define LIMIT   (UINT64_C(24) << 20)

static struct quota *member[MEMBERS];
static uint32_t faults, granted, refused;

static void fault(const char *what)
{
    if (__atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED) < 10)
        fprintf(stderr, "quota_race: %s\n", what);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t some_size(uint64_t *seed)
{
    static const uint64_t sizes[] = {1, 1 << 20, (2 << 20) + 1, 5 << 20};

    return sizes[next_random(seed) % (sizeof(sizes) / sizeof(*sizes))];
}

static void *run(void *argument)
{
    struct quota *quota = member[(uintptr_t)argument % MEMBERS];
    uint64_t seed = 88172645463325252u * ((uintptr_t)argument + 1);
    struct record held[BLOCKS] = {{0}};
    struct quota_charge charge;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct record *block = &held[next_random(&seed) % BLOCKS];

        if (block->key) {
            quota_refund(quota, block);
            block->key = 0;
        } else if (quota_reserve(quota, &charge, 0, some_size(&seed), QUOTA_LINEAR) == 0) {
            if (next_random(&seed) % 8 == 0) {
                quota_cancel(quota, &charge);
            } else {
                quota_keep(quota, &charge, 0, block);
                block->key = 1;
            }
            __atomic_fetch_add(&granted, 1, __ATOMIC_RELAXED);
        } else {
            __atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
        }
        if (ledger_own(&quota->ledger, 0) > LIMIT)
            fault("this process alone holds more than the budget");
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        if (held[i].key)
            quota_refund(quota, &held[i]);
    return NULL;
}

static struct quota *join(const char *directory)
{
    struct quota *mine = mmap(NULL, sizeof(*mine), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct config *config = calloc(1, sizeof(*config));
    struct config_device device = {.uuid = {7}, .physical = LIMIT};
    char path[PATH_MAX];
    int fd = ledger_state_dir(&mine->ledger, directory, path, sizeof(path));

    if (fd < 0 || ledger_attach(&mine->ledger, fd, "race") != 0 || quota_add_device(mine, config, &device, 0) != 0) {
        fprintf(stderr, "quota_race: %s\n", mine->ledger.error);
        exit(1);
    }
    ledger_set_limit(&mine->ledger, 0, LIMIT);
    close(fd);
    free(config);
    return mine;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

int main(void)
{
    char directory[] = "/tmp/softslice-race-XXXXXX";
    struct ledger_device_state state;
    pthread_t thread[THREADS];

    if (!mkdtemp(directory))
        return 1;
    log_configure(LOG_OFF, NULL);
    for (unsigned i = 0; i < MEMBERS; i++)
        member[i] = join(directory);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, run, (void *)i) != 0)
            return 1;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < MEMBERS; i++)
        if (ledger_own(&member[i]->ledger, 0) != 0)
            fault("something is charged although nothing is held");
    if (!granted || !refused)
        fault("the budget was never reached, or always");
    if (ledger_device_state(&member[0]->ledger, 0, &state) != 0 || state.current != 0 || state.peak > LIMIT ||
        state.events[LEDGER_EVENT_UNDERFLOW] != 0)
        fault("the ledger does not add up");
    printf("quota_race: %u granted, %u refused, peak %lu of %lu, %lu underflows, %u faults\n", granted, refused,
           (unsigned long)state.peak, (unsigned long)LIMIT, (unsigned long)state.events[LEDGER_EVENT_UNDERFLOW], faults);
    return nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0 && !faults ? 0 : 1;
}
