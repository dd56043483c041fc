/* SPDX-License-Identifier: Apache-2.0 */
/* What `softslice top` makes of observations: rates, states, order, the division of a GPU's memory; and text for a terminal. */
#include <criterion/criterion.h>
#include <locale.h>
#include <string.h>

#include "../../cli/top/model.h"
#include "../../cli/top/text.h"

#define GIB    (UINT64_C(1) << 30)
#define SECOND UINT64_C(1000000000)
#define MANY   8

/* Two observations that a test fills in. */
static struct observe_tenant tenants[2][MANY];
static struct observe_gpu gpus[2] = {{.uuid = {1}, .index = 0, .total = 80 * GIB, .used = 30 * GIB}, {.uuid = {2}, .index = 1}};
static struct observe before = {.tenant = tenants[0], .gpu = gpus, .gpus = 2, .clock = 100 * SECOND};
static struct observe now = {.tenant = tenants[1], .gpu = gpus, .gpus = 2, .clock = 102 * SECOND};
static struct top_model model;
static const char directory[] = {'/', 's', 't', 'a', 't', 'e', 0}; /* the same text elsewhere */

static struct ledger_device_state *add(struct observe *seen, const char *name, unsigned gpu, uint64_t current, uint64_t limit)
{
    struct observe_tenant *tenant = &seen->tenant[seen->tenants++];
    struct ledger_device_state *device = &tenant->view.device[0];

    strcpy(tenant->name, name);
    tenant->directory = seen == &now ? directory : "/state";
    tenant->view.members = 1;
    tenant->view.devices = 1;
    tenant->view.arms = LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE;
    *device = (struct ledger_device_state){
        .uuid = {(uint8_t)(gpu + 1)}, .current = current, .limit = limit, .peak = current, .share = 3000};
    device->compute = true;
    return device;
}

static void update(bool first)
{
    cr_assert(top_model_update(&model, first ? NULL : &before, first ? &before : &now) == 0);
}

static void end(void)
{
    top_model_free(&model);
}

TestSuite(top, .fini = end);

static bool knows(const struct top_row *row, enum top_key key)
{
    return row->known >> key & 1;
}

Test(top, rates_come_from_two_observations)
{
    struct ledger_device_state *old = add(&before, "a", 0, 0, GIB), *new = add(&now, "a", 0, 0, GIB);

    old->busy = 7 * SECOND;
    old->throttled = SECOND;
    old->events[LEDGER_EVENT_REFUSED] = 4;
    new->busy = 7 * SECOND + SECOND / 2;
    new->throttled = SECOND + SECOND / 5;
    new->events[LEDGER_EVENT_REFUSED] = 9;
    update(true);
    cr_assert_eq(model.rows, 1);
    cr_assert(!knows(model.row, TOP_BUSY) && !knows(model.row, TOP_THROTTLED) && !knows(model.row, TOP_NEW));
    cr_assert_eq(model.row->state, 0);
    cr_assert_eq(model.interval, 0);
    update(false);
    cr_assert(knows(model.row, TOP_BUSY) && knows(model.row, TOP_THROTTLED) && knows(model.row, TOP_NEW));
    cr_assert_float_eq(model.row->busy, 0.25, 1e-9);
    cr_assert_float_eq(model.row->throttled, 0.1, 1e-9);
    cr_assert_eq(model.row->refused, 5);
    cr_assert_eq(model.row->state, TOP_WAS_REFUSED | TOP_WAS_THROTTLED);
    cr_assert_float_eq(model.interval, 2, 1e-9);
}

/* A share is one of its own GPU, and never more than all of it. */
Test(top, rates_are_a_devices_own)
{
    struct ledger_device_state *device = add(&before, "a", 1, 0, GIB);

    device->busy = 4 * SECOND;
    device[1] = (struct ledger_device_state){.uuid = {1}, .limit = GIB, .compute = true, .busy = 0};
    device = add(&now, "a", 0, 0, GIB);
    device->busy = SECOND;
    device[1] = (struct ledger_device_state){.uuid = {2}, .limit = GIB, .compute = true, .busy = 13 * SECOND};
    tenants[0][0].view.devices = tenants[1][0].view.devices = 2;
    model.sort = TOP_GPU;
    update(true);
    update(false);
    cr_assert_eq(model.rows, 2);
    cr_assert_float_eq(model.row[0].busy, 0.5, 1e-9);
    cr_assert_float_eq(model.row[1].busy, 1, 1e-9);
}

/* A counter that went back is another tenant's; one that compute is not armed for says nothing; a newcomer has no past. */
Test(top, what_is_not_known_is_not_zero)
{
    add(&before, "again", 0, 0, GIB)->busy = 5 * SECOND;
    add(&before, "vram", 0, 0, GIB)->compute = false;
    tenants[0][0].view.device[0].events[LEDGER_EVENT_REFUSED] = 3;
    add(&now, "again", 0, 0, GIB)->busy = SECOND;
    add(&now, "new", 0, 0, GIB);
    add(&now, "vram", 0, 0, GIB)->compute = false;
    model.sort = TOP_TENANT;
    update(true);
    update(false);
    cr_assert_eq(model.rows, 3);
    cr_assert(!knows(&model.row[0], TOP_BUSY) && !knows(&model.row[0], TOP_NEW) && knows(&model.row[0], TOP_THROTTLED));
    cr_assert(!knows(&model.row[1], TOP_BUSY) && !knows(&model.row[1], TOP_NEW) && knows(&model.row[1], TOP_COMPUTE));
    cr_assert(!knows(&model.row[2], TOP_BUSY) && !knows(&model.row[2], TOP_COMPUTE) && knows(&model.row[2], TOP_NEW));
}

Test(top, tells_what_cannot_be_read)
{
    add(&before, "broken", 0, 0, GIB);
    tenants[0][0].problem = -71;
    add(&before, "quiet", 0, 0, GIB);
    tenants[0][1].view.devices = 0;
    model.sort = TOP_TENANT;
    update(true);
    cr_assert_eq(model.rows, 2);
    cr_assert(!model.row[0].device && !knows(&model.row[0], TOP_CURRENT) && !knows(&model.row[0], TOP_PROCESSES));
    cr_assert_eq(model.row[0].state, TOP_UNREADABLE);
    cr_assert(!model.row[1].device && knows(&model.row[1], TOP_PROCESSES));
    cr_assert_eq(model.processes, 1);
}

Test(top, states)
{
    static const struct {
        uint64_t current, limit;
        unsigned state;
    } cases[] = {{89, 100, 0},         {90, 100, TOP_NEAR}, {100, 100, TOP_NEAR},
                 {101, 100, TOP_OVER}, {0, 100, 0},         {900, LEDGER_NO_LIMIT, 0}};
    char text[TOP_STATE_MAX];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        before.tenants = 0;
        add(&before, "a", 0, cases[i].current, cases[i].limit);
        update(true);
        cr_assert_eq(model.row->state, cases[i].state, "case %u", i);
    }
    cr_assert_str_eq(top_state_text(text, 0, ","), "ok");
    cr_assert_str_eq(top_state_text(text, TOP_WAS_REFUSED | TOP_NEAR, ", "), "refused, near limit");
    top_state_text(text, (1 << TOP_STATES) - 1, ", ");
    cr_assert(strlen(text) < TOP_STATE_MAX - 1 && strstr(text, "ended"));
}

Test(top, members_that_are_suspended_or_dead)
{
    struct observe_member members[2] = {{.pid = 1}, {.pid = 2, .dead = true}};

    add(&before, "a", 0, 10, GIB);
    tenants[0][0].members = 2;
    tenants[0][0].member = members;
    update(true);
    cr_assert_eq(model.row->state, 0);
    members[1].device[0].committed = 5;
    members[0].suspended = true;
    update(true);
    cr_assert_eq(model.row->state, TOP_SUSPENDED | TOP_RELEASING);
}

static void expect_order(const char *names)
{
    char got[64] = "";

    for (unsigned i = 0; i < model.rows; i++)
        strcat(got, model.row[i].tenant->name);
    cr_assert_str_eq(got, names, "by %s%s", top_key_name(model.sort), model.reverse ? " reversed" : "");
}

Test(top, sorts_by_every_key)
{
    static const struct {
        enum top_key key;
        const char *order, *reversed;
    } cases[] = {{TOP_TENANT, "abcd", "dcba"},    {TOP_CURRENT, "bcad", "acbd"}, {TOP_LIMIT, "acbd", "bcad"},
                 {TOP_PEAK, "bcad", "acbd"},      {TOP_REFUSED, "cabd", "abcd"}, {TOP_COMPUTE, "bacd", "cabd"},
                 {TOP_PROCESSES, "cabd", "abcd"}, {TOP_STATE, "dbac", "acbd"},   {TOP_GPU, "acbd", "bacd"},
                 {TOP_WEIGHT, "cbad", "abcd"},    {TOP_BUSY, "abcd", "abcd"}};

    add(&before, "a", 0, 10, LEDGER_NO_LIMIT);
    add(&before, "b", 1, 30, 31)->share = 5000;
    add(&before, "c", 0, 20, 100)->events[LEDGER_EVENT_REFUSED] = 7;
    add(&before, "d", 0, 40, 100);
    tenants[0][2].view.device[0].share = 1000;
    tenants[0][2].view.device[0].weight = 400; /* the others' is their share */
    tenants[0][2].view.members = 9;
    tenants[0][3].problem = -1; /* nothing is known of it: last in either direction, but for its state and name */
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        model.sort = cases[i].key;
        model.reverse = false;
        update(true);
        expect_order(cases[i].order);
        model.reverse = true;
        top_model_arrange(&model);
        expect_order(cases[i].reversed);
    }
    for (int i = 0; i < TOP_KEYS; i++)
        cr_assert_eq(top_key_find(top_key_name((enum top_key)i)), i);
    cr_assert_eq(top_key_find("pid"), -1);
    cr_assert_eq(top_key_find(""), -1);
}

Test(top, filters_by_name)
{
    add(&before, "Alpha", 0, 1, GIB);
    add(&before, "beta", 1, 1, GIB);
    add(&before, "gamma", 0, 1, GIB);
    model.sort = TOP_TENANT;
    strcpy(model.filter, "AM");
    update(true);
    expect_order("gamma");
    strcpy(model.filter, "a");
    top_model_arrange(&model);
    expect_order("Alphabetagamma");
    strcpy(model.filter, "a.");
    top_model_arrange(&model);
    expect_order("");
}

/* Where no process has VRAM armed its bytes are not counted; that nothing runs any more is said. */
Test(top, what_is_not_armed_is_not_counted)
{
    add(&before, "a", 0, 5, 10);
    tenants[0][0].view.arms = LEDGER_ARMS_COMPUTE;
    add(&before, "b", 0, 0, 10);
    tenants[0][1].view.members = tenants[0][1].view.arms = 0;
    model.sort = TOP_TENANT;
    update(true);
    cr_assert(!knows(&model.row[0], TOP_CURRENT) && !knows(&model.row[0], TOP_REFUSED) && knows(&model.row[0], TOP_COMPUTE));
    cr_assert_eq(model.gpu[0].tenants, 1);
    cr_assert_eq(model.gpu[0].limits, 10);
    cr_assert_eq(model.row[0].state, 0);
    cr_assert_eq(model.row[1].state, TOP_ENDED);
}

/* A tenant keeps its letter while others come and go, and two never share a number. */
Test(top, tags_stay)
{
    add(&before, "a", 0, 1, GIB);
    add(&before, "c", 0, 1, GIB);
    add(&before, "d", 0, 1, GIB);
    add(&now, "b", 0, 1, GIB);
    add(&now, "d", 0, 1, GIB);
    add(&now, "e", 0, 1, GIB);
    model.sort = TOP_TENANT;
    update(true);
    cr_assert(model.row[0].tag == 0 && model.row[1].tag == 1 && model.row[2].tag == 2);
    update(false);
    cr_assert(model.row[0].tag == 0 && model.row[1].tag == 2 && model.row[2].tag == 1);
}

Test(top, one_is_found_again_by_all_of_its_names)
{
    static const uint8_t uuid[16] = {1}, other[16] = {2};

    add(&before, "a", 0, 1, GIB);
    update(true);
    cr_assert(top_row_is(model.row, "/state", "a", uuid));
    cr_assert(!top_row_is(model.row, "/state", "a", other));
    cr_assert(!top_row_is(model.row, "/state", "b", uuid));
    cr_assert(!top_row_is(model.row, "/other", "a", uuid));
}

/* The model's look at observe.h, without all that observes. */
const struct observe_gpu *observe_find_gpu(const struct observe *seen, const uint8_t uuid[16])
{
    for (unsigned i = 0; i < seen->gpus; i++) {
        if (memcmp(seen->gpu[i].uuid, uuid, 16) == 0)
            return &seen->gpu[i];
    }
    return NULL;
}

/* ---- the division of a GPU's memory */

static const char *bar(unsigned gpu, int width)
{
    static struct top_cell cell[256];
    static char text[257];

    top_model_bar(&model, &model.gpu[gpu], cell, width);
    for (int i = 0; i < width; i++)
        text[i] = cell[i].kind == TOP_CELL_FIRST ? (char)('a' + cell[i].tag) : " ?#.|x"[cell[i].kind];
    text[width] = '\0';
    return text;
}

Test(top, a_bar_is_divided_among_tenants)
{
    add(&before, "a", 0, 10 * GIB, 20 * GIB);
    add(&before, "b", 0, 5 * GIB, LEDGER_NO_LIMIT);
    add(&before, "c", 0, GIB / 100, 10 * GIB);
    add(&before, "d", 0, 10 * GIB, 10 * GIB);
    add(&before, "e", 1, 3 * GIB, 6 * GIB);
    update(true);
    /* 80 GiB: 20 for a, 5 for b, 10 for c and d each, 4.99 used by others. */
    cr_assert_str_eq(bar(0, 80), "a#########.........|b####c........|d########|xxxxx                              ");
    cr_assert_eq(model.gpu[0].limits, 40 * GIB);
    cr_assert_eq(model.gpu[0].unlimited, 1);
    /* Where the whole is not known it is what the limits come to. */
    cr_assert_str_eq(bar(1, 10), "e####....|");
    cr_assert_eq(model.gpu[1].other, 0);
    for (int width = 0; width < 200; width++)
        cr_assert_eq(strlen(bar(0, width)), (size_t)width);
}

Test(top, a_bar_shows_the_least_of_few)
{
    add(&before, "a", 0, 1, LEDGER_NO_LIMIT);
    add(&before, "b", 0, 1, LEDGER_NO_LIMIT);
    add(&before, "c", 0, 40 * GIB, LEDGER_NO_LIMIT);
    gpus[0].used = 0;
    update(true);
    cr_assert_str_eq(bar(0, 12), "abc###      ");
    cr_assert_str_eq(bar(0, 11), "c#####     ");
}

/* Limits that come to more than there is are the whole; nothing is written beyond the cells. */
Test(top, a_bar_takes_anything)
{
    add(&before, "a", 0, 30 * GIB, 80 * GIB);
    add(&before, "b", 0, 0, 80 * GIB);
    update(true);
    cr_assert_str_eq(bar(0, 16), "a##....|.......|");
    before.tenants = 0;
    add(&before, "a", 0, UINT64_MAX, UINT64_MAX - 1);
    add(&before, "b", 0, UINT64_MAX, 1);
    add(&before, "c", 0, 1, UINT64_MAX - 1);
    update(true);
    cr_assert_eq(strlen(bar(0, 10)), 10);
    before.tenants = 0;
    update(true);
    cr_assert_str_eq(bar(1, 4), "    ");
}

/* ---- text */

static void use_utf8(void)
{
    cr_assert(setlocale(LC_ALL, "C.UTF-8") || setlocale(LC_ALL, "C.utf8"));
}

Test(top_text, names_cannot_move_the_cursor, .init = use_utf8)
{
    static const struct {
        const char *bytes;
        const wchar_t *shown;
        int columns;
    } cases[] = {{"team", L"team", 4},
                 {"a\033[2Jb\x7f\r\n\t", L"a?[2Jb????", 10},
                 {"\xc2\x9b"
                  "2J",
                  L"?2J", 3}, /* CSI in one character */
                 {"\xff\xfe"
                  "a\xe4",
                  L"??a?", 4}, /* no UTF-8 */
                 {"\xe2\x80\xae"
                  "abc",
                  L"?abc", 4}, /* from right to left */
                 {"a\xe2\x80\x8b"
                  "b",
                  L"a?b", 3},                                      /* no width at all */
                 {"\xe6\xbc\xa2\xe5\xad\x97", L"\u6f22\u5b57", 4}, /* two columns each */
                 {"e\xcc\x81", L"e\u0301", 1},
                 {"\xcc\x81"
                  "e",
                  L"?e", 2},
                 {"", L"", 0}};
    wchar_t text[TEXT_MAX];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cr_assert_eq(text_wide(text, cases[i].bytes), cases[i].columns, "case %u", i);
        cr_assert(wcscmp(text, cases[i].shown) == 0, "case %u", i);
    }
}

Test(top_text, marks_do_not_pile_up, .init = use_utf8)
{
    char bytes[4096] = "e";
    wchar_t text[TEXT_MAX];

    for (int i = 0; i < 10; i++)
        strcat(bytes, "\xcc\x81");
    cr_assert_eq(text_wide(text, bytes), 3, "a fourth is shown as what it is");
    memset(bytes, 'x', sizeof(bytes) - 1);
    cr_assert_eq(text_wide(text, bytes), TEXT_MAX - 1);
}

Test(top_text, texts_are_cut_to_columns, .init = use_utf8)
{
    static const struct {
        const char *bytes;
        int columns;
        const wchar_t *shown;
        int taken;
    } cases[] = {{"abcdef", 6, L"abcdef", 6},
                 {"abcdef", 5, L"abcd\u2026", 5},
                 {"abcdef", 1, L"\u2026", 1},
                 {"abcdef", 0, L"", 0},
                 {"", 0, L"", 0},
                 {"\xe6\xbc\xa2\xe5\xad\x97", 3, L"\u6f22\u2026", 3},
                 {"\xe6\xbc\xa2\xe5\xad\x97", 2, L"\u2026", 1},
                 {"e\xcc\x81xyz", 2, L"e\u0301\u2026", 2}};
    wchar_t text[TEXT_MAX];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        text_wide(text, cases[i].bytes);
        cr_assert_eq(text_fit(text, cases[i].columns), cases[i].taken, "case %u", i);
        cr_assert(wcscmp(text, cases[i].shown) == 0, "case %u", i);
    }
}

/* The C locale has ASCII alone. */
Test(top_text, without_unicode)
{
    wchar_t text[TEXT_MAX];
    char word[TEXT_BYTES];

    cr_assert(!text_is_unicode());
    cr_assert_eq(text_wide(text, "\xe6\xbc\xa2"), 3);
    cr_assert(wcscmp(text, L"???") == 0);
    text_wide(text, "abcdef");
    text_fit(text, 3);
    cr_assert(wcscmp(text, L"ab~") == 0);
    cr_assert(wcscmp(text_bar(text, 10, 0.5, false), L"#####.....") == 0);
    cr_assert_str_eq(text_word(word, "NVIDIA H100\n"), "NVIDIA_H100?");
    cr_assert_str_eq(text_word(word, ""), "-");
}

Test(top_text, bars_show_what_is_there)
{
    wchar_t text[TEXT_MAX];

    cr_assert(wcscmp(text_bar(text, 4, 0, true), L"\u2591\u2591\u2591\u2591") == 0);
    cr_assert(wcscmp(text_bar(text, 4, 1e-9, true), L"\u258f\u2591\u2591\u2591") == 0);
    cr_assert(wcscmp(text_bar(text, 4, 0.5, true), L"\u2588\u2588\u2591\u2591") == 0);
    cr_assert(wcscmp(text_bar(text, 4, 0.9999, true), L"\u2588\u2588\u2588\u2589") == 0);
    cr_assert(wcscmp(text_bar(text, 4, 1, true), L"\u2588\u2588\u2588\u2588") == 0);
    cr_assert(wcscmp(text_bar(text, 4, 7, false), L"####") == 0);
    cr_assert(wcscmp(text_bar(text, 4, -1, false), L"....") == 0);
    cr_assert(wcscmp(text_bar(text, 1, 0.2, false), L"#") == 0);
    cr_assert(wcscmp(text_bar(text, 0, 0.2, false), L"") == 0);
    cr_assert_eq(wcslen(text_bar(text, 100000, 0.2, true)), TEXT_MAX - 1);
}

Test(top_text, figures)
{
    char text[TEXT_FIGURE];

    cr_assert_str_eq(text_gib(text, 0), "0.00");
    cr_assert_str_eq(text_gib(text, 1), "<0.01");
    cr_assert_str_eq(text_gib(text, 20 * GIB + GIB / 2), "20.50");
    cr_assert_str_eq(text_gib(text, UINT64_MAX), "17179869184.00");
    cr_assert_str_eq(text_percent(text, 0), "0.0%");
    cr_assert_str_eq(text_percent(text, 0.00001), "<0.1%");
    cr_assert_str_eq(text_percent(text, 0.3333), "33.3%");
    cr_assert_str_eq(text_percent(text, 1), "100%");
    cr_assert_str_eq(text_percent(text, 0.99999), "100%");
}
