/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's rules as one process sees them: limits and who sets them, charges, devices, events, the layout's arithmetic, and looking
 * in from outside. What takes several processes is in tests/ledger/. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ledger_layout.h"
#include "scratch.h"
#include "softslice/ledger.h"

#define LIMIT UINT64_C(1000000)

static const uint8_t uuid[16] = {1, 2, 3}, second_uuid[16] = {0, 0, 0, 0, 0, 0, 0, 0, 9};
static struct ledger a, b;
static struct ledger_device_state state;
static int dir;

static void setup(void)
{
    char path[PATH_MAX];

    scratch_make();
    dir = ledger_state_dir(&a, scratch, path, sizeof(path));
    cr_assert(dir >= 0, "%s", a.error);
    cr_assert_str_eq(path, scratch);
}

static void teardown(void)
{
    ledger_detach(&a);
    ledger_detach(&b);
    close(dir);
    scratch_remove();
}

TestSuite(ledger, .init = setup, .fini = teardown, .timeout = 60);

static unsigned join(struct ledger *ledger, uint64_t limit)
{
    int device;

    cr_assert_eq(ledger_attach(ledger, dir, "tenant"), 0, "%s", ledger->error);
    device = ledger_add_device(ledger, uuid, limit);
    cr_assert(device >= 0, "%s", ledger->error);
    return (unsigned)device;
}

static void hold(struct ledger *ledger, unsigned device, uint64_t bytes)
{
    cr_assert_eq(ledger_reserve(ledger, device, bytes, LEDGER_NO_LIMIT), 0);
    ledger_settle(ledger, device, bytes, bytes);
}

/* The number may be another thread's file by now: closefrom(), then open(). */
Test(ledger, closes_its_own_directory_alone)
{
    char path[PATH_MAX];
    int fd = ledger_state_dir(&a, scratch, path, sizeof(path)), other = open("/dev/null", O_RDONLY | O_CLOEXEC);

    cr_assert(fd >= 0 && other >= 0 && dup2(other, fd) == fd);
    ledger_state_dir_close(fd, path);
    cr_assert(fcntl(fd, F_GETFD) >= 0, "closed a file that was not its own");
    close(fd);
    close(other);
    fd = ledger_state_dir(&a, scratch, path, sizeof(path));
    ledger_state_dir_close(fd, path);
    cr_assert(fcntl(fd, F_GETFD) < 0, "left its directory open");
}

Test(ledger, grants_to_the_byte_and_not_beyond)
{
    unsigned device = join(&a, LIMIT);

    hold(&a, device, LIMIT - 1);
    cr_assert_eq(ledger_reserve(&a, device, 2, LEDGER_NO_LIMIT), -ENOMEM);
    cr_assert_eq(ledger_reserve(&a, device, 0, LEDGER_NO_LIMIT), 0);
    hold(&a, device, 1);
    cr_assert_eq(ledger_reserve(&a, device, 1, LEDGER_NO_LIMIT), -ENOMEM);
    ledger_refund(&a, device, LIMIT);
    cr_assert_eq(ledger_current(&a, device), 0);
    hold(&a, device, LIMIT);
}

Test(ledger, huge_sizes_never_wrap)
{
    unsigned device = join(&a, LEDGER_NO_LIMIT);
    const uint64_t huge[] = {UINT64_MAX, UINT64_MAX - 1, UINT64_C(1) << 63, LEDGER_BYTES_CAP + 1};

    hold(&a, device, 10);
    for (unsigned i = 0; i < sizeof(huge) / sizeof(*huge); i++) {
        cr_assert_eq(ledger_reserve(&a, device, huge[i], LEDGER_NO_LIMIT), -ENOMEM);
        cr_assert_eq(ledger_reserve(&a, device, huge[i], huge[i] - 1), -ENOMEM);
    }
    cr_assert_eq(ledger_current(&a, device), 10);
    for (unsigned i = 0; i < 100000; i++)
        ledger_settle(&a, device, 0, UINT64_MAX);
    cr_assert_geq(ledger_current(&a, device), UINT64_C(1) << 62);
    cr_assert_eq(ledger_reserve(&a, device, 1, LIMIT), -ENOMEM);
}

Test(ledger, cap_binds_beside_the_limit)
{
    unsigned device = join(&a, LIMIT);

    cr_assert_eq(ledger_reserve(&a, device, 501, 500), -ENOMEM);
    cr_assert_eq(ledger_reserve(&a, device, 500, 500), 0);
    ledger_settle(&a, device, 500, 500);
    cr_assert_eq(ledger_reserve(&a, device, 1, 500), -ENOMEM);
    hold(&a, device, 1);
}

Test(ledger, settling_keeps_the_actual_size)
{
    unsigned device = join(&a, LIMIT);

    cr_assert_eq(ledger_reserve(&a, device, 1000, LEDGER_NO_LIMIT), 0);
    cr_assert_eq(ledger_device_state(&a, device, &state), 0);
    cr_assert_eq(state.tentative, 1000);
    cr_assert_eq(state.current, 1000);
    cr_assert_eq(ledger_own(&a, device), 0);
    ledger_settle(&a, device, 1000, LIMIT + 5);
    cr_assert_eq(ledger_own(&a, device), LIMIT + 5);
    cr_assert_eq(ledger_device_state(&a, device, &state), 0);
    cr_assert_eq(state.tentative, 0);
    cr_assert_eq(state.peak, LIMIT + 5);
    cr_assert_eq(ledger_reserve(&a, device, 1, LEDGER_NO_LIMIT), -ENOMEM);
    ledger_refund(&a, device, LIMIT + 5);
    cr_assert_eq(ledger_reserve(&a, device, 7, LEDGER_NO_LIMIT), 0);
    ledger_settle(&a, device, 7, 0);
    cr_assert_eq(ledger_current(&a, device), 0);
}

Test(ledger, refunding_too_much_stops_at_nothing_and_is_counted)
{
    unsigned device = join(&a, LIMIT), other = join(&b, LIMIT);

    hold(&a, device, 10);
    hold(&b, other, 30);
    ledger_refund(&a, device, 11);
    cr_assert_eq(ledger_current(&a, device), 30);
    cr_assert_eq(ledger_device_state(&a, device, &state), 0);
    cr_assert_eq(state.events[LEDGER_EVENT_UNDERFLOW], 1);
    cr_assert_eq(state.peak, 40);
}

Test(ledger, first_live_member_sets_the_limit)
{
    unsigned device = join(&a, LIMIT);

    cr_assert(a.first);
    cr_assert_eq(join(&b, 5), device);
    cr_assert_not(b.first);
    cr_assert_eq(ledger_limit(&b, device), LIMIT);
    ledger_detach(&a);
    cr_assert_eq(ledger_limit(&b, device), LIMIT);
    cr_assert_eq(join(&a, 6), device);
    cr_assert_eq(ledger_limit(&a, device), LIMIT);
    ledger_detach(&a);
    ledger_detach(&b);
    cr_assert_eq(join(&a, 7), device);
    cr_assert_eq(ledger_limit(&a, device), 7, "a limit outlived the members");
}

Test(ledger, first_member_wins_over_a_faster_joiner_but_not_over_set)
{
    unsigned device;

    cr_assert_eq(ledger_attach(&a, dir, "tenant"), 0);
    device = join(&b, 5);
    cr_assert_eq(ledger_limit(&b, device), 5);
    cr_assert_eq(ledger_add_device(&a, uuid, LIMIT), (int)device);
    cr_assert_eq(ledger_limit(&b, device), LIMIT);
    ledger_set_limit(&b, device, 77);
    cr_assert_eq(ledger_add_device(&a, uuid, LIMIT), (int)device);
    cr_assert_eq(ledger_limit(&a, device), 77);
}

Test(ledger, who_says_nothing_sets_no_limit)
{
    unsigned device = join(&a, LEDGER_NO_LIMIT);

    cr_assert_eq(ledger_limit(&a, device), LEDGER_NO_LIMIT);
    join(&b, LIMIT);
    cr_assert_eq(ledger_limit(&a, device), LIMIT);
    ledger_set_limit(&a, device, LEDGER_NO_LIMIT);
    cr_assert_eq(ledger_limit(&b, device), LEDGER_NO_LIMIT);
    ledger_set_limit(&a, device, 0);
    cr_assert_eq(ledger_reserve(&b, device, 1, LEDGER_NO_LIMIT), -ENOMEM);
}

Test(ledger, lowered_limit_refuses_until_enough_is_freed)
{
    unsigned device = join(&a, LIMIT);

    hold(&a, device, 900);
    ledger_set_limit(&a, device, 500);
    cr_assert_eq(ledger_reserve(&a, device, 1, LEDGER_NO_LIMIT), -ENOMEM);
    ledger_refund(&a, device, 401);
    hold(&a, device, 1);
}

Test(ledger, devices_are_found_by_uuid_and_kept_apart)
{
    static const uint8_t none[16];
    unsigned device = join(&a, LIMIT);
    int second = ledger_add_device(&a, second_uuid, 50);

    cr_assert(second >= 0 && second != (int)device);
    cr_assert_eq(ledger_add_device(&a, uuid, LIMIT), (int)device);
    cr_assert_eq(ledger_add_device(&a, none, 1), -EINVAL);
    hold(&a, (unsigned)second, 50);
    cr_assert_eq(ledger_reserve(&a, (unsigned)second, 1, LEDGER_NO_LIMIT), -ENOMEM);
    hold(&a, device, 51);
    cr_assert_eq(ledger_device_state(&a, (unsigned)second, &state), 0);
    cr_assert_arr_eq(state.uuid, second_uuid, 16);
    cr_assert_eq(ledger_device_state(&a, LEDGER_DEVICES, &state), -EINVAL);
    cr_assert_eq(ledger_reserve(&a, LEDGER_DEVICES, 1, LEDGER_NO_LIMIT), -EINVAL);
}

Test(ledger, full_device_table_is_emptied_by_the_next_life)
{
    uint8_t many[16] = {0};

    cr_assert_eq(ledger_attach(&a, dir, "tenant"), 0);
    for (unsigned i = 0; i < LEDGER_DEVICES; i++) {
        many[15] = (uint8_t)(i + 1);
        cr_assert_eq(ledger_add_device(&a, many, LIMIT), (int)i);
    }
    many[15] = 0xff;
    cr_assert_eq(ledger_add_device(&a, many, LIMIT), -ENOSPC);
    cr_assert_neq(strstr(a.error, "32"), NULL);
    ledger_detach(&a);
    cr_assert_eq(ledger_attach(&a, dir, "tenant"), 0);
    cr_assert_eq(ledger_add_device(&a, many, LIMIT), 0);
}

Test(ledger, what_a_tenant_learned_outlives_its_members)
{
    unsigned device = join(&a, LIMIT);

    hold(&a, device, 123);
    ledger_set_context_bytes(&a, device, 456);
    ledger_count(&a, device, LEDGER_EVENT_OOM);
    ledger_detach(&a);
    device = join(&a, LIMIT);
    cr_assert_eq(ledger_device_state(&a, device, &state), 0);
    cr_assert_eq(state.peak, 123);
    cr_assert_eq(state.context_bytes, 456);
    cr_assert_eq(state.events[LEDGER_EVENT_OOM], 1);
    cr_assert_eq(state.current, 0);
    ledger_set_context_bytes(&a, device, UINT64_MAX);
    cr_assert_eq(ledger_context_bytes(&a, device), 0, "an absurd size is believed");
}

Test(ledger, who_is_not_attached_is_refused)
{
    static struct ledger none;

    cr_assert_eq(ledger_reserve(&none, 0, 1, LEDGER_NO_LIMIT), -EINVAL);
    ledger_settle(&none, 0, 1, 1);
    ledger_refund(&none, 0, 1);
    ledger_detach(&none);
    cr_assert_eq(ledger_current(&none, 0), 0);
    cr_assert_eq(ledger_members(&none), 0);
    cr_assert_eq(ledger_add_device(&none, uuid, 1), -EINVAL);
}

Test(ledger, own_tenants_share_nothing)
{
    int first, second;

    cr_assert_eq(ledger_attach(&a, dir, NULL), 0, "%s", a.error);
    cr_assert_eq(ledger_attach(&b, dir, NULL), 0, "%s", b.error);
    first = ledger_add_device(&a, uuid, LIMIT);
    second = ledger_add_device(&b, uuid, LIMIT);
    hold(&a, (unsigned)first, LIMIT);
    hold(&b, (unsigned)second, LIMIT);
}

Test(ledger, names_that_are_no_folder_of_their_own_are_refused)
{
    const char *names[] = {"", ".", "..", ".hidden", "a/b", "proc-0123456789abcdef"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
        cr_assert_eq(ledger_attach(&a, dir, names[i]), -EINVAL, "%s", names[i]);
}

Test(ledger, limits_check_themselves)
{
    const uint64_t values[] = {
        0, 1, 255, 4096, LIMIT, UINT64_C(80) << 30, LEDGER_BYTES_CAP - 3, LEDGER_BYTES_CAP - 2, LEDGER_NO_LIMIT};

    for (unsigned i = 0; i < sizeof(values) / sizeof(*values); i++) {
        for (unsigned replaced = 0; replaced < 2; replaced++) {
            uint64_t word = ledger_limit_encode(values[i], replaced ? LEDGER_LIMIT_REPLACED : 0);

            cr_assert_neq(word, 0);
            cr_assert_eq(ledger_limit_decode(word), values[i]);
            for (unsigned byte = 0; byte < 8; byte++) {
                for (uint64_t change = 1; change < 256; change++)
                    cr_assert_eq(ledger_limit_decode(word ^ change << 8 * byte), 0, "%llx, byte %u ^ %llx",
                                 (unsigned long long)word, byte, (unsigned long long)change);
            }
        }
    }
    cr_assert_eq(ledger_limit_decode(ledger_limit_encode(LEDGER_NO_LIMIT - 1, 0)), LEDGER_BYTES_CAP - 2, "a limit became none");
    cr_assert_eq(ledger_limit_decode(0), LEDGER_NO_LIMIT);
}

Test(ledger, seen_from_outside)
{
    unsigned device = join(&a, LIMIT);
    static struct ledger_view view;
    pid_t pid;

    join(&b, LIMIT);
    hold(&a, device, 100);
    hold(&b, device, 20);
    cr_assert_eq(ledger_reserve(&b, device, 3, LEDGER_NO_LIMIT), 0);
    pid = fork();
    if (pid == 0) {
        static struct ledger dead;

        hold(&dead, join(&dead, LIMIT), 4000);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
    cr_assert_eq(ledger_read(dir, "tenant", &view), 0);
    cr_assert_eq(view.members, 2);
    cr_assert_eq(view.devices, 1);
    cr_assert_arr_eq(view.device[0].uuid, uuid, 16);
    cr_assert_eq(view.device[0].limit, LIMIT);
    cr_assert_eq(view.device[0].current, 123);
    cr_assert_eq(view.device[0].tentative, 3);
    cr_assert_eq(ledger_current(&a, device), 123);
    cr_assert_eq(ledger_read(dir, "nobody", &view), -ENOENT);
}

Test(ledger, nothing_but_a_ledger_is_read)
{
    static struct ledger_view view;
    char byte = 1;
    int fd;

    join(&a, LIMIT);
    ledger_detach(&a);
    fd = openat(dir, "tenant/ledger", O_RDWR);
    cr_assert(fd >= 0 && pwrite(fd, &byte, 1, 40) == 1);
    cr_assert_eq(ledger_read(dir, "tenant", &view), -EPROTO);
    cr_assert_eq(ftruncate(fd, 100), 0);
    cr_assert_eq(ledger_read(dir, "tenant", &view), -EPROTO);
    close(fd);
    cr_assert_eq(unlinkat(dir, "tenant/ledger", 0), 0);
    cr_assert_eq(symlinkat("/etc/passwd", dir, "tenant/ledger"), 0);
    cr_assert_eq(ledger_read(dir, "tenant", &view), -ELOOP);
    cr_assert_eq(symlinkat("tenant", dir, "link"), 0);
    cr_assert_lt(ledger_read(dir, "link", &view), 0);
}
