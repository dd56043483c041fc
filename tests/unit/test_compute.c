/* SPDX-License-Identifier: Apache-2.0 */
/* The share and the weight in force, on a real ledger: the minimum of all, whoever sets them and whenever. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_internal.h"
#include "scratch.h"
#include "softslice/compute.h"

static const struct config_device gpu = {.uuid = {1, 2, 3}, .physical = UINT64_C(80) << 30},
                                  other_gpu = {.uuid = {4}, .ordinal = 1, .physical = UINT64_C(80) << 30};
static const char *variables[16];
static int dir;

static const char *from_variables(void *context, const char *name)
{
    size_t length = strlen(name);

    (void)context;
    for (unsigned i = 0; variables[i]; i++) {
        if (!strncmp(variables[i], name, length) && variables[i][length] == '=')
            return variables[i] + length + 1;
    }
    return NULL;
}

static const struct config *load(const char *compute, const char *weight, const char *mode, const char *admin)
{
    static char text[3][64];
    static struct config config[1];
    struct config_input input = {.getenv = from_variables, .admin_file = scratch_path("admin.ini"), .admin_owner = geteuid()};
    unsigned n = 0;

    if (admin)
        scratch_write("admin.ini", admin, strlen(admin));
    variables[n++] = "SOFTSLICE_TENANT=a";
    if (compute)
        snprintf(text[0], sizeof(text[0]), "SOFTSLICE_COMPUTE=%s", compute), variables[n++] = text[0];
    if (weight)
        snprintf(text[1], sizeof(text[1]), "SOFTSLICE_WEIGHT=%s", weight), variables[n++] = text[1];
    if (mode)
        snprintf(text[2], sizeof(text[2]), "SOFTSLICE_MODE=%s", mode), variables[n++] = text[2];
    variables[n] = NULL;
    cr_assert_eq(config_load(config, &input), 0, "%s", config->error);
    return config;
}

static struct quota *join(const char *compute, const char *weight, const char *mode, const char *admin)
{
    static struct quota quotas[4];
    static unsigned joined;
    struct quota *quota = &quotas[joined++];
    const struct config *config = load(compute, weight, mode, admin);

    cr_assert_eq(ledger_attach(&quota->ledger, dir, "a"), 0, "%s", quota->ledger.error);
    cr_assert_eq(quota_add_device(quota, config, &gpu, 0), 0);
    cr_assert_eq(quota_add_device(quota, config, &other_gpu, 0), 1);
    return quota;
}

static void setup(void)
{
    scratch_make();
    cr_assert((dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
}

TestSuite(compute, .init = setup, .fini = scratch_remove, .timeout = 60);

Test(compute, share_is_the_least_of_all)
{
    struct quota *a = join("0=30%", NULL, NULL, "[gpu GPU-04000000-0000-0000-0000-000000000000]\ncompute = 70%\n"), *b;

    cr_assert_eq(compute_share(a, 0), 3000);
    cr_assert_eq(compute_share(a, 1), 7000);
    b = join("50%", NULL, NULL, NULL);
    cr_assert_eq(compute_share(b, 0), 3000, "the first one's");
    cr_assert_eq(compute_share(b, 1), 5000);
    b = join("20%", NULL, NULL, NULL);
    cr_assert_eq(compute_share(b, 0), 2000, "a joiner's own");
    cr_assert_eq(compute_tenant_share(b, 0), 3000, "binds it alone");
    cr_assert_eq(compute_share(a, 0), 3000);
}

Test(compute, set_replaces_within_the_admins)
{
    struct quota *a = join("30%", NULL, NULL, "[softslice]\ncompute = 60%\n"), *b = join("30%", NULL, NULL, NULL),
                 *c = join("10%", NULL, NULL, NULL);

    ledger_set_share(&a->ledger, 0, 5000);
    cr_assert_eq(compute_share(a, 0), 5000);
    cr_assert_eq(compute_share(b, 0), 5000);
    cr_assert_eq(compute_share(c, 0), 1000, "its own");
    ledger_set_share(&a->ledger, 0, 9000);
    cr_assert_eq(compute_share(a, 0), 6000, "the admin's");
    ledger_set_share(&b->ledger, 0, 1);
    cr_assert_eq(compute_share(a, 0), 1);
}

/* Processes that start at once: some enter the share before the first member does. */
Test(compute, set_holds_for_who_came_before_the_first)
{
    struct quota *a = join("30%", NULL, NULL, NULL), *b, *c;

    for (unsigned i = 0; i < 2; i++)
        ledger_compute(&a->ledger, i)->share = 0; /* not yet */
    b = join("30%", NULL, NULL, NULL);
    c = join("20%", NULL, NULL, NULL);
    cr_assert_eq(compute_share(b, 0), 3000);
    cr_assert_eq(compute_share(c, 0), 2000);
    ledger_enter_compute(&a->ledger, 0, 3000, 0);
    ledger_enter_compute(&a->ledger, 1, 5000, 0);
    cr_assert_eq(compute_share(b, 0), 3000);
    cr_assert_eq(compute_share(b, 1), 3000, "less than the first one's");
    cr_assert_eq(compute_tenant_share(b, 1), 5000);
    ledger_set_share(&a->ledger, 0, 8000);
    ledger_set_share(&a->ledger, 1, 8000);
    cr_assert_eq(compute_share(a, 0), 8000);
    cr_assert_eq(compute_share(b, 0), 8000, "it had set what was replaced");
    cr_assert_eq(compute_share(b, 1), 3000);
    cr_assert_eq(compute_share(c, 0), 2000);
}

/* The first member asks for none: the share of the tenant is a joiner's. */
Test(compute, set_holds_for_who_set_it)
{
    struct quota *a = join(NULL, NULL, NULL, NULL), *b = join("30%", NULL, NULL, NULL), *c = join("10%", NULL, NULL, NULL);

    cr_assert_eq(compute_share(b, 0), 3000);
    ledger_set_share(&a->ledger, 0, 8000);
    cr_assert_eq(compute_share(b, 0), 8000);
    cr_assert_eq(compute_share(c, 0), 1000);
}

/* A worker that is started again after a change, as the others were, is not bound by what was replaced. */
Test(compute, set_holds_for_who_joins_later)
{
    struct quota *a = join("30%", NULL, NULL, NULL), *b, *c;

    ledger_set_share(&a->ledger, 0, 8000);
    b = join("30%", NULL, NULL, NULL);
    c = join("20%", NULL, NULL, NULL);
    cr_assert_eq(compute_share(b, 0), 8000);
    cr_assert_eq(compute_share(c, 0), 2000);
    cr_assert_eq(compute_share(b, 1), 3000);
}

Test(compute, weight_stands_in_for_none)
{
    struct quota *a = join("30%", NULL, NULL, NULL);

    cr_assert_eq(compute_weight(a, 0), 30, "the share");
    ledger_set_share(&a->ledger, 0, 1250);
    cr_assert_eq(compute_weight(a, 0), 13);
    ledger_set_share(&a->ledger, 0, 1);
    cr_assert_eq(compute_weight(a, 0), 1);
    ledger_set_weight(&a->ledger, 0, 7);
    cr_assert_eq(compute_weight(a, 0), 7);
}

Test(compute, weight_is_the_firsts_and_the_admins_at_most)
{
    struct quota *a = join(NULL, "300", "share", "[softslice]\nweight = 200\n"), *b = join(NULL, "50", NULL, NULL);

    cr_assert_eq(compute_weight(a, 0), 200);
    cr_assert_eq(compute_weight(b, 0), 200, "one tenant has one weight");
    ledger_set_weight(&a->ledger, 0, 150);
    cr_assert_eq(compute_weight(b, 0), 150);
    ledger_set_weight(&a->ledger, 0, 250);
    cr_assert_eq(compute_weight(a, 0), 200);
    cr_assert_eq(compute_share(a, 0), SHARE_WHOLE);
}

/* Who arms no compute binds nobody, and says nothing. */
Test(compute, is_not_armed_without_a_word)
{
    struct quota *a = join(NULL, NULL, NULL, NULL);
    static struct ledger_view view;

    cr_assert_eq(compute_share(a, 0), SHARE_WHOLE);
    cr_assert_eq(ledger_read(dir, "a", &view), 0);
    cr_assert_eq(view.arms, LEDGER_ARMS_VRAM);
    join("100%", NULL, NULL, NULL);
    cr_assert_eq(ledger_read(dir, "a", &view), 0);
    cr_assert_eq(view.arms, LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE, "100 %% counts");
    cr_assert(view.device[0].compute && view.device[0].share == SHARE_WHOLE);
}

/* A ledger of an older library has no shares: each process keeps to its own. */
Test(compute, works_without_the_ledger)
{
    struct quota *a = join("30%", "40", NULL, NULL);

    a->ledger.compute_offset = 0;
    a->device[0].share_own = 3000;
    cr_assert_eq(compute_share(a, 0), 3000);
    cr_assert_eq(compute_tenant_share(a, 0), 3000);
    cr_assert_eq(compute_weight(a, 0), 40);
}

/* HAMi's monitor lifts HAMi's limit: not what the admin says, nor what somebody has set since, nor the weight. */
Test(compute, yields)
{
    struct quota *a = join("30%", NULL, NULL, "[softslice]\ncompute = 60%\n"), *b = join("10%", NULL, NULL, NULL);

    a->device[0].share_yields = b->device[0].share_yields = b->device[1].share_yields = 1;
    cr_assert_eq(compute_share(a, 0), 6000);
    cr_assert_eq(compute_tenant_share(a, 0), 6000);
    cr_assert_eq(compute_share(a, 1), 3000, "a device of which nothing was said");
    cr_assert_eq(compute_share(b, 0), b->device[0].share_admin);
    cr_assert_eq(compute_weight(a, 0), 30);
    ledger_set_share(&a->ledger, 0, 2000);
    cr_assert_eq(compute_share(a, 0), 2000, "set since");
    a->device[0].share_yields = 0;
    cr_assert_eq(compute_share(a, 0), 2000);
}
