/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a ledger from outside: what members hold counts, what the dead left does not, and no file can harm the reader. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "scratch.h"
#include "softslice/ledger.h"

static const uint8_t uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint8_t other[16] = {16, 2, 3};
static int state_dir;

static void begin(void)
{
    scratch_make();
    cr_assert((state_dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
}

static void end(void)
{
    close(state_dir);
    scratch_remove();
}

TestSuite(ledger_read, .init = begin, .fini = end);

/* A device of a tenant, as somebody sees it who is no member. */
static int read_device(const char *name, const uint8_t wanted[16], struct ledger_device_state *state)
{
    struct ledger_view view;
    int result = ledger_read(state_dir, name, &view);

    for (unsigned i = 0; result == 0 && i < view.devices; i++) {
        if (memcmp(view.device[i].uuid, wanted, 16) == 0) {
            *state = view.device[i];
            return 0;
        }
    }
    return result ? result : -ENOENT;
}

/* A member in a process of its own that holds `bytes` and waits to be killed. */
static pid_t member(uint64_t bytes)
{
    int ready[2];
    char done;

    cr_assert(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        static struct ledger ledger;
        int device;

        if (ledger_attach(&ledger, state_dir, "a") != 0 || (device = ledger_add_device(&ledger, uuid, 1000000)) < 0 ||
            ledger_reserve(&ledger, (unsigned)device, bytes, UINT64_MAX) != 0)
            _exit(1);
        ledger_settle(&ledger, (unsigned)device, bytes, bytes);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    cr_assert(read(ready[0], &done, 1) == 1, "the member did not come up");
    close(ready[0]);
    return pid;
}

static void end_member(pid_t pid)
{
    cr_assert(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

Test(ledger_read, counts_the_living_only)
{
    struct ledger_device_state state;
    pid_t first = member(300), second = member(50);

    cr_assert(read_device("a", uuid, &state) == 0);
    cr_assert_eq(state.current, 350);
    cr_assert_eq(state.limit, 1000000);
    cr_assert_geq(state.peak, 350);
    cr_assert_eq(read_device("a", other, &state), -ENOENT);
    cr_assert_eq(read_device("b", uuid, &state), -ENOENT);
    end_member(first);
    cr_assert(read_device("a", uuid, &state) == 0);
    cr_assert_eq(state.current, 50);
    end_member(second);
    cr_assert(read_device("a", uuid, &state) == 0);
    cr_assert_eq(state.current, 0);
}

/* Every byte that a reader believes is changed in turn, and the file is cut at many places: an answer or an error, never a crash or hang. */
Test(ledger_read, survives_damage, .timeout = 60)
{
    static char original[1 << 16];
    struct ledger_device_state state;
    pid_t pid = member(300);
    int fd = open(scratch_path("a/ledger"), O_RDWR | O_CLOEXEC);

    cr_assert(fd >= 0);
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t held = pread(fd, original, sizeof(original), 0);
    cr_assert(held > 4096);
    for (off_t at = 0; at < 128; at++) {
        char damaged = (char)~original[at];
        cr_assert(pwrite(fd, &damaged, 1, at) == 1);
        cr_assert_eq(read_device("a", uuid, &state), -EPROTO, "byte %d", (int)at);
        cr_assert(pwrite(fd, &original[at], 1, at) == 1);
    }
    for (off_t at = 128; at < 4096 + 1024; at++) {
        char damaged = (char)~original[at];
        cr_assert(pwrite(fd, &damaged, 1, at) == 1);
        read_device("a", uuid, &state);
        cr_assert(pwrite(fd, &original[at], 1, at) == 1);
    }
    cr_assert(read_device("a", uuid, &state) == 0);
    end_member(pid);
    for (off_t length = size - 1; length > 0; length = length * 2 / 3) {
        cr_assert(ftruncate(fd, length) == 0);
        cr_assert_eq(read_device("a", uuid, &state), -EPROTO, "cut at %d", (int)length);
    }
    close(fd);
}

/* What is not a ledger at all: a FIFO must not block, a link is not followed. */
Test(ledger_read, opens_nothing_else, .timeout = 10)
{
    struct ledger_device_state state;

    cr_assert(mkdir(scratch_path("fifo"), 0700) == 0 && mkfifo(scratch_path("fifo/ledger"), 0600) == 0);
    cr_assert_lt(read_device("fifo", uuid, &state), 0);
    cr_assert(mkdir(scratch_path("link"), 0700) == 0 && symlink("/etc/passwd", scratch_path("link/ledger")) == 0);
    cr_assert_lt(read_device("link", uuid, &state), 0);
    cr_assert(symlink("link", scratch_path("tenant")) == 0);
    cr_assert_lt(read_device("tenant", uuid, &state), 0);
    cr_assert(mkdir(scratch_path("folder"), 0700) == 0 && mkdir(scratch_path("folder/ledger"), 0700) == 0);
    cr_assert_lt(read_device("folder", uuid, &state), 0);
}
