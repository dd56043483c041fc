/* SPDX-License-Identifier: Apache-2.0 */
/* The fuzz target of what status shows, on its seeds and on a fixed sequence of mutations of them: the same inputs on every machine. */
#include "../fuzz/fuzz_observe.c"

#include <criterion/criterion.h>

#define SEEDS     4
#define INPUT_MAX 1024
#define MUTATIONS 20000

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
    static const char *const names[SEEDS] = {"labels", "sections", "wrong", "name"};

    for (unsigned i = 0; i < SEEDS; i++) {
        char path[64];
        FILE *file;

        snprintf(path, sizeof(path), "tests/fuzz/observe/%s", names[i]);
        file = fopen(path, "r");
        cr_assert(file != NULL, "%s is not here: tests run in the root of the repository", path);
        seeds[i].size = fread(seeds[i].bytes, 1, INPUT_MAX / 2, file);
        fclose(file);
        cr_assert_gt(seeds[i].size, 8);
    }
}

/* Bytes changed, pieces of other seeds put in, the end cut off. */
static void mutate(struct input *input)
{
    for (unsigned n = 1 + random_below(4); n > 0 && input->size; n--) {
        const struct input *other = &seeds[random_below(SEEDS)];
        size_t at = random_below(input->size), from = random_below(other->size), length = 1 + random_below(other->size - from);

        switch (random_below(4)) {
        case 0:
            input->bytes[at] = (uint8_t)random_below(256);
            break;
        case 1:
            input->bytes[at] ^= (uint8_t)(1u << random_below(8));
            break;
        case 2:
            if (input->size + length > INPUT_MAX)
                break;
            memmove(input->bytes + at + length, input->bytes + at, input->size - at);
            memcpy(input->bytes + at, other->bytes + from, length);
            input->size += length;
            break;
        default:
            input->size = at;
        }
    }
}

Test(fuzz_observe, seeds)
{
    read_seeds();
    for (unsigned i = 0; i < SEEDS; i++)
        LLVMFuzzerTestOneInput(seeds[i].bytes, seeds[i].size);
}

Test(fuzz_observe, mutations)
{
    read_seeds();
    for (unsigned n = 0; n < MUTATIONS; n++) {
        struct input input = seeds[random_below(SEEDS)];

        mutate(&input);
        LLVMFuzzerTestOneInput(input.bytes, input.size);
    }
}
