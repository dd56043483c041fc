/* SPDX-License-Identifier: Apache-2.0 */
/* The fuzz target on its seeds and on a fixed sequence of mutations of them: the same inputs on every machine, in about a second. */
#include "../fuzz/fuzz_config.c"

#include <criterion/criterion.h>
#include <dirent.h>

#define SEEDS     "tests/fuzz/config"
#define SEEDS_MAX 64
#define INPUT_MAX 4096
#define MUTATIONS 20000

struct input {
    uint8_t bytes[INPUT_MAX];
    size_t size;
};

static struct input seeds[SEEDS_MAX];
static unsigned seed_count;
static uint64_t state = 1;

static unsigned random_below(size_t bound)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((state >> 33) % bound);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void read_seeds(void)
{
    DIR *directory = opendir(SEEDS);
    char names[SEEDS_MAX][NAME_MAX + 1];
    unsigned count = 0;

    cr_assert(directory != NULL, "%s is not here: tests run in the root of the repository", SEEDS);
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] != '.' && count < SEEDS_MAX)
            strcpy(names[count++], entry->d_name);
    }
    closedir(directory);
    qsort(names, count, sizeof(names[0]), compare_names);
    for (unsigned i = 0; i < count; i++) {
        char path[PATH_MAX];
        FILE *file;

        snprintf(path, sizeof(path), SEEDS "/%.255s", names[i]);
        file = fopen(path, "r");
        cr_assert(file != NULL);
        seeds[i].size = fread(seeds[i].bytes, 1, INPUT_MAX, file);
        fclose(file);
    }
    seed_count = count;
    cr_assert(seed_count > 0);
}

/* A few changes of the kinds that break parsers: bits, interesting bytes, cuts, repetitions and pieces of other seeds. */
static void mutate(struct input *input)
{
    static const uint8_t bytes[] = "\0\t\n\r ;#=:,[]%.-_/0123456789GiB\x80\xff";

    for (unsigned n = 1 + random_below(6); n > 0 && input->size > 1; n--) {
        size_t at = 1 + random_below(input->size - 1);
        size_t length = 1 + random_below(input->size - at < 64 ? input->size - at : 64);
        const struct input *other = &seeds[random_below(seed_count)];

        switch (random_below(6)) {
        case 0:
            input->bytes[at] ^= (uint8_t)(1u << random_below(8));
            break;
        case 1:
            input->bytes[at] = bytes[random_below(sizeof(bytes) - 1)];
            break;
        case 2:
            memmove(input->bytes + at, input->bytes + at + length, input->size - at - length);
            input->size -= length;
            break;
        case 3:
            if (input->size + length > INPUT_MAX)
                break;
            memmove(input->bytes + at + length, input->bytes + at, input->size - at);
            input->size += length;
            break;
        case 4:
            length = length < other->size ? length : other->size;
            if (at + length <= input->size)
                memcpy(input->bytes + at, other->bytes + random_below(other->size - length + 1), length);
            break;
        default:
            input->size = at;
        }
    }
}

Test(fuzz_config, seeds, .init = read_seeds, .timeout = 60)
{
    for (unsigned i = 0; i < seed_count; i++)
        cr_expect(LLVMFuzzerTestOneInput(seeds[i].bytes, seeds[i].size) == 0);
}

Test(fuzz_config, mutations, .init = read_seeds, .timeout = 300)
{
    static struct input input;

    for (unsigned i = 0; i < MUTATIONS; i++) {
        input = seeds[random_below(seed_count)];
        mutate(&input);
        cr_expect(LLVMFuzzerTestOneInput(input.bytes, input.size) == 0);
    }
}
