/* SPDX-License-Identifier: Apache-2.0 */
/* kill -9 at every instruction: a process is single-stepped through an operation and killed after the first instruction, then another
 * after the second, and so on to the end, the task that an operation works in included. After each kill the total is what the living
 * hold, the next process can join, and the budget can be had to the byte.
 *
 * The long operations (attaching, burying) are killed after every instruction that others can notice: each system call, and each that
 * changed the ledger's file. Between two of them only memory that dies with the process changes. LEDGER_STEP_STRIDE=n kills them after
 * every n-th instruction instead (1 takes hours), LEDGER_STEP_ONLY names some operations by a part of their names. */
// timeout: 400
// unsanitized: single-steps, which takes hours in instrumented code
// unemulated: single-steps, which an emulator cannot
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "common.h"
#include "ledger_layout.h"
#include "softslice/clock.h"

#define LIMIT  UINT64_C(1000000)
#define KEPT   UINT64_C(1000) /* what the test itself holds */
#define VICTIM UINT64_C(3000) /* what the victim holds before the operation */
#define DEAD   UINT64_C(500)  /* what an unburied dead member holds */

static struct ledger *ledger, *other;
static int dir;
static unsigned device;
static volatile int *finished; /* set by the victim behind the operation */
static volatile int *shown;    /* whether the driver still shows the dead */

static void witness(const uint8_t uuid[16], const uint32_t *pids, bool *is_shown, unsigned count)
{
    (void)uuid;
    (void)pids;
    for (unsigned i = 0; i < count; i++)
        is_shown[i] = *shown;
}

static void do_reserve(void)
{
    ledger_reserve(ledger, device, 4096, LEDGER_NO_LIMIT);
}

static void do_refuse(void)
{
    ledger_reserve(ledger, device, LIMIT, LEDGER_NO_LIMIT);
}

static void do_settle(void)
{
    ledger_settle(ledger, device, 2000, 2000);
}

static void do_settle_more(void)
{
    ledger_settle(ledger, device, 2000, 2500);
}

static void do_refund(void)
{
    ledger_refund(ledger, device, 1000);
}

static void do_bury(void)
{
    ledger_members(ledger);
}

static void do_suspend(void)
{
    struct ledger_peer peer;

    if (ledger_find(ledger, (uint32_t)getppid(), &peer) == 0)
        ledger_suspend(ledger, &peer);
}

static void do_resume(void)
{
    static uint64_t cap[LEDGER_DEVICES];
    struct ledger_peer peer;
    struct ledger_refusal refusal;

    memset(cap, 0xff, sizeof(cap));
    if (ledger_find(ledger, (uint32_t)getppid(), &peer) == 0)
        ledger_resume(ledger, &peer, cap, &refusal);
}

static void do_compute(void)
{
    ledger_arm(ledger, LEDGER_ARMS_COMPUTE);
    ledger_enter_compute(ledger, device, 2000, 50);
    __atomic_store_n(ledger_busy_word(ledger, device), clock_now(), __ATOMIC_SEQ_CST);
    ledger_others_busy(ledger, device, clock_now());
}

static void do_attach(void)
{
    ledger_attach(ledger, dir, "stepped");
}

static void do_attach_own(void)
{
    ledger_attach(ledger, dir, NULL);
}

static void do_add(void)
{
    static const uint8_t uuid[16] = {9, 9, 9};

    ledger_add_device(ledger, uuid, 77);
}

static void do_detach(void)
{
    ledger_detach(ledger);
}

/* SHOWN: the driver shows the dead until after the kill. GONE: it did when they were found, and does not any more. PEER, SUSPENDED: the test
 * itself is what is worked on, and begins suspended. */
enum {
    ATTACHED = 1,
    TENTATIVE = 2,
    AFTER_DEATH = 4,
    ALONE = 8,
    LONG = 16,
    NEW = 32,
    SHOWN = 64,
    GONE = 128,
    PEER = 256,
    SUSPENDED = 512
};

static const struct operation {
    const char *name;
    void (*run)(void);
    unsigned flags;
} operations[] = {
    {"reserve", do_reserve, ATTACHED},
    {"settle", do_settle, ATTACHED | TENTATIVE},
    {"settle at more", do_settle_more, ATTACHED | TENTATIVE},
    {"refund", do_refund, ATTACHED},
    {"reserve, refused, burying", do_refuse, ATTACHED | AFTER_DEATH | LONG},
    {"bury", do_bury, ATTACHED | AFTER_DEATH | LONG},
    {"bury, dead still shown", do_bury, ATTACHED | AFTER_DEATH | LONG | SHOWN},
    {"bury, dead shown no more", do_bury, ATTACHED | AFTER_DEATH | LONG | GONE},
    {"suspend", do_suspend, ATTACHED | LONG | PEER},
    {"resume", do_resume, ATTACHED | LONG | PEER | SUSPENDED},
    {"resume in single steps", do_resume, ATTACHED | PEER | SUSPENDED},
    {"share and be busy", do_compute, ATTACHED},
    {"detach", do_detach, ATTACHED | LONG},
    {"add a device", do_add, ATTACHED},
    {"attach", do_attach, LONG},
    {"attach, burying", do_attach, AFTER_DEATH | LONG},
    {"attach, first, burying", do_attach, AFTER_DEATH | ALONE | LONG},
    {"attach, dead still shown", do_attach, AFTER_DEATH | LONG | SHOWN},
    {"attach, first, dead still shown", do_attach, AFTER_DEATH | ALONE | LONG | SHOWN},
    {"attach, first, dead shown no more", do_attach, AFTER_DEATH | ALONE | LONG | GONE},
    {"attach, creating", do_attach, ALONE | NEW | LONG},
    {"attach, process-own", do_attach_own, LONG},
};

static void victim(const struct operation *operation)
{
    if (operation->flags & ATTACHED) {
        test_attach(ledger, dir, "stepped", LEDGER_NO_LIMIT);
        test_hold(ledger, (int)device, VICTIM);
        *ledger_busy_word(ledger, device) = clock_now();
        if (operation->flags & TENTATIVE)
            check(ledger_reserve(ledger, device, 2000, LEDGER_NO_LIMIT) == 0, "no room");
    }
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(77);
    raise(SIGSTOP);
    operation->run();
    *finished = 1;
    for (;;)
        pause();
}

/* A member that is dead and not buried. */
static void leave_dead(void)
{
    pid_t pid = test_fork();

    if (pid == 0) {
        test_attach(ledger, dir, "stepped", LEDGER_NO_LIMIT);
        test_hold(ledger, (int)device, DEAD);
        *ledger_busy_word(ledger, device) = clock_now();
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

/* Find that one, while the driver still shows it. */
static void find_dead(bool alone)
{
    struct ledger_member list[2];

    if (alone)
        test_attach(ledger, dir, "stepped", LIMIT);
    check(ledger_members(ledger) == 1, "%u members", ledger_members(ledger));
    check(ledger_members_list(ledger, device, list, 2) == 2 && list[0].dead + list[1].dead == 1, "nobody is dead");
    if (alone)
        ledger_detach(ledger);
    *shown = 0;
}

/* ---- what others can notice */

#define WATCHED_SLOTS   8
#define WATCHED_DEVICES 3

static struct watch {
    char *file;
    size_t size;
    char last[8192];
} watch;

static size_t watch_part(size_t at, char *copy, size_t offset, size_t size)
{
    memcpy(copy + at, watch.file + offset, size);
    return at + size;
}

/* Copy the parts that an operation on few slots and devices can change. */
static size_t watch_copy(char *copy)
{
    const struct ledger_header *header = (const struct ledger_header *)watch.file;
    size_t at = watch_part(0, copy, 0, sizeof(*header));

    at = watch_part(at, copy, header->device_offset, WATCHED_DEVICES * header->device_stride);
    at = watch_part(at, copy, header->slot_offset, WATCHED_SLOTS * header->slot_stride);
    for (unsigned i = 0; i < WATCHED_DEVICES; i++)
        at = watch_part(at, copy, header->hold_offset + (size_t)i * header->slots * header->hold_stride,
                        WATCHED_SLOTS * sizeof(struct ledger_hold));
    at = watch_part(at, copy, header->compute_offset, WATCHED_DEVICES * header->compute_stride);
    for (unsigned i = 0; i < WATCHED_DEVICES; i++)
        at = watch_part(at, copy, header->busy_offset + (size_t)i * header->slots * header->busy_stride,
                        WATCHED_SLOTS * header->busy_stride);
    return at;
}

static void watch_open(void)
{
    int fd = openat(dir, "stepped/ledger", O_RDONLY | O_CLOEXEC);
    struct stat status;

    if (fd < 0)
        return;
    check(fstat(fd, &status) == 0, "%s", strerror(errno));
    watch.size = (size_t)status.st_size;
    watch.file = mmap(NULL, watch.size, PROT_READ, MAP_SHARED, fd, 0);
    check(watch.file != MAP_FAILED, "%s", strerror(errno));
    close(fd);
    watch_copy(watch.last);
}

static bool watch_changed(void)
{
    char now[sizeof(watch.last)];
    size_t size;

    if (!watch.file)
        return false;
    size = watch_copy(now);
    if (memcmp(now, watch.last, size) == 0)
        return false;
    memcpy(watch.last, now, size);
    return true;
}

static void watch_close(void)
{
    if (watch.file)
        munmap(watch.file, watch.size);
    watch.file = NULL;
}

/* Whether the next instruction of a stopped task is a system call. */
static bool next_is_call(pid_t task)
{
    struct user_regs_struct registers;
    struct iovec all = {&registers, sizeof(registers)};
    unsigned long word;

    if (ptrace(PTRACE_GETREGSET, task, (void *)NT_PRSTATUS, &all) < 0)
        return false;
#if defined(__x86_64__)
    word = (unsigned long)ptrace(PTRACE_PEEKTEXT, task, (void *)registers.rip, NULL);
    return (word & 0xffff) == 0x050f;
#else
    word = (unsigned long)ptrace(PTRACE_PEEKTEXT, task, (void *)(registers.pc & ~7UL), NULL);
    return (uint32_t)(word >> (registers.pc & 4 ? 32 : 0)) == 0xd4000001;
#endif
}

/* ---- stepping */

/* Step a victim and the tasks it makes until `moments` have passed (instructions, or those that others can notice), and kill it. Whether
 * the operation was over before. -1: no ptrace here. */
static int step_and_kill(const struct operation *operation, unsigned long moments, bool noticed)
{
    pid_t pid, task = 0;
    int status, over = 0;
    bool call = false;

    *finished = 0;
    watch_close();
    pid = test_fork();
    if (pid == 0) {
        victim(operation);
        _exit(1);
    }
    check(waitpid(pid, &status, 0) == pid, "%s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        return -1;
    check(WIFSTOPPED(status), "victim: status %x", status);
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE) <
            0 ||
        ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return -1;
    }
    watch_open();
    for (unsigned long done = 0; done < moments;) {
        task = waitpid(-1, &status, __WALL);
        check(task > 0, "%s", strerror(errno));
        if (!WIFSTOPPED(status)) {
            check(task != pid, "%s: the victim ended by itself with status %x", operation->name, status);
            done += noticed;
            continue;
        }
        if (*finished) {
            over = 1;
            break;
        }
        if (call && !watch.file)
            watch_open();
        done += !noticed ? WSTOPSIG(status) == SIGTRAP && status >> 16 == 0 : call || watch_changed();
        if (done == moments)
            break;
        call = noticed && next_is_call(task);
        ptrace(PTRACE_SINGLESTEP, task, NULL, NULL);
    }
    kill(pid, SIGKILL);
    /* A task of the victim's that has not yet asked to die with it finds out by itself. */
    if (task != pid)
        ptrace(PTRACE_CONT, task, NULL, NULL);
    while ((task = waitpid(-1, &status, __WALL)) > 0) {
        if (WIFSTOPPED(status))
            ptrace(PTRACE_CONT, task, NULL, NULL);
    }
    return over;
}

static void suspend_self(void)
{
    struct ledger_peer peer;

    check(ledger_find(ledger, (uint32_t)getpid(), &peer) == 0, "not a member");
    ledger_suspend(ledger, &peer);
}

static void resume_self(void)
{
    uint64_t cap[LEDGER_DEVICES];
    struct ledger_peer peer;
    struct ledger_refusal refusal;

    memset(cap, 0xff, sizeof(cap));
    check(ledger_find(ledger, (uint32_t)getpid(), &peer) == 0, "not a member");
    check(ledger_resume(ledger, &peer, cap, &refusal) >= 0, "no room");
}

static void remove_ledger(void)
{
    test_remove(dir, "stepped");
}

/* Whatever the killed one left of it, this process is suspended once and counted once again. */
static void verify_peer(const struct operation *operation, unsigned long steps)
{
    uint64_t now, tentative = 0;
    struct ledger_device_state state;

    check(ledger_members(ledger) == 1, "%s, %lu: %u members", operation->name, steps, ledger_members(ledger));
    check(ledger_device_state(ledger, device, &state) == 0, "no state");
    now = state.current, tentative = state.tentative;
    check(now == 0 || now == KEPT, "%s, %lu: %llu counted", operation->name, steps, (unsigned long long)now);
    check(tentative == 0, "%s, %lu: %llu tentative", operation->name, steps, (unsigned long long)tentative);
    check(ledger_own(ledger, device) == KEPT, "%s, %lu: %llu held", operation->name, steps,
          (unsigned long long)ledger_own(ledger, device));
    suspend_self();
    check(ledger_current(ledger, device) == 0, "%s, %lu: suspended and counted", operation->name, steps);
    resume_self();
}

static void verify(const struct operation *operation, unsigned long steps)
{
    bool alone = operation->flags & ALONE;
    uint64_t kept = alone ? 0 : KEPT, dead = DEAD + (operation->flags & ATTACHED ? VICTIM : 0);

    if (operation->flags & PEER)
        verify_peer(operation, steps);
    if (alone) {
        check(test_attach(ledger, dir, "stepped", LIMIT) >= 0, "no device");
        check(ledger->first, "%s, %lu: the first live member is not first", operation->name, steps);
    }
    if (operation->flags & SHOWN) {
        check(ledger_members(ledger) == 1, "%s, %lu: %u members", operation->name, steps, ledger_members(ledger));
        check(ledger_current(ledger, device) == kept + dead, "%s, %lu: %llu instead of %llu with the dead", operation->name, steps,
              (unsigned long long)ledger_current(ledger, device), (unsigned long long)(kept + dead));
        check(!ledger_fits_without_dead(ledger, device, LIMIT - kept + 1, LEDGER_NO_LIMIT) &&
                  ledger_fits_without_dead(ledger, device, LIMIT - kept, LEDGER_NO_LIMIT),
              "%s, %lu: the dead are in the way for ever", operation->name, steps);
        *shown = 0;
    }
    check(ledger_members(ledger) == 1, "%s, %lu: %u members", operation->name, steps, ledger_members(ledger));
    check(ledger_current(ledger, device) == kept, "%s, %lu: %llu instead of %llu", operation->name, steps,
          (unsigned long long)ledger_current(ledger, device), (unsigned long long)kept);
    check(!ledger_others_busy(ledger, device, clock_now()), "%s, %lu: the dead are busy", operation->name, steps);
    check(ledger_share(ledger, device) == (alone ? SHARE_WHOLE : 3000), "%s, %lu: a share of %u", operation->name, steps,
          ledger_share(ledger, device));
    check(ledger_attach(other, dir, "stepped") == 0, "%s, %lu: %s", operation->name, steps, other->error);
    check(!ledger_others_busy(ledger, device, clock_now()) && *ledger_busy_word(other, device) == 0,
          "%s, %lu: busy before it began", operation->name, steps);
    check(other->slot <= 2, "%s, %lu: slot %u", operation->name, steps, other->slot);
    check(ledger_reserve(other, device, LIMIT - kept + 1, LEDGER_NO_LIMIT) == -ENOMEM, "%s, %lu: too much", operation->name, steps);
    check(ledger_reserve(other, device, LIMIT - kept, LEDGER_NO_LIMIT) == 0, "%s, %lu: not all can be had", operation->name, steps);
    ledger_detach(other);
    if (alone)
        ledger_detach(ledger);
}

int main(void)
{
    unsigned long stride = test_setting("LEDGER_STEP_STRIDE", 0);
    const char *only = getenv("LEDGER_STEP_ONLY");

    dir = test_begin(1200);
    test_one_processor();
    finished = test_shared(sizeof(*finished));
    shown = test_shared(sizeof(*shown));
    ledger_set_witness(witness);
    ledger = test_handle();
    other = test_handle();
    for (unsigned i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
        const struct operation *operation = &operations[i];
        bool noticed = operation->flags & LONG && !stride;
        unsigned long step = operation->flags & LONG && stride ? stride : 1, steps, kills = 0;
        uint64_t began = test_now();
        int over = 0;

        if (only && !strstr(operation->name, only))
            continue;
        remove_ledger();
        device = (unsigned)test_attach(ledger, dir, "stepped", LIMIT);
        if (operation->flags & ALONE)
            ledger_detach(ledger);
        else
            test_hold(ledger, (int)device, KEPT);
        if (ledger->file)
            ledger_enter_compute(ledger, device, 3000, 200);
        for (steps = 1; !over; steps += step, kills++) {
            if (operation->flags & NEW)
                remove_ledger();
            *shown = (operation->flags & (SHOWN | GONE)) != 0;
            if (operation->flags & AFTER_DEATH)
                leave_dead();
            if (operation->flags & GONE)
                find_dead(operation->flags & ALONE);
            if (operation->flags & SUSPENDED)
                suspend_self();
            over = step_and_kill(operation, steps, noticed);
            if (over < 0) {
                printf("skipped: this machine lets no process be single-stepped\n");
                return 77;
            }
            verify(operation, steps);
        }
        if (!(operation->flags & ALONE))
            ledger_detach(ledger);
        printf("%s: killed %lu times, at every %s, %.1f s\n", operation->name, kills,
               noticed     ? "instruction that others can notice"
               : step == 1 ? "instruction"
                           : "stride",
               (double)(test_now() - began) / 1e9);
        fflush(stdout);
    }
    return 0;
}
