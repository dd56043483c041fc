/* SPDX-License-Identifier: Apache-2.0 */
/* A ledger file from elsewhere: looked at, changed and joined. `make fuzz` builds this with libFuzzer; tests/unit/test_fuzz_ledger.c runs the seeds
 * of tests/fuzz/ledger and mutations of them without it.
 *
 * Input: the constant part of a header, whose check is put right, then pairs of a place (4 bytes) and a word (8 bytes) that stands there.
 * The file is as long as its header says, within bounds. Nothing may crash or hang, and who joins still holds to its limit. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ledger_layout.h"

#define MUST(condition)                                                                                                            \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                        \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

#define FILE_MOST (UINT64_C(8) << 20)
#define LIMIT     UINT64_C(1000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int state_dir = -1;
static char state[64];

static void remove_state(void)
{
    unlinkat(state_dir, "fuzzed/ledger", 0);
    unlinkat(state_dir, "fuzzed", AT_REMOVEDIR);
    rmdir(state);
}

static void make_state(void)
{
    strcpy(state, "/dev/shm/softslice-fuzz-XXXXXX");
    MUST(mkdtemp(state));
    state_dir = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(state_dir >= 0 && mkdirat(state_dir, "fuzzed", 0700) == 0);
    atexit(remove_state);
}

static void write_file(const uint8_t *data, size_t size)
{
    struct ledger_header header = {0};
    int fd = openat(state_dir, "fuzzed/ledger", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t length;

    MUST(fd >= 0);
    memcpy(&header, data, size < LEDGER_CONSTANT_SIZE ? size : LEDGER_CONSTANT_SIZE);
    header.check = ledger_checksum(&header, LEDGER_CONSTANT_SIZE - 8);
    length = header.file_size < FILE_MOST ? header.file_size : FILE_MOST;
    MUST(ftruncate(fd, (off_t)length) == 0 && pwrite(fd, &header, LEDGER_CONSTANT_SIZE, 0) == LEDGER_CONSTANT_SIZE);
    for (size_t at = LEDGER_CONSTANT_SIZE; at + 12 <= size; at += 12) {
        uint32_t place;

        memcpy(&place, data + at, 4);
        place = place % (uint32_t)(length ? length : 1) & ~7U;
        if (place >= LEDGER_CONSTANT_SIZE && place + 8 <= length)
            MUST(pwrite(fd, data + at + 4, 8, place) == 8);
    }
    close(fd);
}

/* What was told of members while the file was read. */
struct heard {
    const struct ledger_view *view;
    unsigned live, dead, last;
    uint64_t spilled[LEDGER_DEVICES];
};

static void hear(void *context, const struct ledger_seen *member)
{
    struct heard *heard = context;

    MUST(member->slot < LEDGER_SLOTS_CAP && (heard->live + heard->dead == 0 || member->slot > heard->last));
    MUST(!member->dead || !member->arms);
    heard->last = member->slot;
    heard->live += !member->dead;
    heard->dead += member->dead;
    for (unsigned i = 0; i < heard->view->devices; i++) {
        if (__builtin_add_overflow(heard->spilled[i], member->device[i].spilled, &heard->spilled[i]))
            heard->spilled[i] = UINT64_MAX;
    }
}

/* Every slot's owner seems to live. */
static void read_with_members(void)
{
    static struct ledger_view view, again;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)LEDGER_LOCK_SLOTS, .l_len = LEDGER_SLOTS_CAP};
    struct heard heard = {.view = &view};
    int fd = openat(state_dir, "fuzzed/ledger", O_RDWR | O_CLOEXEC), result;

    MUST(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
    result = ledger_read_whole(state_dir, "fuzzed", &view, hear, &heard);
    MUST(result <= 0 && view.devices <= LEDGER_DEVICES);
    MUST(result < 0 || heard.live == view.members);
    for (unsigned i = 0; result == 0 && i < view.devices; i++)
        MUST(view.device[i].spilled == heard.spilled[i] && view.device[i].tentative <= view.device[i].current);
    MUST(result != -EPROTO || *ledger_read_fault(state_dir, "fuzzed"));
    MUST(ledger_read(state_dir, "fuzzed", &again) == result);
    /* A dead member's bytes may have left the totals in between. */
    MUST(result < 0 || heard.dead || memcmp(&view, &again, sizeof(view)) == 0);
    close(fd);
}

static void check_device(struct ledger *ledger, unsigned device)
{
    struct ledger_device_state told;

    MUST(ledger_device_state(ledger, device, &told) == 0);
    MUST(ledger_share(ledger, device) >= 1 && ledger_share(ledger, device) <= SHARE_WHOLE);
    MUST(ledger_weight(ledger, device) <= 10000);
    ledger_enter_compute(ledger, device, 3000, 50);
    ledger_set_share(ledger, device, 2000);
    MUST(ledger_share(ledger, device) == (ledger_has_compute(ledger) ? 2000 : SHARE_WHOLE));
    ledger_others_busy(ledger, device, told.busy);
    MUST(!ledger_has_compute(ledger) == !ledger_account(ledger, device));
    if (ledger_has_compute(ledger))
        *ledger_busy_word(ledger, device) = 1;
    ledger_tell_storm(ledger, LEDGER_REFUSED, device, 1, 2, 3);
    ledger_tell_storm(ledger, LEDGER_REFUSED, device, 1, 2, 3);
    MUST(ledger_reserve(ledger, device, LIMIT + 1, LIMIT) == -ENOMEM);
}

static void join(void)
{
    static struct ledger ledger;
    static const uint8_t uuid[16] = {1, 2, 3};
    int device;

    if (ledger_attach(&ledger, state_dir, "fuzzed") < 0) {
        MUST(*ledger.error && !strchr(ledger.error, '\n') && !ledger.file);
        return;
    }
    ledger_arm(&ledger, LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE);
    device = ledger_add_device(&ledger, uuid, LIMIT);
    if (device >= 0)
        check_device(&ledger, (unsigned)device);
    ledger_detach(&ledger);
}

/* Who reads on gets to an end, with events that say what they are. */
static void read_events(void)
{
    static struct ledger_told told[64];
    struct ledger_cursor cursor = {0};
    int count;

    for (unsigned calls = 0; (count = ledger_read_events(state_dir, "fuzzed", &cursor, calls % 2, told, 64)) > 0; calls++) {
        MUST(count <= 64 && calls < 2 * LEDGER_RING_CAP);
        for (int i = 0; i < count; i++)
            MUST(told[i].kind > 0 && told[i].kind < LEDGER_KINDS && told[i].time && told[i].count);
    }
    MUST(ledger_read_events(state_dir, "fuzzed", &cursor, true, told, 64) <= 64);
    count = ledger_read_dead(state_dir, "fuzzed", told, 64);
    MUST(count <= 64);
    for (int i = 0; i < count; i++)
        MUST(told[i].kind == LEDGER_DIED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct ledger_change change = {.vram = true, .compute = true, .limit = 5, .share = 7};
    static struct ledger_view view;

    if (state_dir < 0)
        make_state();
    if (size > 4096)
        return 0;
    write_file(data, size);
    errno = 4711;
    MUST(ledger_read(state_dir, "fuzzed", &view) <= 0);
    MUST(view.devices <= LEDGER_DEVICES && view.members <= LEDGER_SLOTS_CAP);
    for (unsigned i = 0; i < view.devices; i++)
        MUST(view.device[i].share <= SHARE_WHOLE && view.device[i].weight <= 10000);
    MUST(ledger_change(state_dir, "fuzzed", NULL, &change, &view) < 0); /* nobody lives in it */
    read_events();
    MUST(errno == 4711);
    read_with_members();
    join();
    return 0;
}
