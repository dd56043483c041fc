/* SPDX-License-Identifier: Apache-2.0 */
/* Tenants for the tests of those that look at tenants: each a member of this process, doing what a line of standard input says. Answers each line with
 * "ok" or what went wrong; ends at the end of its input, and all tenants with it.
 *
 *   tenants STATE_DIRECTORY UUID...
 *
 *   join NAME GPU LIMIT            a member of the tenant on a GPU: 0 is the first UUID. LIMIT is bytes; 0: none
 *   compute NAME GPU SHARE WEIGHT  arm compute: hundredths of a percent, and a weight or 0
 *   hold NAME GPU BYTES            what it holds from now on
 *   refuse NAME GPU                ask for more than can be had
 *   busy NAME GPU NS, throttled NAME GPU NS   add to the account
 *   limit NAME GPU LIMIT           as `softslice set` does
 *   leave NAME                     end the membership */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softslice/ledger.h"
#include "softslice/units.h"

#define TENANTS 2000

static struct tenant {
    char name[256];
    struct ledger *ledger;
    unsigned gpus, device[10];
} tenants[TENANTS];
static unsigned count;
static int directory;
static uint8_t uuids[10][16];
static unsigned gpus;

static struct tenant *find(const char *name)
{
    for (unsigned i = 0; i < count; i++) {
        if (tenants[i].ledger && strcmp(tenants[i].name, name) == 0)
            return &tenants[i];
    }
    return NULL;
}

static const char *join(const char *name, unsigned gpu, uint64_t limit)
{
    struct tenant *tenant = find(name);
    int device;

    if (!tenant) {
        if (count == TENANTS)
            return "too many";
        tenant = &tenants[count++];
        snprintf(tenant->name, sizeof(tenant->name), "%s", name);
        tenant->ledger = calloc(1, sizeof(*tenant->ledger));
        if (!tenant->ledger || ledger_attach(tenant->ledger, directory, name) != 0)
            return tenant->ledger ? tenant->ledger->error : "no memory";
        ledger_arm(tenant->ledger, LEDGER_ARMS_VRAM);
    }
    device = ledger_add_device(tenant->ledger, uuids[gpu], limit ? limit : LEDGER_NO_LIMIT);
    if (device < 0)
        return "no device";
    tenant->device[gpu] = (unsigned)device;
    tenant->gpus |= 1U << gpu;
    return "ok";
}

static const char *hold(struct ledger *ledger, unsigned device, uint64_t bytes)
{
    uint64_t own = ledger_own(ledger, device);

    if (bytes < own)
        ledger_refund(ledger, device, own - bytes);
    else if (ledger_reserve(ledger, device, bytes - own, UINT64_MAX) != 0)
        return "refused";
    else
        ledger_settle(ledger, device, bytes - own, bytes - own);
    return "ok";
}

static const char *act(const char *what, const char *name, unsigned gpu, uint64_t first, uint64_t second)
{
    struct tenant *tenant = find(name);
    struct share_account *account;
    unsigned device;

    if (strcmp(what, "join") == 0)
        return gpu < gpus ? join(name, gpu, first) : "no such GPU";
    if (!tenant || gpu >= gpus)
        return "no such tenant";
    if (strcmp(what, "leave") == 0) {
        ledger_detach(tenant->ledger);
        free(tenant->ledger);
        tenant->ledger = NULL;
        return "ok";
    }
    if (!(tenant->gpus >> gpu & 1))
        return "it has not joined that GPU";
    device = tenant->device[gpu];
    account = ledger_account(tenant->ledger, device);
    if (strcmp(what, "hold") == 0)
        return hold(tenant->ledger, device, first);
    if (strcmp(what, "compute") == 0) {
        ledger_arm(tenant->ledger, LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE);
        ledger_enter_compute(tenant->ledger, device, (uint32_t)first, (uint32_t)second);
    } else if (strcmp(what, "refuse") == 0) {
        if (ledger_reserve(tenant->ledger, device, UINT64_C(1) << 50, UINT64_MAX) == 0)
            return "granted";
        ledger_count(tenant->ledger, device, LEDGER_EVENT_REFUSED);
    } else if (strcmp(what, "busy") == 0) {
        share_count(&account->busy, first);
    } else if (strcmp(what, "throttled") == 0) {
        share_count(&account->throttled, first);
    } else if (strcmp(what, "limit") == 0) {
        ledger_set_limit(tenant->ledger, device, first);
    } else {
        return "what?";
    }
    return "ok";
}

int main(int argc, char **argv)
{
    char line[1024], what[32], name[256];
    unsigned long long first, second;
    unsigned gpu;

    if (argc < 2 || argc > 12 || (directory = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        return 2;
    for (int i = 2; i < argc; i++) {
        struct units_device device;

        if (units_parse_device(argv[i], strlen(argv[i]), &device) < 0 || device.kind != UNITS_DEVICE_UUID)
            return 2;
        memcpy(uuids[gpus++], device.uuid, 16);
    }
    while (fgets(line, sizeof(line), stdin)) {
        first = second = gpu = 0;
        if (sscanf(line, "%31s %255s %u %llu %llu", what, name, &gpu, &first, &second) < 2)
            puts("what?");
        else
            puts(act(what, name, gpu, first, second));
        fflush(stdout);
    }
    return 0;
}
