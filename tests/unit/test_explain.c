/* SPDX-License-Identifier: Apache-2.0 */
/* A member's account of its bytes: asked for and answered through a tenant's folder, and read as if anybody might have written it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "scratch.h"
#include "softslice/explain.h"

#define KIB(n) (UINT64_C(n) << 10)
#define MIB(n) (UINT64_C(n) << 20)

static struct ledger a;
static struct explain said, heard;
static char file[EXPLAIN_FILE_MOST] __attribute__((aligned(8)));
static int dir;

static void setup(void)
{
    scratch_make();
    cr_assert((dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    cr_assert_eq(ledger_attach(&a, dir, "tenant"), 0, "%s", a.error);
}

static void teardown(void)
{
    ledger_detach(&a);
    close(dir);
    scratch_remove();
}

TestSuite(explain, .init = setup, .fini = teardown, .timeout = 60);

/* Answer `request` with an account of two devices. */
static void answer(uint64_t request)
{
    said = (struct explain){.request = request, .tag = ledger_own_since(&a), .pid = 4711, .devices = 2, .took = 5};
    said.device[1].committed = MIB(7);
    explain_add(&said.device[1], EXPLAIN_PLAIN, MIB(5));
    explain_add(&said.device[1], EXPLAIN_DRIVER, MIB(2));
    explain_add(&said.device[1], EXPLAIN_SPILLED, MIB(100));
    cr_assert_eq(ledger_answer(&a, request, file, explain_pack(&said, file, sizeof(file))), 0);
}

static int hear(uint64_t request)
{
    return explain_read(dir, "tenant", a.slot, ledger_own_since(&a), request, &heard);
}

Test(explain, sizes_have_classes)
{
    static const uint64_t sizes[] = {1, KIB(64), KIB(64) + 1, MIB(2), MIB(64), MIB(64) + 1, MIB(1024), MIB(1024) + 1, UINT64_MAX};
    static const uint64_t counts[EXPLAIN_CLASSES] = {2, 2, 1, 2, 2};
    struct explain_device device = {.flags = 0};

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        explain_add(&device, EXPLAIN_VMM, sizes[i]);
    cr_expect_eq(device.kind[EXPLAIN_VMM].all.count, 9);
    cr_expect_eq(device.kind[EXPLAIN_VMM].all.bytes, UINT64_MAX, "saturates");
    for (unsigned i = 0; i < EXPLAIN_CLASSES; i++)
        cr_expect_eq(device.kind[EXPLAIN_VMM].size[i].count, counts[i], "class %u", i);
}

Test(explain, what_is_on_the_host_or_anothers_is_in_no_total)
{
    struct explain_device device = {.flags = 0};

    for (unsigned i = 0; i < EXPLAIN_KINDS; i++)
        explain_add(&device, i, UINT64_C(1) << i);
    cr_expect_eq(explain_charged(&device), (UINT64_C(1) << EXPLAIN_CHARGED) - 1);
}

Test(explain, is_asked_and_answered)
{
    uint64_t request, seen;

    cr_assert_not(ledger_is_asked(&a, &seen));
    errno = 4711;
    cr_assert_eq(ledger_ask(dir, "tenant", &request), 0);
    cr_assert_eq(errno, 4711);
    cr_assert(ledger_is_asked(&a, &seen) && seen == request);
    cr_assert_eq(hear(request), -EAGAIN, "nobody has answered");
    answer(seen);
    cr_assert_not(ledger_is_asked(&a, &seen));
    cr_assert_eq(hear(request), 0);
    cr_assert_eq(memcmp(&said, &heard, sizeof(said)), 0);
    cr_assert_eq(explain_charged(&heard.device[1]), MIB(7));
    /* Again: the old answer is none, and the new one takes its place. */
    cr_assert_eq(ledger_ask(dir, "tenant", &request), 0);
    cr_assert_eq(hear(request), -EAGAIN);
    cr_assert(ledger_is_asked(&a, &seen));
    answer(seen);
    cr_assert_eq(hear(request), 0);
    cr_assert_eq(hear(request - 1), 0, "a later answer serves who asked before");
    ledger_withdraw_answer(&a, false);
    cr_assert_eq(hear(request), 0, "it stays for some seconds");
    ledger_withdraw_answer(&a, true);
    cr_assert_eq(hear(request), -EAGAIN);
}

Test(explain, a_question_from_before_is_not_the_next_members)
{
    static struct ledger b;
    uint64_t request;

    cr_assert_eq(ledger_ask(dir, "tenant", &request), 0);
    cr_assert_eq(ledger_attach(&b, dir, "tenant"), 0);
    cr_assert_not(ledger_is_asked(&b, &request));
    cr_assert_eq(ledger_ask(dir, "tenant", &request), 0);
    cr_assert(ledger_is_asked(&b, &request));
    ledger_detach(&b);
}

Test(explain, an_answer_is_of_one_owner_of_the_slot)
{
    uint64_t request;

    cr_assert_eq(ledger_ask(dir, "tenant", &request), 0);
    answer(request);
    cr_assert_eq(explain_read(dir, "tenant", a.slot, ledger_own_since(&a) + 1, request, &heard), -EAGAIN);
    cr_assert_eq(explain_read(dir, "tenant", a.slot + 1, ledger_own_since(&a), request, &heard), -EAGAIN);
}

Test(explain, may_be_asked_by_who_may_write)
{
    uint64_t request;

    cr_assert_eq(ledger_ask(dir, "nobody", &request), -ENOENT);
    cr_assert_eq(symlinkat("tenant", dir, "linked"), 0);
    cr_assert(ledger_ask(dir, "linked", &request) < 0);
    cr_assert_eq(fchmodat(dir, "tenant/ledger", 0400, 0), 0);
    if (geteuid())
        cr_assert_eq(ledger_ask(dir, "tenant", &request), -EACCES);
    cr_assert_eq(fchmodat(dir, "tenant/ledger", 0666, 0), 0);
    /* Who is not root and not the owner may not, though the file could be written; nor may root where it has a second name. */
    if (geteuid())
        return;
    cr_assert_eq(chmod(scratch, 0755) == 0 && fchmodat(dir, "tenant", 0755, 0), 0);
    if (fork() == 0)
        _exit(setresuid(12345, 12345, 12345) == 0 && ledger_ask(dir, "tenant", &request) == -EPERM ? 0 : 1);
    int status = -1;
    cr_assert(wait(&status) > 0 && status == 0);
    cr_assert_eq(linkat(dir, "tenant/ledger", dir, "second", 0), 0);
    cr_assert_eq(ledger_ask(dir, "tenant", &request), -EMLINK);
}

/* Who may write the folder may have put anything there. */
Test(explain, nothing_but_a_small_file_is_read)
{
    char name[64];

    snprintf(name, sizeof(name), "tenant/" LEDGER_ANSWER "%u", a.slot);
    answer(1);
    cr_assert_eq(renameat(dir, name, dir, "elsewhere"), 0);
    cr_assert_eq(symlinkat("../elsewhere", dir, name), 0);
    cr_assert_eq(hear(1), -ELOOP);
    unlinkat(dir, name, 0);
    cr_assert_eq(mkfifoat(dir, name, 0600), 0);
    cr_assert_eq(hear(1), -EPROTO);
    unlinkat(dir, name, 0);
    cr_assert_eq(mkdirat(dir, name, 0700), 0);
    cr_assert_eq(hear(1), -EPROTO);
    unlinkat(dir, name, AT_REMOVEDIR);
    scratch_write(name, file, 0);
    cr_assert_eq(hear(1), -EPROTO);
    cr_assert_eq(truncate(scratch_path(name), EXPLAIN_FILE_MOST + 8), 0);
    cr_assert_eq(hear(1), -EPROTO);
}

Test(explain, damage_is_found)
{
    size_t size;

    answer(1);
    size = explain_pack(&said, file, sizeof(file));
    cr_assert(size > 0 && size % 8 == 0);
    cr_assert_eq(explain_parse(file, size, &heard), 0);
    for (size_t i = 0; i < size; i++) {
        file[i] ^= 0x10;
        cr_expect_eq(explain_parse(file, size, &heard), -EPROTO, "byte %zu", i);
        file[i] ^= 0x10;
    }
    for (size_t less = 0; less < size; less++)
        cr_expect_eq(explain_parse(file, less, &heard), -EPROTO, "%zu bytes", less);
    said.devices = LEDGER_DEVICES;
    cr_assert(explain_pack(&said, file, sizeof(file)) > 0);
    said.devices++;
    cr_assert_eq(explain_pack(&said, file, sizeof(file)), 0);
}

static bool there(const char *name)
{
    return access(scratch_path(name), F_OK) == 0;
}

/* Who is killed leaves its answer behind: until the tenant begins anew, or its folder goes. */
Test(explain, answers_of_the_dead_are_swept)
{
    pid_t child;
    int status;

    ledger_detach(&a);
    for (unsigned own = 0; own < 2; own++) {
        child = fork();
        if (child == 0) {
            if (ledger_attach(&a, dir, own ? NULL : "tenant") == 0)
                answer(1);
            kill(getpid(), SIGKILL);
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
    }
    cr_assert(there("tenant/explain-0"));
    snprintf(file, sizeof(file), "ls %s/proc-*/explain-0 >/dev/null", scratch);
    cr_assert_eq(system(file), 0);
    cr_assert_eq(ledger_attach(&a, dir, "tenant"), 0);
    cr_assert_not(there("tenant/explain-0"));
    snprintf(file, sizeof(file), "! ls %s | grep proc-", scratch);
    cr_assert_eq(system(file), 0, "the folder of a process of its own was not collected");
}

Test(explain, leaves_with_the_member)
{
    answer(1);
    cr_assert(there("tenant/explain-0"));
    ledger_detach(&a);
    cr_assert_not(there("tenant/explain-0"));
}
