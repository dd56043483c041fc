/* SPDX-License-Identifier: Apache-2.0 */
/* Changing a running tenant from outside: what members then see, and when nothing is changed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "scratch.h"

#define LIMIT UINT64_C(1000000)

static const uint8_t uuid[16] = {1, 2, 3}, second_uuid[16] = {9}, absent[16] = {7};
static struct ledger a;
static unsigned device, second;
static struct ledger_view before;
static int dir;

static void setup(void)
{
    scratch_make();
    cr_assert((dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    cr_assert_eq(ledger_attach(&a, dir, "tenant"), 0, "%s", a.error);
    device = (unsigned)ledger_add_device(&a, uuid, LIMIT);
    second = (unsigned)ledger_add_device(&a, second_uuid, LIMIT);
    ledger_enter_compute(&a, device, 3000, 0);
    ledger_arm(&a, LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE);
}

static void teardown(void)
{
    ledger_detach(&a);
    close(dir);
    scratch_remove();
}

TestSuite(ledger_change, .init = setup, .fini = teardown, .timeout = 60);

static const struct ledger_change all = {.vram = true, .compute = true, .weighted = true, .limit = 77, .share = 2000, .weight = 5};

Test(ledger_change, is_seen_by_members)
{
    errno = 4711;
    cr_assert_eq(ledger_change(dir, "tenant", NULL, &all, &before), 2);
    cr_assert_eq(errno, 4711);
    cr_assert_eq(before.device[0].limit, LIMIT);
    cr_assert_eq(before.device[0].share, 3000);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(ledger_limit(&a, i), 77);
        cr_assert_eq(ledger_share(&a, i), 2000);
        cr_assert_eq(ledger_weight(&a, i), 5);
    }
    cr_assert_eq(ledger_reserve(&a, device, 78, LEDGER_NO_LIMIT), -ENOMEM);
    /* The first member's own does not come back. */
    ledger_add_device(&a, uuid, LIMIT);
    ledger_enter_compute(&a, device, 3000, 9);
    cr_assert(ledger_limit(&a, device) == 77 && ledger_share(&a, device) == 2000 && ledger_weight(&a, device) == 5);
}

Test(ledger_change, is_of_one_device_and_one_value)
{
    struct ledger_change one = {.compute = true, .share = 1};

    cr_assert_eq(ledger_change(dir, "tenant", second_uuid, &one, &before), 1);
    cr_assert_eq(ledger_share(&a, second), 1);
    cr_assert_eq(ledger_limit(&a, second), LIMIT);
    cr_assert_eq(ledger_weight(&a, second), 0);
    cr_assert_eq(ledger_share(&a, device), 3000);
}

static void expect_nothing(const char *name, const uint8_t *of, int code)
{
    cr_assert_eq(ledger_change(dir, name, of, &all, &before), code, "instead of %d", code);
    cr_assert(ledger_limit(&a, device) == LIMIT && ledger_share(&a, device) == 3000 && ledger_weight(&a, device) == 0);
}

Test(ledger_change, changes_nothing_where_it_cannot)
{
    struct ledger_slot_more *more = (struct ledger_slot_more *)(ledger_slot_at(&a, a.slot) + 1);

    expect_nothing("nobody", NULL, -ENOENT);
    expect_nothing("tenant", absent, -ENODEV);
    more->mark = ledger_mark(more->tag, LEDGER_ARMS_VRAM);
    expect_nothing("tenant", NULL, -EOPNOTSUPP);
    more->mark = ledger_mark(more->tag, LEDGER_ARMS_COMPUTE);
    expect_nothing("tenant", NULL, -EOPNOTSUPP);
    more->mark = 0; /* of an older library */
    expect_nothing("tenant", NULL, -EOPNOTSUPP);
}

/* What an armed member would allow does not count once it is dead, though it is not buried. */
Test(ledger_change, asks_the_living)
{
    struct ledger_slot_more *more = (struct ledger_slot_more *)(ledger_slot_at(&a, a.slot) + 1);
    pid_t pid = fork();

    if (pid == 0) {
        static struct ledger mine;

        cr_assert_eq(ledger_attach(&mine, dir, "tenant"), 0);
        ledger_arm(&mine, LEDGER_ARMS_COMPUTE);
        kill(getpid(), SIGKILL);
    }
    cr_assert(waitpid(pid, NULL, 0) == pid);
    more->mark = ledger_mark(more->tag, LEDGER_ARMS_VRAM);
    expect_nothing("tenant", NULL, -EOPNOTSUPP);
    ledger_detach(&a);
    cr_assert_eq(ledger_change(dir, "tenant", NULL, &all, &before), -ESRCH);
    cr_assert_eq(before.members, 0);
}

/* One that is joining may begin the tenant anew. */
Test(ledger_change, waits_for_who_joins)
{
    int fd = open(scratch_path("tenant/ledger"), O_RDWR | O_CLOEXEC);

    cr_assert(fd >= 0 && sys_lock(fd, LEDGER_LOCK_ATTACH, 1) == 0);
    expect_nothing("tenant", NULL, -EAGAIN);
    close(fd);
    cr_assert_eq(ledger_change(dir, "tenant", NULL, &all, &before), 2);
}

/* Whether a process has opened the tenant's file, besides as `inherited`. */
static bool has_open(pid_t pid, int inherited)
{
    char path[64], target[PATH_MAX];
    bool found = false;

    for (int fd = 3; fd < 64 && !found; fd++) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = '\0';
        found = fd != inherited && strstr(target, "/tenant/ledger");
    }
    return found;
}

/* The folder is replaced by another one while somebody is joining: what is changed is what has the name then. */
Test(ledger_change, finds_what_has_the_name)
{
    static struct ledger other;
    int fd;

    cr_assert_eq(ledger_attach(&other, dir, "other"), 0, "%s", other.error);
    cr_assert_eq(ledger_add_device(&other, uuid, LIMIT), 0);
    ledger_arm(&other, LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE);
    fd = open(scratch_path("tenant/ledger"), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && sys_lock(fd, LEDGER_LOCK_ATTACH, 1) == 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(ledger_change(dir, "tenant", NULL, &all, &before) == 1 ? 0 : 1);
    while (!has_open(pid, fd))
        usleep(1000);
    cr_assert(renameat(dir, "tenant", dir, "gone") == 0 && renameat(dir, "other", dir, "tenant") == 0);
    sys_unlock(fd, LEDGER_LOCK_ATTACH);
    close(fd);
    int status = 1;
    cr_assert(waitpid(pid, &status, 0) == pid);
    cr_assert_eq(status, 0);
    cr_assert_eq(ledger_limit(&other, 0), 77);
    cr_assert_eq(ledger_limit(&a, device), LIMIT);
    ledger_detach(&other);
}

Test(ledger_change, repairs_no_damage)
{
    int fd = open(scratch_path("tenant/ledger"), O_RDWR | O_CLOEXEC);
    char bad = 0x55;

    cr_assert(fd >= 0 && pwrite(fd, &bad, 1, 20) == 1);
    expect_nothing("tenant", NULL, -EPROTO);
    close(fd);
}
