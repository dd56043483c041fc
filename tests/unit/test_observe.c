/* SPDX-License-Identifier: Apache-2.0 */
/* What a look tells: texts that are safe to show, shares of time between two looks, labels, numbers of processes. */
#include <criterion/criterion.h>

#include "../../cli/observe_labels.c"
#include "../../cli/observe_pids.c"
#include "../../cli/observe_tell.c"

Test(observe, text)
{
    static const struct {
        const char *text, *shown, *ascii;
    } cases[] = {{"", "", ""},
                 {"team-a", "team-a", "team-a"},
                 {"a\033[31mb\n\x7f", "a\xef\xbf\xbd[31mb\xef\xbf\xbd\xef\xbf\xbd", "a?[31mb??"},
                 {"n\xc3\xa4me", "n\xc3\xa4me", "n?me"},
                 {"\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x82\xac\xf0\x9f\x98\x80", "??"},
                 {"\xc2\x9b", "\xef\xbf\xbd\xef\xbf\xbd", "??"},                      /* a control character beyond ASCII */
                 {"\xc3", "\xef\xbf\xbd", "?"},                                       /* cut off */
                 {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd", "??"},                      /* longer than need be */
                 {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "???"},     /* a surrogate */
                 {"\xe2\x80\xaex", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx", "???x"}}; /* writes backwards from here on */
    char clean[64], small[4];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cr_expect_str_eq(observe_text(clean, sizeof(clean), cases[i].text, false), cases[i].shown, "case %u", i);
        cr_expect_str_eq(observe_text(clean, sizeof(clean), cases[i].text, true), cases[i].ascii, "case %u", i);
    }
    cr_expect_str_eq(observe_text(small, sizeof(small), "abcdef", false), "abc");
    cr_expect_str_eq(observe_text(small, sizeof(small), "ab\xe2\x82\xac", false), "ab", "a character is cut in two");
}

/* Two looks a second apart at a tenant with compute on one GPU. */
struct looks {
    struct observe before, now;
    struct observe_tenant was, is;
};

static void make_looks(struct looks *looks)
{
    struct observe_tenant tenant = {.name = "t", .directory = "/run/x"};

    tenant.view.devices = 1;
    tenant.view.device[0] = (struct ledger_device_state){.uuid = {1}, .compute = true, .busy = 5000, .throttled = 100};
    looks->was = looks->is = tenant;
    looks->is.view.device[0].busy += 250000000;
    looks->is.view.device[0].throttled += 500000000;
    looks->before = (struct observe){.clock = 7, .tenants = 1, .tenant = &looks->was};
    looks->now = (struct observe){.clock = 1000000007, .tenants = 1, .tenant = &looks->is};
}

Test(observe, rate)
{
    struct looks looks;
    double busy = -1, throttled = -1;

    make_looks(&looks);
    cr_assert(observe_rate(&looks.before, &looks.now, &looks.is, 0, &busy, &throttled));
    cr_expect_eq(busy, 0.25);
    cr_expect_eq(throttled, 0.5);
}

Test(observe, rate_unknown)
{
    struct looks looks;
    double busy, throttled;

    make_looks(&looks);
    looks.was.view.device[0].compute = false;
    cr_expect(!observe_rate(&looks.before, &looks.now, &looks.is, 0, &busy, &throttled), "was not armed");
    make_looks(&looks);
    looks.is.view.device[0].compute = false;
    cr_expect(!observe_rate(&looks.before, &looks.now, &looks.is, 0, &busy, &throttled), "is not armed any more");
    make_looks(&looks);
    looks.was.view.device[0].busy = looks.is.view.device[0].busy + 1;
    cr_expect(!observe_rate(&looks.before, &looks.now, &looks.is, 0, &busy, &throttled), "began anew");
    make_looks(&looks);
    looks.was.view.device[0].uuid[0] = 2;
    cr_expect(!observe_rate(&looks.before, &looks.now, &looks.is, 0, &busy, &throttled), "another GPU");
    make_looks(&looks);
    looks.was.directory = "/run/y";
    cr_expect(!observe_rate(&looks.before, &looks.now, &looks.is, 0, &busy, &throttled), "another directory's");
    make_looks(&looks);
    looks.now.clock = looks.before.clock;
    cr_expect(!observe_rate(&looks.before, &looks.now, &looks.is, 0, &busy, &throttled), "no time between them");
}

Test(observe, own_numbers)
{
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char text[16];

    cr_assert(proc >= 0);
    cr_expect_eq(inner_pid(proc, "self"), (uint32_t)getpid());
    cr_expect_neq(namespace_of(proc, "self"), 0);
    cr_expect_eq(inner_pid(proc, "no-such-process"), 0);
    cr_expect_eq(namespace_of(proc, "no-such-process"), 0);
    read_text(proc, "self", "comm", text, sizeof(text));
    cr_expect(*text);
    close(proc);
}
