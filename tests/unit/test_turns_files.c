/* SPDX-License-Identifier: Apache-2.0 */
/* The files of turns: who makes, finds, refuses and removes them. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "scratch.h"
#include "turns_internal.h"
#include "turns_sim.h"

static void setup(void)
{
    scratch_make();
    sim_begin(scratch);
}

static void teardown(void)
{
    sim_end();
    scratch_remove();
}

TestSuite(turns_files, .init = setup, .fini = teardown, .timeout = 60);

static int join(unsigned index, const char *name)
{
    struct turns_settings settings = {0};

    return turns_join(&sim[index].turns, sim_dir, name, sim_uuid, 1, &settings, sim_now);
}

static unsigned peers(unsigned index)
{
    struct turns_counts counts;

    turns_counts(&sim[index].turns, 0, &counts);
    return counts.peers;
}

/* Time passes, tenant `index` looks around. */
static void look(unsigned index, uint64_t ns)
{
    for (uint64_t end = sim_now + ns; sim_now < end;) {
        sim_now += SIM_MS;
        turns_look(&sim[index].turns, sim_now);
    }
}

static const char *file_of(const char *name)
{
    static char text[64];

    snprintf(text, sizeof(text), "turns/%s.turns", name);
    return scratch_path(text);
}

Test(turns_files, names)
{
    static const char *const bad[] = {"", ".", "..", ".hidden", "a/b", "/x"};
    char longest[80];

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(join(0, bad[i]), -EINVAL, "'%s'", bad[i]);
        cr_expect(sim[0].turns.error[0] && !sim[0].turns.room);
    }
    memset(longest, 'a', sizeof(longest));
    longest[64] = '\0';
    cr_expect_eq(join(0, longest), -EINVAL);
    longest[63] = '\0';
    cr_expect_eq(join(0, longest), 0, "%s", sim[0].turns.error);
}

Test(turns_files, a_newcomer_is_seen_and_a_leaver_is_gone)
{
    struct stat status;

    cr_assert_eq(join(0, "a"), 0);
    cr_assert_eq(stat(file_of("a"), &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0600);
    cr_assert_eq(status.st_size, TURNS_FILE_SIZE);
    cr_assert(status.st_blocks * 512 >= TURNS_FILE_SIZE, "a file with holes");
    look(0, 20 * SIM_MS);
    cr_assert_eq(peers(0), 0);
    cr_assert_eq(join(1, "b"), 0);
    look(0, 20 * SIM_MS);
    cr_assert_eq(peers(0), 1);
    cr_assert_eq(peers(1), 1);
    turns_leave(&sim[1].turns, sim_now);
    look(0, 2 * SIM_S);
    cr_assert_eq(peers(0), 0);
    cr_assert_neq(access(file_of("b"), F_OK), 0, "not collected");
}

/* Who comes back finds its own file, and nothing of its last life in it. */
Test(turns_files, a_new_life_begins_clean)
{
    cr_assert_eq(join(1, "b"), 0);
    sim_now += SIM_MS;
    cr_assert(turns_ask(&sim[1].turns, 1, sim_now).mine);
    munmap(sim[1].turns.room->own, TURNS_FILE_SIZE); /* killed */
    sim[1].turns.room->own = NULL;
    munmap(sim[1].turns.room, sizeof(struct turns_room));
    memset(&sim[1].turns, 0, sizeof(sim[1].turns));
    cr_assert_eq(join(1, "b"), 0);
    cr_assert_eq(turns_load(&sim[1].turns.room->mine[0].entry->hold, TURNS_WORD_HOLD), 0);
    cr_assert_eq(turns_load(&sim[1].turns.room->mine[0].entry->want, TURNS_WORD_WANT), 0);
}

Test(turns_files, a_link_is_not_followed)
{
    cr_assert_eq(mkdir(scratch_path("turns"), 0700), 0);
    scratch_write("elsewhere", "x", 1);
    cr_assert_eq(symlink("../elsewhere", file_of("a")), 0);
    cr_assert_eq(join(0, "a"), -ELOOP, "%s", sim[0].turns.error);
    cr_assert_eq(unlink(file_of("a")), 0);
    cr_assert_eq(join(0, "a"), 0);
    cr_assert_eq(symlink("a.turns", file_of("b")), 0);
    look(0, 2 * SIM_S);
    cr_assert_eq(peers(0), 0);
}

Test(turns_files, a_folder_that_is_a_link_is_refused)
{
    cr_assert_eq(mkdir(scratch_path("elsewhere"), 0700), 0);
    cr_assert_eq(symlink("elsewhere", scratch_path("turns")), 0);
    cr_assert_lt(join(0, "a"), 0);
}

Test(turns_files, damaged_files_are_nobodys)
{
    static char bytes[TURNS_FILE_SIZE];
    char name[64];

    cr_assert_eq(join(0, "a"), 0);
    scratch_write("turns/empty.turns", "", 0);
    scratch_write("turns/zeros.turns", bytes, sizeof(bytes));
    scratch_write("turns/short.turns", bytes, 100);
    cr_assert_eq(mkfifo(scratch_path("turns/fifo.turns"), 0600), 0);
    cr_assert_eq(mkdir(scratch_path("turns/folder.turns"), 0700), 0);
    look(0, 2 * SIM_S);
    cr_assert_eq(peers(0), 0);
    cr_assert_eq(access(scratch_path("turns/zeros.turns"), F_OK), 0, "removed what is not ours");
    cr_assert_eq(join(1, "zeros"), -EPROTO, "%s", sim[1].turns.error);
    cr_assert_eq(join(1, "short"), -EPROTO);
    cr_assert_eq(join(1, "fifo"), -EPROTO);
    cr_assert_lt(join(1, "folder"), 0);
    /* Each byte of the header counts. */
    for (unsigned at = 0; at < offsetof(struct turns_header, reserved_mutable); at += 3) {
        FILE *from = fopen(file_of("a"), "r");

        cr_assert(from && fread(bytes, 1, sizeof(bytes), from) == sizeof(bytes) && fclose(from) == 0);
        bytes[at] ^= 0x10;
        snprintf(name, sizeof(name), "turns/x%u.turns", at);
        scratch_write(name, bytes, sizeof(bytes));
    }
    look(0, 2 * SIM_S);
    cr_assert_eq(peers(0), 0);
}

/* Cut short while it is mapped: a load would be SIGBUS. */
Test(turns_files, a_file_cut_short_kills_nobody)
{
    char line[256];

    cr_assert_eq(join(0, "a"), 0);
    cr_assert_eq(join(1, "b"), 0);
    look(0, 20 * SIM_MS);
    cr_assert_eq(peers(0), 1);
    if (sim[0].turns.room->direct)
        cr_skip_test("the kernel does not read for us here");
    cr_assert_eq(truncate(file_of("b"), 0), 0);
    cr_assert(turns_ask(&sim[0].turns, 1, sim_now).mine);
    cr_assert(!turns_demand(&sim[0].turns, 1, sim_now).must_go);
    turns_release(&sim[0].turns, 1, sim_now, 0);
    cr_assert(turns_report(&sim[0].turns, line, sizeof(line), NULL));
    cr_assert(strstr(line, "tenant b is damaged"), "%s", line);
    cr_assert(!turns_report(&sim[0].turns, line, sizeof(line), NULL));
    look(0, 2 * SIM_S);
    cr_assert_eq(peers(0), 0);
    munmap(sim[1].turns.room->own, TURNS_FILE_SIZE);
    memset(&sim[1].turns, 0, sizeof(sim[1].turns));
}

/* Where the kernel does not read for us (a seccomp filter), the file of a container beside us, which root made and everybody may write, is not read at all. */
Test(turns_files, a_file_that_others_write_kills_nobody)
{
    cr_assert_eq(turns_prepare(sim_dir, "pod", 0666), 0);
    cr_assert_eq(join(0, "a"), 0);
    cr_assert_eq(join(1, "pod"), 0);
    look(0, 20 * SIM_MS);
    cr_assert_eq(peers(0), 1);
    sim[0].turns.room->direct = true;
    cr_assert_eq(truncate(file_of("pod"), 0), 0);
    cr_assert(turns_ask(&sim[0].turns, 1, sim_now).mine);
    turns_release(&sim[0].turns, 1, sim_now, 0);
    munmap(sim[1].turns.room->own, TURNS_FILE_SIZE);
    memset(&sim[1].turns, 0, sizeof(sim[1].turns));
}

/* A container: its own file is there, the folder is not for writing. */
Test(turns_files, a_read_only_folder)
{
    pid_t child;
    int status;

    if (geteuid() != 0)
        cr_skip_test("needs root to become somebody else");
    cr_assert_eq(turns_prepare(sim_dir, "pod", 0666), 0);
    cr_assert_eq(turns_prepare(sim_dir, "pod", 0666), 0);
    cr_assert_eq(join(0, "a"), 0);
    look(0, 2 * SIM_S);
    cr_assert_eq(access(file_of("pod"), F_OK), 0, "collected before it was used");
    cr_assert(chmod(scratch, 0755) == 0 && chmod(scratch_path("turns"), 0755) == 0 && chmod(file_of("a"), 0644) == 0);
    child = fork();
    if (child == 0) {
        struct turns turns = {0};
        struct turns_settings settings = {0};
        struct turns_counts counts;

        if (setgid(1234) || setuid(1234))
            _exit(10);
        if (turns_join(&turns, sim_dir, "other", sim_uuid, 1, &settings, sim_now) != -EACCES)
            _exit(11);
        if (turns_join(&turns, sim_dir, "pod", sim_uuid, 1, &settings, sim_now) != 0)
            _exit(12);
        turns_counts(&turns, 0, &counts);
        if (counts.peers != 1)
            _exit(13);
        if (turns_ask(&turns, 1, sim_now + SIM_MS).mine != true)
            _exit(14);
        _exit(0);
    }
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: 0x%x", status);
}

/* The handle is in memory that a child finds wiped; and the mappings are not the child's. */
Test(turns_files, a_forked_child_is_off)
{
    struct turns *turns = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct turns_settings settings = {0};
    struct turns_counts counts;
    int ready[2], status;
    pid_t child;
    char byte;

    cr_assert(madvise(turns, 4096, MADV_WIPEONFORK) == 0 && pipe(ready) == 0);
    cr_assert_eq(turns_join(turns, sim_dir, "a", sim_uuid, 1, &settings, sim_now), 0);
    child = fork();
    if (child == 0) {
        close(ready[1]);
        if (!turns_ask(turns, 1, sim_now).mine || turns->room)
            _exit(1);
        _exit(read(ready[0], &byte, 1) == 0 ? 0 : 2);
    }
    /* The child still lives when its parent leaves: the lock is gone all the same. */
    cr_assert_eq(join(1, "b"), 0);
    sim_now += 10 * SIM_MS;
    turns_look(&sim[1].turns, sim_now);
    turns_counts(&sim[1].turns, 0, &counts);
    cr_assert_eq(counts.peers, 1);
    turns_leave(turns, sim_now);
    look(1, 2 * SIM_S);
    cr_assert_neq(access(file_of("a"), F_OK), 0, "a child keeps the lock");
    close(ready[1]);
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: 0x%x", status);
}

Test(turns_files, other_devices_are_no_peers)
{
    struct turns_settings settings = {0};

    cr_assert_eq(join(0, "a"), 0);
    cr_assert_eq(turns_join(&sim[1].turns, sim_dir, "b", sim_uuid + 1, 1, &settings, sim_now), 0);
    look(0, 20 * SIM_MS);
    cr_assert_eq(peers(0), 0);
    cr_assert(turns_ask(&sim[0].turns, 1, sim_now).mine && turns_ask(&sim[1].turns, 1, sim_now).mine);
}

/* Every change of one byte of a word shows, or hardly any. */
Test(turns_files, words_check_themselves)
{
    unsigned passed = 0, tried = 0;

    for (uint64_t value = 1; value < UINT64_C(1) << 50; value = value * 5 + 3) {
        uint64_t word = turns_word(TURNS_WORD_HOLD, value);

        cr_assert(turns_word_good(TURNS_WORD_HOLD, word));
        cr_assert_eq(word & TURNS_VALUE_MASK, value & TURNS_VALUE_MASK);
        for (unsigned byte = 0; byte < 8; byte++) {
            for (uint64_t change = 1; change < 256; change++, tried++)
                passed += turns_word_good(TURNS_WORD_HOLD, word ^ change << 8 * byte) != 0;
        }
        for (unsigned kind = TURNS_WORD_WANT; kind <= TURNS_WORD_SLOT; kind++, tried++)
            passed += turns_word_good(kind, word) != 0;
    }
    cr_assert(passed * 500 < tried, "%u of %u", passed, tried);
}
