/* SPDX-License-Identifier: Apache-2.0 */
/* Two threads in the quota, in every order of their steps; three in random ones. The ledger is a model whose every call is a place
 * where another thread may go on. After each step the ledger must hold what the word promises, at the end exactly that, and the
 * refusals must be those of some order in which the same calls could have come one after the other. */
#include <criterion/criterion.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#define quota_add_device   model_add_device
#define quota_limit        model_limit
#define quota_info         model_info
#define quota_reserve      model_reserve
#define quota_try_reserve  model_try_reserve
#define quota_keep         model_keep
#define quota_cancel       model_cancel
#define quota_refund       model_refund
#define quota_retry_oom    model_retry_oom
#define ledger_add_device  fake_add_device
#define ledger_limit       fake_limit
#define ledger_reserve     fake_reserve
#define ledger_settle      fake_settle
#define ledger_refund      fake_refund
#define ledger_current     fake_current
#define ledger_last_burial fake_last_burial
#define ledger_count       fake_count
#define sched_yield        fake_yield
#define nanosleep          fake_nanosleep
#define clock_gettime      fake_clock_gettime
#define log_line           fake_log_line
#define config_vram_own    fake_vram_own
#define config_vram_admin  fake_vram_admin

int fake_yield(void);
int fake_nanosleep(const struct timespec *time, struct timespec *left);
int fake_clock_gettime(clockid_t clock, struct timespec *time);

#include "quota.c"

#define G       QUOTA_GRANULE
#define THREADS 3
#define OPS     4
#define BLOCKS  8
#define STEPS   400

enum kind { END, ALLOC, ALLOC_BUT_DRIVER_FAILS, FREE };

struct op {
    enum kind kind;
    unsigned block;
    uint64_t bytes, actual;
};

struct scenario {
    const char *name;
    uint64_t limit;
    uint64_t before[BLOCKS]; /* blocks that exist at the start */
    struct op op[THREADS][OPS + 1];
};

struct thread {
    ucontext_t context;
    bool done, waiting; /* waiting: somebody else must take a step first */
    bool refused[OPS];
    char stack[65536];
};

static const struct scenario *scenario;
static struct quota quota;
static struct thread thread[THREADS];
static unsigned threads, running;
static ucontext_t scheduler;
static struct record block[BLOCKS];
static uint64_t committed, tentative, clock_ns, busiest;
static bool over; /* a settle above the reservation has been seen: the limit may be exceeded by right */

/* ---- the model of the ledger */

static void step(void)
{
    if (threads)
        swapcontext(&thread[running].context, &scheduler);
}

static void step_aside(void)
{
    clock_ns += 10000000;
    thread[running].waiting = true;
    step();
}

int fake_yield(void)
{
    step_aside();
    return 0;
}

int fake_nanosleep(const struct timespec *time, struct timespec *left)
{
    (void)time;
    (void)left;
    step_aside();
    return 0;
}

int fake_clock_gettime(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = (struct timespec){.tv_sec = (time_t)(clock_ns / 1000000000), .tv_nsec = (long)(clock_ns % 1000000000)};
    return 0;
}

void fake_log_line(enum log_level level, const char *format, ...)
{
    (void)level;
    (void)format;
}

uint64_t ledger_limit(const struct ledger *ledger, unsigned device)
{
    (void)ledger;
    (void)device;
    step();
    return scenario->limit;
}

int ledger_reserve(struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t cap)
{
    uint64_t limit = cap < scenario->limit ? cap : scenario->limit;
    int result;

    (void)ledger;
    (void)device;
    for (step();; step_aside()) {
        result = committed + tentative + bytes <= limit ? 0 : -ENOMEM;
        if (result == 0 || committed + bytes > limit)
            break;
    }
    tentative += result ? 0 : bytes;
    step();
    return result;
}

void ledger_settle(struct ledger *ledger, unsigned device, uint64_t reserved, uint64_t actual)
{
    (void)ledger;
    (void)device;
    step();
    cr_assert_geq(tentative, reserved);
    tentative -= reserved;
    committed += actual;
    over = over || actual > reserved;
    step();
}

void ledger_refund(struct ledger *ledger, unsigned device, uint64_t bytes)
{
    (void)ledger;
    (void)device;
    step();
    cr_assert_geq(committed, bytes, "%s: refunds more than is held", scenario->name);
    committed -= bytes;
    step();
}

uint64_t ledger_current(struct ledger *ledger, unsigned device)
{
    (void)ledger;
    (void)device;
    return committed + tentative;
}

void ledger_count(struct ledger *ledger, unsigned device, enum ledger_event event)
{
    (void)ledger;
    (void)device;
    (void)event;
}

uint64_t ledger_last_burial(const struct ledger *ledger, unsigned device)
{
    (void)ledger;
    (void)device;
    return 0;
}

int ledger_add_device(struct ledger *ledger, const uint8_t uuid[16], uint64_t limit)
{
    (void)ledger;
    (void)uuid;
    (void)limit;
    return 0;
}

uint64_t config_vram_own(const struct config *config, const struct config_device *device, const struct config_rule **rule)
{
    (void)config;
    (void)device;
    (void)rule;
    return UINT64_MAX;
}

uint64_t config_vram_admin(const struct config *config, const struct config_device *device, const struct config_rule **rule)
{
    (void)config;
    (void)device;
    (void)rule;
    return UINT64_MAX;
}

/* ---- running a scenario in one order */

static bool do_op(const struct op *op)
{
    struct quota_charge charge;

    if (op->kind == FREE) {
        if (block[op->block].key)
            quota_refund(&quota, &block[op->block]);
        block[op->block].key = 0;
        return true;
    }
    if (quota_reserve(&quota, &charge, 0, op->bytes, QUOTA_LINEAR) != 0)
        return false;
    step(); /* the driver */
    if (op->kind == ALLOC) {
        quota_keep(&quota, &charge, op->actual, &block[op->block]);
        block[op->block].key = 1;
    } else {
        quota_cancel(&quota, &charge);
    }
    return true;
}

static void run_thread(void)
{
    unsigned me = running;

    for (unsigned i = 0; scenario->op[me][i].kind != END; i++)
        thread[me].refused[i] = !do_op(&scenario->op[me][i]);
    thread[me].done = true;
    swapcontext(&thread[me].context, &scheduler);
}

/* What the word promises must be committed, whatever is under way. */
static void check_step(void)
{
    uint64_t word = quota.device[0].slabs;

    busiest = (word & BUSY_MASK) / BUSY > busiest ? (word & BUSY_MASK) / BUSY : busiest;
    cr_assert_leq(slabs_of(&quota.device[0], word & USED_MASK) * G, committed, "%s: room without a charge", scenario->name);
    cr_assert(over || committed + tentative <= scenario->limit, "%s: over the limit", scenario->name);
}

static void check_end(void)
{
    uint64_t units = 0, large = 0, word = quota.device[0].slabs;

    for (unsigned i = 0; i < BLOCKS; i++) {
        units += block[i].key && block[i].small ? block[i].bytes / UNIT : 0;
        large += block[i].key && !block[i].small ? block[i].bytes : 0;
    }
    cr_assert_eq(word % TURN, units, "%s: word %lx, %lu units in use", scenario->name, (unsigned long)word, (unsigned long)units);
    cr_assert_eq(tentative, 0);
    cr_assert_eq(committed, slabs_of(&quota.device[0], units) * G + large, "%s: %lu committed", scenario->name,
                 (unsigned long)committed);
}

static void reset(void)
{
    threads = 0;
    committed = tentative = clock_ns = 0;
    over = false;
    memset(&quota, 0, sizeof(quota));
    quota.device[0] = (struct quota_device){.own = UINT64_MAX, .admin = UINT64_MAX, .native = UINT64_MAX, .granule = G};
    quota.device[0].id.physical = UINT64_MAX;
    quota.devices = 1;
    memset(block, 0, sizeof(block));
    for (unsigned i = 0; i < BLOCKS; i++)
        if (scenario->before[i])
            cr_assert(do_op(&(struct op){.kind = ALLOC, .block = i, .bytes = scenario->before[i]}));
    over = false;
    while (threads < THREADS && scenario->op[threads][0].kind != END) {
        thread[threads].done = thread[threads].waiting = false;
        getcontext(&thread[threads].context);
        thread[threads].context.uc_stack.ss_sp = thread[threads].stack;
        thread[threads].context.uc_stack.ss_size = sizeof(thread[threads].stack);
        thread[threads].context.uc_link = NULL;
        makecontext(&thread[threads].context, run_thread, 0);
        threads++;
    }
}

/* Who may go on now; a waiting thread only if nobody else can. */
static unsigned eligible(unsigned list[THREADS])
{
    unsigned n = 0;

    for (unsigned i = 0; i < threads; i++)
        if (!thread[i].done && !thread[i].waiting)
            list[n++] = i;
    for (unsigned i = 0; n == 0 && i < threads; i++)
        if (!thread[i].done)
            list[n++] = i;
    return n;
}

static unsigned run_once(unsigned (*choose)(unsigned depth, unsigned n))
{
    unsigned depth = 0, list[THREADS], n;

    reset();
    while ((n = eligible(list)) > 0) {
        cr_assert_lt(depth, STEPS, "%s: no end", scenario->name);
        running = list[n > 1 ? choose(depth, n) : 0];
        depth += n > 1;
        swapcontext(&scheduler, &thread[running].context);
        for (unsigned i = 0; i < threads && !thread[running].waiting; i++)
            thread[i].waiting = false;
        for (unsigned i = 0; i < threads && thread[running].waiting; i++)
            if (i != running)
                thread[i].waiting = false;
        check_step();
    }
    threads = 0;
    check_end();
    return depth;
}

/* ---- the same calls one after the other */

struct serial {
    unsigned at[THREADS], half[THREADS]; /* half: a failing allocation holds its charge */
    uint64_t units, large;
    bool there[BLOCKS];
};

static bool small_size(uint64_t bytes)
{
    return bytes <= G / 2;
}

static void serial_add(struct serial *state, uint64_t bytes, int sign)
{
    if (small_size(bytes))
        state->units += (uint64_t)sign * ((bytes + UNIT - 1) / UNIT);
    else
        state->large += (uint64_t)sign * ((bytes + G - 1) / G * G);
}

static uint64_t serial_total(const struct serial *state)
{
    return (state->units * UNIT + G - 1) / G * G + state->large;
}

static uint64_t size_of_block(unsigned index)
{
    for (unsigned t = 0; t < THREADS; t++)
        for (unsigned i = 0; i < OPS && scenario->op[t][i].kind != END; i++)
            if (scenario->op[t][i].kind == ALLOC && scenario->op[t][i].block == index)
                return scenario->op[t][i].actual ? scenario->op[t][i].actual : scenario->op[t][i].bytes;
    return scenario->before[index];
}

static bool serial_step(struct serial *state, unsigned t)
{
    const struct op *op = &scenario->op[t][state->at[t]];
    bool refused = thread[t].refused[state->at[t]];
    struct serial tried;

    if (state->half[t]) {
        serial_add(state, op->bytes, -1);
        state->half[t] = 0;
        state->at[t]++;
        return true;
    }
    if (op->kind == FREE) {
        if (state->there[op->block])
            serial_add(state, size_of_block(op->block), -1);
        state->there[op->block] = false;
        state->at[t]++;
        return true;
    }
    tried = *state;
    serial_add(&tried, op->bytes, 1);
    if ((serial_total(&tried) > scenario->limit) != refused)
        return false;
    if (refused) {
        state->at[t]++;
        return true;
    }
    if (op->kind == ALLOC) {
        serial_add(state, op->actual ? op->actual : op->bytes, 1);
        state->there[op->block] = true;
        state->at[t]++;
    } else {
        *state = tried;
        state->half[t] = 1;
    }
    return true;
}

static bool serial_exists(const struct serial *state)
{
    bool finished = true;

    for (unsigned t = 0; t < THREADS; t++) {
        struct serial next = *state;

        if (scenario->op[t][state->at[t]].kind == END)
            continue;
        finished = false;
        if (serial_step(&next, t) && serial_exists(&next))
            return true;
    }
    return finished;
}

static uint32_t outcome(void)
{
    uint32_t bits = 0;

    for (unsigned t = 0; t < THREADS; t++)
        for (unsigned i = 0; i < OPS && scenario->op[t][i].kind != END; i++)
            bits = bits * 2 + thread[t].refused[i];
    return bits;
}

static void check_outcome(void)
{
    static uint8_t good[1 << (THREADS * OPS)];
    static const struct scenario *of;
    struct serial start = {.units = 0};

    if (of != scenario)
        memset(good, 0, sizeof(good));
    of = scenario;
    if (good[outcome()])
        return;
    for (unsigned i = 0; i < BLOCKS; i++) {
        start.there[i] = scenario->before[i] != 0;
        if (start.there[i])
            serial_add(&start, scenario->before[i], 1);
    }
    cr_assert(serial_exists(&start), "%s: refusals %x fit no order of the calls", scenario->name, outcome());
    good[outcome()] = 1;
}

/* ---- all orders, and random ones */

static unsigned chosen[STEPS], width[STEPS], planned;

static unsigned choose_next(unsigned depth, unsigned n)
{
    if (depth >= planned)
        chosen[depth] = 0;
    width[depth] = n;
    return chosen[depth];
}

static uint64_t every_order(const struct scenario *what)
{
    uint64_t runs = 0;

    scenario = what;
    planned = 0;
    do {
        planned = run_once(choose_next);
        check_outcome();
        runs++;
        while (planned > 0 && chosen[planned - 1] + 1 == width[planned - 1])
            planned--;
        if (planned > 0)
            chosen[planned - 1]++;
    } while (planned > 0);
    return runs;
}

static uint64_t seed = 88172645463325252u;

static unsigned choose_random(unsigned depth, unsigned n)
{
    (void)depth;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 32) % n;
}

#define MIB (UINT64_C(1) << 20)

static const struct scenario pairs[] = {
    {.name = "two halves fill one slab", .limit = G, .op = {{{ALLOC, 0, MIB, 0}}, {{ALLOC, 1, MIB, 0}}}},
    {.name = "one of two fails", .limit = G, .op = {{{ALLOC_BUT_DRIVER_FAILS, 0, MIB, 0}}, {{ALLOC, 1, MIB, 0}}}},
    {.name = "coming and going", .limit = G, .op = {{{ALLOC, 0, MIB, 0}, {FREE, 0, 0, 0}}, {{ALLOC, 1, MIB, 0}, {FREE, 1, 0, 0}}}},
    {.name = "a freed slab is handed over",
     .limit = 2 * G,
     .before = {MIB, MIB, 512},
     .op = {{{FREE, 2, 0, 0}}, {{ALLOC, 3, MIB, 0}}}},
    {.name = "a freed slab is handed over, twice",
     .limit = 2 * G,
     .before = {MIB, MIB, 512},
     .op = {{{FREE, 2, 0, 0}, {FREE, 0, 0, 0}}, {{ALLOC, 3, MIB, 0}, {ALLOC, 4, MIB, 0}}}},
    {.name = "small against large", .limit = G, .op = {{{ALLOC, 0, 512, 0}}, {{ALLOC, 1, 2 * MIB, 0}}}},
    {.name = "small against large, freed",
     .limit = G,
     .op = {{{ALLOC, 0, 512, 0}, {FREE, 0, 0, 0}}, {{ALLOC, 1, 2 * MIB, 0}, {FREE, 1, 0, 0}}}},
    {.name = "the last slab goes while another wants it",
     .limit = G,
     .before = {512},
     .op = {{{FREE, 0, 0, 0}}, {{ALLOC, 1, 2 * MIB, 0}}}},
    {.name = "two fill, a third is too many", .limit = G, .op = {{{ALLOC, 0, MIB, 0}, {ALLOC, 2, 512, 0}}, {{ALLOC, 1, MIB, 0}}}},
    {.name = "failing beside a slab that ends",
     .limit = 2 * G,
     .before = {MIB, MIB, 512},
     .op = {{{ALLOC_BUT_DRIVER_FAILS, 4, MIB, 0}}, {{FREE, 2, 0, 0}, {ALLOC, 3, MIB, 0}}}},
    {.name = "more than was asked",
     .limit = 4 * G,
     .op = {{{ALLOC, 0, 512, MIB}, {FREE, 0, 0, 0}}, {{ALLOC, 1, MIB, 0}, {FREE, 1, 0, 0}}}},
    {.name = "more than a slab",
     .limit = 4 * G,
     .before = {512},
     .op = {{{ALLOC, 1, 512, 3 * MIB}, {FREE, 1, 0, 0}}, {{FREE, 0, 0, 0}, {ALLOC, 2, 512, 0}}}},
};

#if defined(__SANITIZE_THREAD__)
#    define FIBRES .disabled = true /* the sanitizer does not know these threads */
#else
#    define FIBRES .disabled = false
#endif

Test(quota_interleave, two_threads_in_every_order, FIBRES, .timeout = 120)
{
    uint64_t runs = 0;

    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++)
        runs += every_order(&pairs[i]);
    cr_log_info("%lu orders", (unsigned long)runs);
    cr_assert_gt(runs, 10000);
    cr_assert_eq(busiest, 2, "both threads have been between the word and the ledger at once");
}

static const struct scenario triples[] = {
    {.name = "three in one slab",
     .limit = G,
     .op = {{{ALLOC, 0, MIB, 0}, {FREE, 0, 0, 0}}, {{ALLOC, 1, MIB / 2, 0}, {FREE, 1, 0, 0}}, {{ALLOC, 2, MIB / 2, 0}}}},
    {.name = "three at the edge",
     .limit = 2 * G,
     .before = {MIB, MIB, 512},
     .op = {{{FREE, 2, 0, 0}, {ALLOC, 3, MIB, 0}},
            {{ALLOC_BUT_DRIVER_FAILS, 4, MIB, 0}, {ALLOC, 5, 512, 0}},
            {{FREE, 0, 0, 0}, {ALLOC, 6, 2 * MIB, 0}, {FREE, 6, 0, 0}}}},
    {.name = "three with a large one",
     .limit = 2 * G,
     .op = {{{ALLOC, 0, MIB, 0}, {ALLOC, 1, 512, 0}, {FREE, 0, 0, 0}},
            {{ALLOC, 2, 2 * MIB, 0}, {FREE, 2, 0, 0}},
            {{ALLOC, 3, MIB, 0}, {FREE, 3, 0, 0}, {ALLOC, 4, MIB, 0}}}},
};

Test(quota_interleave, three_threads_in_random_orders, FIBRES, .timeout = 120)
{
    for (size_t i = 0; i < sizeof(triples) / sizeof(*triples); i++) {
        scenario = &triples[i];
        for (unsigned run = 0; run < 100000; run++) {
            run_once(choose_random);
            check_outcome();
        }
    }
}
