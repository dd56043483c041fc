/* SPDX-License-Identifier: Apache-2.0 */
/* Ledger files that are not as they should be: every byte of header and devices changed, truncated, of other versions, not a file at
 * all. Attaching never crashes or hangs; it fails with one clear line, or what it joins still holds to the limit. */
// timeout: 180
#include "common.h"
#include "ledger_layout.h"

#define LIMIT UINT64_C(1000000)
#define HELD  UINT64_C(800000)
#define TABLES                                                                                                                     \
    (LEDGER_HEADER_SIZE + LEDGER_DEVICES * sizeof(struct ledger_device) +                                                          \
     8 * (sizeof(struct ledger_slot) + sizeof(struct ledger_slot_more)))

static struct ledger *member, *other;
static int dir, file;
static unsigned device;
static char intact[TABLES];

static void open_file(void)
{
    file = openat(dir, "damaged/ledger", O_RDWR | O_CLOEXEC);
    check(file >= 0, "%s", strerror(errno));
    check(pread(file, intact, sizeof(intact), 0) == (ssize_t)sizeof(intact), "%s", strerror(errno));
}

static void begin(bool alive)
{
    test_remove(dir, "damaged");
    device = (unsigned)test_attach(member, dir, "damaged", LIMIT);
    test_hold(member, (int)device, HELD);
    if (!alive)
        ledger_detach(member);
    open_file();
}

static void end(void)
{
    if (member->file)
        ledger_detach(member);
    close(file);
}

/* Attach to the file as it is now. Whether it was refused as damaged; else it must hold to the limit. */
static bool refused(const char *what, size_t at)
{
    int result = ledger_attach(other, dir, "damaged"), index;
    uint64_t room = member->file ? LIMIT - HELD : LIMIT;

    if (result == -EPROTO) {
        check(other->error[0] && strchr(other->error, '\n') == NULL, "%s, byte %zu: \"%s\"", what, at, other->error);
        return true;
    }
    check(result == 0, "%s, byte %zu: %d, %s", what, at, result, other->error);
    index = ledger_add_device(other, test_uuid, LIMIT);
    if (index >= 0)
        check(ledger_reserve(other, (unsigned)index, room + 1, LEDGER_NO_LIMIT) == -ENOMEM, "%s, byte %zu: over the limit", what,
              at);
    ledger_detach(other);
    return false;
}

/* Every byte of a share and a weight, with a live member: refused at attach, and read as the least there is by who has joined. */
static void shares(void)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff};
    struct ledger_compute compute;
    struct ledger_header header;
    off_t offset;

    begin(true);
    ledger_enter_compute(member, device, 3000, 200);
    memcpy(&header, intact, sizeof(header));
    offset = (off_t)(header.compute_offset + (size_t)device * header.compute_stride);
    check(pread(file, &compute, sizeof(compute), offset) == (ssize_t)sizeof(compute), "%s", strerror(errno));
    for (size_t at = 0; at < 16; at++) {
        for (unsigned i = 0; i < sizeof(changes); i++) {
            char changed = (char)(((char *)&compute)[at] ^ changes[i]);

            check(pwrite(file, &changed, 1, offset + (off_t)at) == 1, "%s", strerror(errno));
            check(refused("share", at), "a change of byte %zu of a share was not noticed", at);
            check(at < 8 ? ledger_share(member, device) == 1 : ledger_weight(member, device) == 1, "byte %zu: %u, %u", at,
                  ledger_share(member, device), ledger_weight(member, device));
            check(pwrite(file, &compute, sizeof(compute), offset) == (ssize_t)sizeof(compute), "%s", strerror(errno));
        }
    }
    check(ledger_share(member, device) == 3000 && ledger_weight(member, device) == 200, "%s", "not restored");
    end();
    printf("shares and weights: every change is noticed\n");
}

static void every_byte(bool alive)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff};
    unsigned refusals = 0, tries = 0;

    begin(alive);
    for (size_t at = 0; at < LEDGER_HEADER_SIZE + LEDGER_DEVICES * sizeof(struct ledger_device); at++) {
        if (at == sizeof(struct ledger_header))
            at = LEDGER_HEADER_SIZE;
        for (unsigned i = 0; i < sizeof(changes); i++) {
            char changed = (char)(intact[at] ^ changes[i]);

            check(pwrite(file, &changed, 1, (off_t)at) == 1, "%s", strerror(errno));
            if (refused("changed", at))
                refusals++;
            else
                check(at >= LEDGER_CONSTANT_SIZE, "a change of byte %zu was not noticed", at);
            tries++;
            check(pwrite(file, intact, sizeof(intact), 0) == (ssize_t)sizeof(intact), "%s", strerror(errno));
        }
    }
    check(!refused("restored", 0), "%s", other->error);
    end();
    printf("%u single changes with%s a live member: %u refused as damage, all others harmless\n", tries, alive ? "" : "out",
           refusals);
}

static void truncated(void)
{
    struct stat status;

    begin(false);
    check(fstat(file, &status) == 0, "%s", strerror(errno));
    for (off_t size = status.st_size - 1; size >= 0; size = size > 5000 ? size / 2 : size - 1) {
        check(ftruncate(file, size) == 0, "%s", strerror(errno));
        check(refused("truncated", (size_t)size), "%lld bytes are enough", (long long)size);
        check(strstr(other->error, "truncated"), "%s", other->error);
    }
    check(ftruncate(file, (off_t)1 << 40) == 0 && refused("huge", 0), "%s", other->error);
    end();
    printf("truncated: refused\n");
}

/* Random bytes over everything, with and without a good header: only crashes and hangs count, for nothing in it can be believed. */
static void scribbled(void)
{
    uint64_t random = 4711;
    size_t size;
    char *whole;

    begin(false);
    size = (size_t)lseek(file, 0, SEEK_END);
    whole = malloc(size);
    for (unsigned round = 0; round < 200; round++) {
        size_t from = round % 2 ? LEDGER_CONSTANT_SIZE : 0;

        check(pread(file, whole, size, 0) == (ssize_t)size, "%s", strerror(errno));
        memcpy(whole, intact, sizeof(intact));
        for (size_t at = from; at < size; at++) {
            if (round % 4 < 2 || test_random(&random) % 1024 == 0)
                whole[at] = (char)test_random(&random);
        }
        check(pwrite(file, whole, size, 0) == (ssize_t)size, "%s", strerror(errno));
        refused("scribbled", round);
    }
    free(whole);
    end();
    printf("scribbled over: survived\n");
}

static void write_header(struct ledger_header *header)
{
    header->check = ledger_checksum(header, LEDGER_CONSTANT_SIZE - 8);
    check(pwrite(file, header, LEDGER_CONSTANT_SIZE, 0) == LEDGER_CONSTANT_SIZE, "%s", strerror(errno));
}

static void versions(void)
{
    struct ledger_header header;

    begin(false);
    memcpy(&header, intact, sizeof(header));
    header.major++;
    write_header(&header);
    check(refused("major", 0) && strstr(other->error, "major"), "%s", other->error);

    /* A newer minor version with more of everything and a section of its own. */
    memcpy(&header, intact, sizeof(header));
    header.minor = 9;
    header.devices = 48;
    header.device_stride = 512;
    header.slot_stride = 128;
    header.slot_offset = header.device_offset + header.devices * header.device_stride;
    header.hold_offset = header.slot_offset + header.slots * header.slot_stride;
    header.extra_offset = header.hold_offset + header.devices * header.slots * header.hold_stride;
    header.extra_stride = 32;
    header.compute_offset = header.extra_offset + header.devices * header.slots * header.extra_stride;
    header.compute_stride = 512;
    header.busy_offset = header.compute_offset + header.devices * header.compute_stride;
    header.busy_stride = 16;
    header.event_offset = header.busy_offset + header.devices * header.slots * header.busy_stride;
    header.event_stride = 128;
    header.event_count = 30;
    header.file_size = header.event_offset + (uint64_t)header.event_count * header.event_stride + 65536;
    check(ftruncate(file, 0) == 0 && ftruncate(file, (off_t)header.file_size) == 0, "%s", strerror(errno));
    write_header(&header);
    check(!refused("minor", 0), "%s", other->error);
    device = (unsigned)test_attach(member, dir, "damaged", LIMIT);
    test_hold(member, (int)device, HELD);
    check(!refused("minor", 0), "%s", other->error);
    end();

    /* Good by its checksum, and impossible. */
    for (unsigned i = 0; i < 23; i++) {
        begin(false);
        memcpy(&header, intact, sizeof(header));
        header.slots = i == 0 ? 0 : i == 1 ? UINT32_MAX : header.slots;
        header.devices = i == 2 ? UINT32_MAX : header.devices;
        header.hold_offset = i == 3 ? UINT32_MAX - 7 : header.hold_offset;
        header.device_offset = i == 4 ? 4097 : header.device_offset;
        header.slot_offset = i == 5 ? 64 : header.slot_offset;
        header.extra_offset = i == 6 ? header.hold_offset : i == 7 ? (uint32_t)header.file_size : header.extra_offset;
        header.extra_stride = i == 8 ? 8 : header.extra_stride;
        header.slot_stride = i == 9 ? 32 : header.slot_stride;
        header.compute_offset = i == 10 ? header.extra_offset : i == 11 ? header.compute_offset + 4 : header.compute_offset;
        header.compute_stride = i == 12 ? 256 : header.compute_stride;
        header.busy_offset = i == 13 ? header.compute_offset : i == 14 ? (uint32_t)header.file_size : header.busy_offset;
        header.busy_stride = i == 15 ? 4 : header.busy_stride;
        header.event_offset = i == 16 ? header.busy_offset : i == 17 ? (uint32_t)header.file_size : header.event_offset;
        header.event_stride = i == 18 ? 32 : i == 19 ? 68 : header.event_stride;
        header.event_count = i == 20 ? 0 : i == 21 ? 63 : i == 22 ? header.event_count + 4096 : header.event_count;
        write_header(&header);
        check(refused("impossible", i), "impossible header %u is accepted", i);
        end();
    }
    printf("versions: another major refused, a newer minor joined\n");
}

/* What came with version 1.2 is not there, and nobody fails for it. */
static void no_compute(void)
{
    static struct ledger_view view;

    ledger_enter_compute(member, device, 3000, 50);
    ledger_set_share(member, device, 2000);
    ledger_set_weight(member, device, 40);
    ledger_arm(member, LEDGER_ARMS_COMPUTE);
    check(ledger_share(member, device) == SHARE_WHOLE && ledger_weight(member, device) == 0, "there is a share");
    check(!ledger_account(member, device) && !ledger_busy_word(member, device), "there is an account");
    check(!ledger_others_busy(member, device, test_now()), "somebody is busy");
    check(ledger_read(dir, "damaged", &view) == 0 && view.arms == LEDGER_ARMS_VRAM && !view.device[0].compute,
          "a reader sees what there is not");
}

/* No ring of events: nothing is told, and a reader is told so. */
static void no_events(void)
{
    struct ledger_cursor cursor = {0};
    struct ledger_told told;

    ledger_tell(member, LEDGER_JOINED, -1, 0, 0, 0);
    ledger_tell_storm(member, LEDGER_REFUSED, device, 1, 1, 0);
    ledger_tell_left(member);
    check(ledger_read_events(dir, "damaged", &cursor, true, &told, 1) == -EOPNOTSUPP, "there are events");
}

/* The same of version 1.1, and 1.2 between them. */
static void middle_version(uint16_t minor)
{
    struct ledger_header header;

    begin(false);
    memcpy(&header, intact, sizeof(header));
    header.minor = minor;
    header.file_size = ((minor == 1 ? header.compute_offset : header.event_offset) + 4095) & ~UINT64_C(4095);
    header.event_offset = header.event_stride = header.event_count = 0;
    if (minor == 1)
        header.compute_offset = header.compute_stride = header.busy_offset = header.busy_stride = 0;
    check(ftruncate(file, 0) == 0 && ftruncate(file, (off_t)header.file_size) == 0, "%s", strerror(errno));
    write_header(&header);
    device = (unsigned)test_attach(member, dir, "damaged", LIMIT);
    test_hold(member, (int)device, HELD);
    check(!refused("middle", 0), "%s", other->error);
    no_events();
    if (minor == 1)
        no_compute();
    else
        check(ledger_account(member, device) && ledger_busy_word(member, device), "there is no account");
    end();
    printf("version 1.%u: read and joined\n", minor);
}

/* A file of version 1.0, as the library before this one made it. */
static void former_version(void)
{
    static struct ledger_view view;
    struct ledger_member list[4];
    struct ledger_header header;

    begin(false);
    memcpy(&header, intact, sizeof(header));
    header.minor = 0;
    header.slot_stride = 32;
    header.hold_offset = header.slot_offset + header.slots * header.slot_stride;
    header.extra_offset = header.extra_stride = header.compute_offset = header.compute_stride = 0;
    header.busy_offset = header.busy_stride = header.event_offset = header.event_stride = header.event_count = 0;
    header.file_size = (header.hold_offset + (uint64_t)header.devices * header.slots * header.hold_stride + 4095) & ~UINT64_C(4095);
    check(ftruncate(file, 0) == 0 && ftruncate(file, (off_t)header.file_size) == 0, "%s", strerror(errno));
    write_header(&header);
    device = (unsigned)test_attach(member, dir, "damaged", LIMIT);
    test_hold(member, (int)device, HELD);
    ledger_spill(member, device, 5);
    check(!refused("former", 0), "%s", other->error);
    check(ledger_read(dir, "damaged", &view) == 0 && view.members == 1 && view.device[0].current == HELD, "a reader sees %llu",
          (unsigned long long)view.device[0].current);
    check(ledger_members_list(member, device, list, 4) == 1 && list[0].committed == HELD && list[0].spilled == 0,
          "its members cannot be listed");
    check(ledger_read_members(dir, "damaged", test_uuid, list, 4) == 1 && list[0].committed == HELD && list[0].spilled == 0,
          "its members cannot be listed from outside");
    no_compute();
    no_events();
    end();
    printf("version 1.0: read and joined\n");
}

/* What a library of version 1.0 does not write when it takes a slot, nobody believes. */
static void former_library(void)
{
    struct ledger_member list[4];
    uint64_t since = 4711;

    begin(true);
    ledger_spill(member, device, 77);
    check(ledger_members_list(member, device, list, 4) == 1 && list[0].spilled == 77, "nothing spilled");
    check(pwrite(file, &since, 8,
                 LEDGER_HEADER_SIZE + LEDGER_DEVICES * sizeof(struct ledger_device) + offsetof(struct ledger_slot, since)) == 8,
          "%s", strerror(errno));
    check(ledger_members_list(member, device, list, 4) == 1 && list[0].spilled == 0 && list[0].pid_namespace == 0,
          "the slot's last owner is believed");
    check(ledger_read_members(dir, "damaged", test_uuid, list, 4) == 1 && list[0].spilled == 0 && list[0].pid_namespace == 0,
          "the slot's last owner is believed from outside");
    end();
    printf("a member of version 1.0: listed as far as known\n");
}

/* A file whose space is missing is given it: else an access would be SIGBUS when memory is short. */
static void holes(void)
{
    struct stat status;
    blkcnt_t blocks;

    begin(false);
    check(fstat(file, &status) == 0, "%s", strerror(errno));
    blocks = status.st_blocks;
    if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 131072) == 0) {
        check(!refused("hole", 0), "%s", other->error);
        check(fstat(file, &status) == 0 && status.st_blocks >= blocks, "%lld blocks of %lld", (long long)status.st_blocks,
              (long long)blocks);
        printf("holes: filled\n");
    } else {
        printf("holes: not tried, this file system makes none\n");
    }
    end();
}

static void expect(int code, const char *word, const char *what)
{
    int result = ledger_attach(other, dir, "damaged");

    check(result == code && strstr(other->error, word), "%s: %d, \"%s\"", what, result, other->error);
    printf("%s: %s\n", what, other->error);
}

static void other_things(void)
{
    char path[128];
    int link;

    test_remove(dir, "damaged");
    check(symlinkat("/tmp", dir, "damaged") == 0, "%s", strerror(errno));
    expect(-ELOOP, "symbolic link", "folder is a link");
    test_remove(dir, "damaged");
    link = openat(dir, "damaged", O_CREAT | O_WRONLY, 0600);
    close(link);
    expect(-ENOTDIR, "not a directory", "folder is a file");
    test_remove(dir, "damaged");

    check(mkdirat(dir, "damaged", 0700) == 0, "%s", strerror(errno));
    check(symlinkat("/etc/passwd", dir, "damaged/ledger") == 0, "%s", strerror(errno));
    expect(-ELOOP, "symbolic link", "ledger is a link");
    test_remove(dir, "damaged");
    check(mkdirat(dir, "damaged", 0700) == 0 && mkdirat(dir, "damaged/ledger", 0700) == 0, "%s", strerror(errno));
    expect(-EISDIR, "directory", "ledger is a directory");
    test_remove(dir, "damaged");
    snprintf(path, sizeof(path), "%s/damaged/ledger", test_state);
    check(mkdirat(dir, "damaged", 0700) == 0 && mkfifo(path, 0600) == 0, "%s", strerror(errno));
    expect(-EPROTO, "not a regular file", "ledger is a pipe");
    test_remove(dir, "damaged");
    check(mkdirat(dir, "damaged", 0700) == 0, "%s", strerror(errno));
    if (geteuid() == 0) {
        check(fchownat(dir, "damaged", 4711, 4711, 0) == 0, "%s", strerror(errno));
        expect(-EPERM, "belongs to uid 4711", "folder is somebody else's");
    }
    test_remove(dir, "damaged");
}

int main(void)
{
    dir = test_begin(300);
    test_one_processor(); /* each attach works in a task of its own */
    member = test_handle();
    other = test_handle();
    every_byte(true);
    every_byte(false);
    truncated();
    scribbled();
    versions();
    former_version();
    middle_version(1);
    middle_version(2);
    former_library();
    shares();
    holes();
    other_things();
    return 0;
}
