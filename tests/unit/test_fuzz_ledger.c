/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's fuzz target on its seeds and on a fixed sequence of mutations of them: the same inputs on every machine. */
#include "../fuzz/fuzz_ledger.c"

#include <criterion/criterion.h>

#define SEEDS     6
#define INPUT_MAX 1024
#define MUTATIONS 1500

struct input {
    uint8_t bytes[INPUT_MAX];
    size_t size;
};

static struct input seeds[SEEDS];
static uint64_t random_state = 1;

static unsigned random_below(size_t bound)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((random_state >> 33) % bound);
}

static void read_seeds(void)
{
    static const char *const names[SEEDS] = {"v1_0", "v1_1", "v1_2", "v1_3", "own", "newer"};

    for (unsigned i = 0; i < SEEDS; i++) {
        char path[64];
        FILE *file;

        snprintf(path, sizeof(path), "tests/fuzz/ledger/%s", names[i]);
        file = fopen(path, "r");
        cr_assert(file != NULL, "%s is not here: tests run in the root of the repository", path);
        seeds[i].size = fread(seeds[i].bytes, 1, INPUT_MAX, file);
        fclose(file);
        cr_assert_gt(seeds[i].size, LEDGER_CONSTANT_SIZE);
    }
}

/* A few changes, of the header half of the time: bits, numbers at the ends of their range, cuts, pieces of other seeds. */
static void mutate(struct input *input)
{
    static const uint64_t numbers[] = {0, 1, 7, 8, 4095, 4096, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 47, UINT64_C(1) << 63};

    for (unsigned n = 1 + random_below(4); n > 0; n--) {
        size_t at = random_below(random_below(2) ? LEDGER_CONSTANT_SIZE - 8 : input->size - 8);
        const struct input *other = &seeds[random_below(SEEDS)];

        switch (random_below(5)) {
        case 0:
            input->bytes[at] ^= (uint8_t)(1u << random_below(8));
            break;
        case 1:
            memcpy(input->bytes + (at & ~(size_t)3), &numbers[random_below(10)], random_below(2) ? 4 : 8);
            break;
        case 2:
            memcpy(input->bytes + at, other->bytes + random_below(other->size - 8), 8);
            break;
        case 3:
            input->bytes[at] = (uint8_t)(input->bytes[at] + 1 + random_below(2) * 254);
            break;
        default:
            input->size = LEDGER_CONSTANT_SIZE + random_below(input->size - LEDGER_CONSTANT_SIZE + 1);
            input->size = input->size < LEDGER_CONSTANT_SIZE + 12 ? LEDGER_CONSTANT_SIZE + 12 : input->size;
        }
    }
}

Test(fuzz_ledger, seeds, .init = read_seeds, .timeout = 60)
{
    for (unsigned i = 0; i < SEEDS; i++)
        cr_expect(LLVMFuzzerTestOneInput(seeds[i].bytes, seeds[i].size) == 0);
}

Test(fuzz_ledger, mutations, .init = read_seeds, .timeout = 300)
{
    static struct input input;

    for (unsigned i = 0; i < MUTATIONS; i++) {
        input = seeds[random_below(SEEDS)];
        mutate(&input);
        cr_expect(LLVMFuzzerTestOneInput(input.bytes, input.size) == 0);
    }
}
