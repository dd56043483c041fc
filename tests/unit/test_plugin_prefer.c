/* SPDX-License-Identifier: Apache-2.0 */
/* Which free devices a container should get. */
#include <criterion/criterion.h>

#include "../../plugin/offer.h"

#define MOST 256

static struct settings settings;
static struct offer_device available[MOST], must[MOST], chosen[MOST];
static unsigned count, must_count;

static void add(unsigned gpu, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        available[count++] = (struct offer_device){gpu, i};
}

static unsigned prefer(unsigned size, int slice)
{
    return offer_prefer(&settings, slice, available, count, must, must_count, size, chosen);
}

static unsigned on(unsigned gpu, unsigned taken)
{
    unsigned here = 0;

    for (unsigned i = 0; i < taken; i++)
        here += chosen[i].gpu == gpu;
    return here;
}

static void begin(void)
{
    settings = (struct settings){0};
    count = must_count = 0;
}

TestSuite(plugin_prefer, .init = begin);

Test(plugin_prefer, fullest_that_still_fits)
{
    add(0, 0, 8);
    add(1, 0, 4);
    add(2, 0, 2);
    cr_expect(prefer(3, OFFER_UNITS) == 3 && on(1, 3) == 3);
    cr_expect(prefer(4, OFFER_UNITS) == 4 && on(1, 4) == 4);
    cr_expect(prefer(5, OFFER_UNITS) == 5 && on(0, 5) == 5);
    cr_expect(prefer(1, OFFER_UNITS) == 1 && on(2, 1) == 1);
}

Test(plugin_prefer, fits_nowhere)
{
    add(0, 0, 3);
    add(1, 0, 8);
    add(2, 0, 2);
    cr_expect(prefer(10, OFFER_UNITS) == 10 && on(1, 10) == 8, "as few GPUs as can be");
    cr_expect(prefer(13, OFFER_UNITS) == 13);
    cr_expect(prefer(20, OFFER_UNITS) == 13, "no more than there are");
    cr_expect(prefer(0, OFFER_UNITS) == 0);
}

Test(plugin_prefer, must_include)
{
    add(0, 0, 3);
    add(1, 0, 8);
    must[must_count++] = available[2];
    cr_expect(prefer(3, OFFER_UNITS) == 3 && on(0, 3) == 3 && chosen[0].number == 2, "on the GPU of what must be in it");
    cr_expect(prefer(4, OFFER_UNITS) == 4 && on(0, 4) == 3, "what must be in it, even where it does not fit");
    must[must_count++] = available[3];
    cr_expect(prefer(2, OFFER_UNITS) == 2 && on(0, 2) == 1 && on(1, 2) == 1);
    cr_expect(prefer(1, OFFER_UNITS) == 1, "never more than asked for");
    must[must_count++] = must[0];
    cr_expect(prefer(3, OFFER_UNITS) == 3, "one that is named twice counts once");
}

Test(plugin_prefer, each_once_whatever_comes)
{
    srand(1);
    for (unsigned round = 0; round < 300; round++) {
        unsigned taken, size = (unsigned)rand() % 40;

        begin();
        for (unsigned i = 0; i < 3; i++)
            add(i, (unsigned)rand() % 5, (unsigned)rand() % 20);
        for (unsigned i = (unsigned)rand() % 4; i && count; i--)
            must[must_count++] = available[(unsigned)rand() % count];
        settings.spread = rand() & 1;
        taken = prefer(size, rand() % 2 - 1);
        cr_expect(taken == (size < count ? size : count));
        for (unsigned i = 0; i < taken; i++) {
            for (unsigned j = 0; j < i; j++)
                cr_expect_not(chosen[i].gpu == chosen[j].gpu && chosen[i].number == chosen[j].number);
        }
    }
}

Test(plugin_prefer, slices_that_are_spread)
{
    add(0, 0, 1);
    add(1, 0, 3);
    cr_expect(prefer(1, 0) == 1 && on(0, 1) == 1);
    settings.spread = true;
    cr_expect(prefer(1, 0) == 1 && on(1, 1) == 1, "where most are free");
    cr_expect(prefer(1, OFFER_UNITS) == 1 && on(0, 1) == 1, "units are packed all the same");
}
