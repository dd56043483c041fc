/* SPDX-License-Identifier: Apache-2.0 */
/* What a node offers: units and slices out of the same memory, ids, parts of a GPU. */
#include <criterion/criterion.h>
#include <sys/stat.h>

#include "../../plugin/mig.h"
#include "../../plugin/offer.h"
#include "scratch.h"

#define GIB (UINT64_C(1) << 30)

static struct settings settings;
static struct slice menu[PLUGIN_SLICES];
static struct gpus gpus;
static struct offer offer, before;

static void add_gpu(uint64_t total, uint64_t reserved)
{
    struct gpu *gpu = &gpus.gpu[gpus.count];

    *gpu = (struct gpu){.minor = (int)gpus.count,
                        .gpu_instance = -1,
                        .compute_instance = -1,
                        .total = total,
                        .reserved = reserved,
                        .healthy = true};
    snprintf(gpu->uuid, sizeof(gpu->uuid), "GPU-00000000-0000-0000-0000-%012u", gpus.count++);
}

static void add_slice(const char *name, const char *vram, unsigned replicas)
{
    struct slice *slice = &menu[settings.slices++];

    snprintf(slice->name, sizeof(slice->name), "%s", name);
    cr_assert(units_parse_amount(vram, strlen(vram), &slice->vram) == 0);
    slice->replicas = replicas;
}

static void begin(void)
{
    settings = (struct settings){.reserve = GIB, .slice = menu};
    memset(&gpus, 0, sizeof(gpus));
}

/* The GPU of a replica. */
static int gpu_of(unsigned slice, unsigned replica)
{
    for (unsigned i = 0; i < offer.replicas; i++) {
        if (offer.replica[i].slice == slice && offer.replica[i].replica == replica)
            return offer.replica[i].gpu;
    }
    return -2;
}

/* No memory is in two hands, whatever is on the menu. */
static void check_sums(void)
{
    for (unsigned i = 0; i < offer.gpus; i++) {
        uint64_t sum = offer.gpu[i].units * GIB;

        for (unsigned j = 0; j < offer.replicas; j++) {
            if (offer.replica[j].gpu == (int)i)
                sum += offer_bytes(&offer, &settings, (int)offer.replica[j].slice, i, 1);
        }
        cr_expect(sum <= offer.gpu[i].room, "GPU %u: %lu of %lu", i, sum, offer.gpu[i].room);
    }
}

TestSuite(plugin_offer, .init = begin);

Test(plugin_offer, units_of_what_is_left)
{
    add_gpu(80 * GIB, 0);
    add_gpu(80 * GIB - 1, 0);
    add_gpu(80 * GIB, 3 * GIB); /* more than the reserve */
    add_gpu(GIB, 0);
    add_gpu(GIB / 2, 0);
    offer_make(&offer, &settings, &gpus, NULL);
    cr_expect(offer.gpu[0].units == 79);
    cr_expect(offer.gpu[1].units == 78);
    cr_expect(offer.gpu[2].units == 77);
    cr_expect(offer.gpu[3].units == 0 && offer.gpu[4].units == 0);
}

Test(plugin_offer, slices_are_packed_largest_first)
{
    add_gpu(41 * GIB, 0);
    add_gpu(21 * GIB, 0);
    add_slice("small", "5GiB", 5);
    add_slice("big", "20GiB", 1);
    offer_make(&offer, &settings, &gpus, NULL);
    cr_expect(gpu_of(1, 0) == 1, "the big one where it leaves nothing");
    for (unsigned i = 0; i < 5; i++)
        cr_expect(gpu_of(0, i) == 0);
    cr_expect(offer.gpu[0].units == 15 && offer.gpu[1].units == 0 && offer.unplaced == 0);
    check_sums();
}

Test(plugin_offer, slices_are_spread_when_asked)
{
    settings.spread = true;
    add_gpu(41 * GIB, 0);
    add_gpu(41 * GIB, 0);
    add_slice("small", "5GiB", 4);
    offer_make(&offer, &settings, &gpus, NULL);
    cr_expect(offer.gpu[0].sliced == 10 * GIB && offer.gpu[1].sliced == 10 * GIB);
    check_sums();
}

Test(plugin_offer, what_does_not_fit_is_not_offered)
{
    unsigned count;

    add_gpu(9 * GIB, 0);
    add_slice("half", "50%", 3);
    add_slice("huge", "100GiB", 1);
    offer_make(&offer, &settings, &gpus, NULL);
    cr_expect(offer.unplaced == 2);
    free(offer_devices(&offer, 0, &count));
    cr_expect(count == 2);
    free(offer_devices(&offer, 1, &count));
    cr_expect(count == 0);
    cr_expect(offer.gpu[0].units == 0);
    check_sums();
}

Test(plugin_offer, a_replica_stays_where_it_was)
{
    add_gpu(41 * GIB, 0);
    add_slice("small", "5GiB", 2);
    offer_make(&before, &settings, &gpus, NULL);
    /* A fuller GPU comes, in front. */
    gpus.gpu[1] = gpus.gpu[0];
    gpus.count = 0;
    add_gpu(7 * GIB, 0);
    snprintf(gpus.gpu[0].uuid, sizeof(gpus.gpu[0].uuid), "GPU-00000000-0000-0000-0000-00000000000a");
    gpus.count = 2;
    offer_make(&offer, &settings, &gpus, &before);
    cr_expect(gpu_of(0, 0) == 1 && gpu_of(0, 1) == 1);
    offer_make(&offer, &settings, &gpus, NULL);
    cr_expect(gpu_of(0, 0) == 0, "else it would be there");
}

Test(plugin_offer, sums_hold_for_any_menu)
{
    srand(1);
    for (unsigned round = 0; round < 300; round++) {
        char vram[32];

        begin();
        for (unsigned i = (unsigned)rand() % 5; i; i--)
            add_gpu((uint64_t)rand() % 100 * GIB + (uint64_t)rand(), (uint64_t)rand() % 4 * GIB);
        for (unsigned i = (unsigned)rand() % 6; i; i--) {
            snprintf(vram, sizeof(vram), i % 2 ? "%d%%" : "%dMiB", 1 + rand() % (i % 2 ? 100 : 50000));
            add_slice("s", vram, 1 + (unsigned)rand() % 9);
        }
        settings.spread = rand() & 1;
        offer_make(&offer, &settings, &gpus, round % 2 ? &before : NULL);
        check_sums();
        before = offer;
    }
}

Test(plugin_offer, ids_lead_back)
{
    static const char *const none[] = {"",
                                       "::",
                                       "::0",
                                       "GPU-00000000-0000-0000-0000-000000000000",
                                       "GPU-00000000-0000-0000-0000-000000000000::",
                                       "GPU-00000000-0000-0000-0000-000000000000::00",
                                       "GPU-00000000-0000-0000-0000-000000000000::+1",
                                       "GPU-00000000-0000-0000-0000-000000000000::4294967296",
                                       "GPU-00000000-0000-0000-0000-000000000000::80",
                                       "GPU-00000000-0000-0000-0000-000000000001::0",
                                       "gpu-00000000-0000-0000-0000-000000000000::0",
                                       "GPU-00000000-0000-0000-0000-000000000000::a-1",
                                       "GPU-00000000-0000-0000-0000-000000000000::0 "};
    struct offer_device device, found, *devices;
    char id[PLUGIN_ID];
    unsigned count;

    add_gpu(80 * GIB, 0);
    add_slice("a-1", "1GiB", 3);
    offer_make(&offer, &settings, &gpus, NULL);
    for (int slice = OFFER_UNITS; slice < 1; slice++) {
        devices = offer_devices(&offer, slice, &count);
        cr_assert(count == (slice == OFFER_UNITS ? 76 : 3));
        for (unsigned i = 0; i < count; i++) {
            offer_id(&offer, &settings, slice, devices[i], id);
            cr_expect(offer_find(&offer, &settings, slice, id, &found) && found.gpu == devices[i].gpu &&
                      found.number == devices[i].number);
            cr_expect_not(offer_find(&offer, &settings, slice == OFFER_UNITS ? 0 : OFFER_UNITS, id, &found), "of one resource");
        }
        free(devices);
        for (unsigned i = 0; i < sizeof(none) / sizeof(*none); i++)
            cr_expect_not(offer_find(&offer, &settings, slice, none[i], &device), "'%s'", none[i]);
    }
    cr_expect(offer_find(&offer, &settings, 0, "GPU-00000000-0000-0000-0000-000000000000::a-1-2", &device) && device.number == 2);
}

Test(plugin_offer, parts_of_a_gpu)
{
    add_gpu(8 * GIB, 0); /* 7 units */
    offer_make(&offer, &settings, &gpus, NULL);
    cr_expect(offer_part(&offer, 0, 7 * GIB) == 10000);
    cr_expect(offer_part(&offer, 0, GIB) == 1428, "rounded down: the parts of all are never more than the whole");
    cr_expect(offer_part(&offer, 0, 1) == 1, "never nothing");
    cr_expect(offer_part(&offer, 0, UINT64_MAX) == 10000);
}

Test(plugin_offer, capabilities_of_mig_instances)
{
    struct gpu gpu = {.minor = 2, .gpu_instance = 1, .compute_instance = 0};
    int number[2];
    char path[256];
    FILE *file;

    scratch_make();
    snprintf(path, sizeof(path), "%s/gpu2", scratch);
    mkdir(path, 0700);
    strcat(path, "/mig");
    mkdir(path, 0700);
    strcat(path, "/gi1");
    mkdir(path, 0700);
    cr_expect(mig_capabilities(scratch, &gpu, number) == 0, "the driver does not say");
    snprintf(path, sizeof(path), "%s/gpu2/mig/gi1/access", scratch);
    file = fopen(path, "w");
    fputs("DeviceFileMinor: 21\nDeviceFileMode: 292\nDeviceFileModify: 1\n", file);
    fclose(file);
    cr_expect(mig_capabilities(scratch, &gpu, number) == 1 && number[0] == 21);
    snprintf(path, sizeof(path), "%s/gpu2/mig/gi1/ci0", scratch);
    mkdir(path, 0700);
    strcat(path, "/access");
    file = fopen(path, "w");
    fputs("DeviceFileMinor: 22\n", file);
    fclose(file);
    cr_expect(mig_capabilities(scratch, &gpu, number) == 2 && number[1] == 22);
    gpu.gpu_instance = -1;
    cr_expect(mig_capabilities(scratch, &gpu, number) == 0, "no instance");
    scratch_remove();
}
