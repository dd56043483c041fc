/* SPDX-License-Identifier: Apache-2.0 */
/* A peer that writes anything into its entry, at any moments: whoever shares a GPU with it never crashes, and is never kept from it for longer than it should.
 *
 * Input: records of 11 bytes: how long until then (in 100 us), which word of the entry, how it is made, eight bytes for it. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "turns_internal.h"

#define MUST(condition)                                                                                                            \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                        \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

#define MS UINT64_C(1000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[1][16] = {{1}};

/* Joined once: what is fuzzed is the entry, from clean tracks each time. */
static struct turns ours, theirs;
static uint64_t now = UINT64_C(1000000000000);

static void begin(void)
{
    struct turns_settings settings = {0};
    char path[] = "/dev/shm/softslice-fuzz-XXXXXX", command[64];
    int dir;

    MUST(mkdtemp(path) && (dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    MUST(turns_join(&ours, dir, "ours", uuid, 1, &settings, now) == 0 &&
         turns_join(&theirs, dir, "theirs", uuid, 1, &settings, now) == 0);
    now += 200 * MS;
    turns_look(&ours, now);
    close(dir);
    snprintf(command, sizeof(command), "rm -rf %s", path);
    MUST(system(command) == 0);
}

static void scribble(const uint8_t *record)
{
    struct turns_device *entry = theirs.room->mine[0].entry;
    unsigned word = record[1] % 16, kind = word < 8 ? 1 + word % 6 : 0;
    uint64_t value;

    memcpy(&value, record + 3, sizeof(value));
    if (record[2] & 2)
        value = turns_moment(now + (value & 0xffffff) - 0x7fffff, record[2] >> 2);
    else if (record[2] & 16)
        value = turns_load(&ours.room->mine[0].entry->rank, TURNS_WORD_RANK) + (value & 0xffffff) - 0x7fffff;
    if (kind && record[2] & 1)
        value = turns_word((enum turns_word_kind)kind, value);
    if (kind)
        (&entry->hold)[kind - 1] = value;
    else
        ((uint64_t *)theirs.room->own)[value % (TURNS_VIEW_SIZE / 8)] = value >> 12;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char clean[TURNS_VIEW_SIZE];
    uint64_t waiting = 0, ask_at = 0;
    bool mine = false;
    char line[256];

    if (!ours.room) {
        begin();
        memcpy(clean, theirs.room->own, sizeof(clean));
    }
    now += 3600 * 1000 * MS;
    memcpy(theirs.room->own, clean, sizeof(clean));
    for (unsigned i = 0; i < TURNS_PEERS; i++)
        memset(ours.room->peer[i].track, 0, sizeof(ours.room->peer[i].track));
    for (; size >= 11; data += 11, size -= 11) {
        for (unsigned step = 0; step <= data[0]; step++) {
            now += MS / 10;
            if (mine) {
                struct turns_demand demand = turns_demand(&ours, 1, now);

                MUST(!demand.wanted || demand.since <= now);
                if (demand.must_go) {
                    turns_release(&ours, 1, now, MS);
                    mine = false;
                    ask_at = waiting = now;
                }
            } else if (now >= ask_at) {
                struct turns_answer answer = turns_ask(&ours, 1, now);

                MUST(answer.until >= now && (answer.mine || answer.until <= now + 2 * TURNS_QUANTUM));
                mine = answer.mine;
                ask_at = answer.until;
                waiting = waiting ? waiting : now;
            }
            /* A credit of 10 ms, what it may hide of that, its two quanta twice, and a few graces for those that do not come. */
            MUST(mine || !waiting || now - waiting < 80 * MS);
        }
        scribble(data);
    }
    turns_release(&ours, 1, now, 0);
    while (turns_report(&ours, line, sizeof(line), NULL))
        MUST(strlen(line) < 200);
    return 0;
}
