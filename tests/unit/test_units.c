/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, percentages and devices: each row is a way in which reading them could go wrong. */
#include "softslice/units.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KIB       (UINT64_C(1) << 10)
#define MIB       (UINT64_C(1) << 20)
#define GIB       (UINT64_C(1) << 30)
#define TIB       (UINT64_C(1) << 40)
#define UNTOUCHED UINT64_C(0x5a5a5a5a5a5a5a5a)

struct row {
    const char *text;
    int rc;
    uint64_t value;
};

/* A copy with nothing behind it, so that reading past `len` is seen by ASan and not saved by a NUL. */
static int parse(int (*function)(const char *, size_t, uint64_t *), const char *text, uint64_t *value)
{
    size_t length = strlen(text);
    char *copy = malloc(length ? length : 1);
    int rc;

    memcpy(copy, text, length);
    *value = UNTOUCHED;
    rc = function(copy, length, value);
    free(copy);
    return rc;
}

static void check(int (*function)(const char *, size_t, uint64_t *), const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value;
        int rc = parse(function, rows[i].text, &value);

        cr_expect(rc == rows[i].rc, "'%s': %d, expected %d", rows[i].text, rc, rows[i].rc);
        cr_expect(value == (rows[i].rc ? UNTOUCHED : rows[i].value), "'%s': %llu, expected %llu", rows[i].text,
                  (unsigned long long)value, (unsigned long long)rows[i].value);
    }
}

#define CHECK(function, rows) check(function, rows, sizeof(rows) / sizeof((rows)[0]))

Test(units, sizes)
{
    static const struct row rows[] = {
        {"20GiB", 0, 20 * GIB},
        {"20Gi", 0, 20 * GIB},
        {"20G", 0, 20 * GIB},
        {"20g", 0, 20 * GIB},
        {"20gib", 0, 20 * GIB},
        {"512MiB", 0, 512 * MIB},
        {"4K", 0, 4 * KIB},
        {"1TiB", 0, TIB},
        {"1B", 0, 1},
        {"1", 0, 1},
        {"1073741824", 0, GIB},
        {"007", 0, 7},
        {" 20GiB\t", 0, 20 * GIB},
        {"20 GiB", 0, 20 * GIB},
        /* exact, not through a double */
        {"1.5GiB", 0, GIB + GIB / 2},
        {"0.1GiB", 0, 107374182},
        {"0.000000000931322575GiB", 0, 1},
        {"1.000000000000000001TiB", 0, TIB},
        {"7.999999999999999999TiB", 0, 8 * TIB - 1},
        {"9007199254740993", 0, UINT64_C(9007199254740993)},
        {"9223372036854775807", 0, INT64_MAX},
        {"8388607.999999999999TiB", 0, UINT64_C(9223372036854775806)},
    };

    CHECK(units_parse_size, rows);
}

Test(units, no_sizes)
{
    static const struct row rows[] = {
        {"", -EINVAL, 0},
        {" ", -EINVAL, 0},
        {"GiB", -EINVAL, 0},
        {"abc", -EINVAL, 0},
        {"3GB!", -EINVAL, 0},
        {"20GB", -EINVAL, 0}, /* 10^9 or 2^30? */
        {"20MB", -EINVAL, 0},
        {"20kb", -EINVAL, 0},
        {"20TB", -EINVAL, 0},
        {"20PiB", -EINVAL, 0},
        {"20GiBs", -EINVAL, 0},
        {"20Gi B", -EINVAL, 0},
        {"20 0GiB", -EINVAL, 0},
        {"-5", -EINVAL, 0},
        {"-5GiB", -EINVAL, 0},
        {"+5GiB", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1e9", -EINVAL, 0},
        {"1,5GiB", -EINVAL, 0},
        {"1.5", -EINVAL, 0}, /* bytes have no halves */
        {"1.5B", -EINVAL, 0},
        {".5GiB", -EINVAL, 0},
        {"1.GiB", -EINVAL, 0},
        {"1..5GiB", -EINVAL, 0},
        {"1.5.5GiB", -EINVAL, 0},
        {"1.0000000000000000001GiB", -EINVAL, 0},
        {"25%", -EINVAL, 0},
        {"20GiB\n", -EINVAL, 0},
        {"infGiB", -EINVAL, 0},
        {"20G\xc2\xa0", -EINVAL, 0},
        {"\xff", -EINVAL, 0},
        {"0", -ERANGE, 0},
        {"0GiB", -ERANGE, 0},
        {"0.0000000001GiB", -ERANGE, 0}, /* rounds down to nothing */
        {"9223372036854775808", -ERANGE, 0},
        {"18446744073709551615", -ERANGE, 0},
        {"18446744073709551616", -ERANGE, 0}, /* 2^64 is not 0 */
        {"18446744073709551617", -ERANGE, 0},
        {"20000000000000000000", -ERANGE, 0}, /* wraps to a plausible size in its last digit */
        {"8388608TiB", -ERANGE, 0},
        {"16777216TiB", -ERANGE, 0}, /* 2^64 after the shift */
        {"16777217TiB", -ERANGE, 0},
        {"17179869185GiB", -ERANGE, 0},
        {"99999999999999999999999999999999999999999GiB", -ERANGE, 0},
    };

    CHECK(units_parse_size, rows);
}

Test(units, nul_inside_is_junk)
{
    uint64_t value;

    cr_expect(units_parse_size("20\0GiB", 6, &value) == -EINVAL);
    cr_expect(units_parse_size("20GiB", 2, &value) == 0 && value == 20);
}

Test(units, percentages)
{
    static const struct row rows[] = {
        {"25%", 0, 2500},
        {"100%", 0, 10000},
        {"100.00%", 0, 10000},
        {"0.01%", 0, 1},
        {"25.5%", 0, 2550},
        {"25.05%", 0, 2505},
        {" 30 % ", 0, 3000},
        {"30", -EINVAL, 0},
        {"25.125%", -EINVAL, 0},
        {"%", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"-5%", -EINVAL, 0},
        {"abc%", -EINVAL, 0},
        {"25%%", -EINVAL, 0},
        {"25%5", -EINVAL, 0},
        {"2 5%", -EINVAL, 0},
        {"25.%", -EINVAL, 0},
        {"25,5%", -EINVAL, 0},
        {"0%", -ERANGE, 0},
        {"0.00%", -ERANGE, 0},
        {"101%", -ERANGE, 0},
        {"100.01%", -ERANGE, 0},
        {"18446744073709551617%", -ERANGE, 0},
        {"184467440737095517%", -ERANGE, 0}, /* 2^64 / 100 and a bit: must not wrap to a small share */
    };

    CHECK(units_parse_percent, rows);
}

Test(units, amounts)
{
    struct units_amount amount = {UNITS_NONE, 0};

    cr_expect(units_parse_amount("25%", 3, &amount) == 0 && amount.kind == UNITS_PERCENT && amount.value == 2500);
    cr_expect(units_parse_amount(" 1GiB ", 6, &amount) == 0 && amount.kind == UNITS_BYTES && amount.value == GIB);
    cr_expect(units_parse_amount("0%", 2, &amount) == -ERANGE);
    cr_expect(units_parse_amount("none", 4, &amount) == -EINVAL);
    cr_expect(units_parse_amount("unlimited", 9, &amount) == -EINVAL);
    cr_expect(amount.kind == UNITS_BYTES && amount.value == GIB, "a refusal changed the amount");
}

Test(units, bytes_of)
{
    const struct units_amount quarter = {UNITS_PERCENT, 2500}, all = {UNITS_PERCENT, 10000}, least = {UNITS_PERCENT, 1};
    const struct units_amount fixed = {UNITS_BYTES, 7}, none = {UNITS_NONE, 0}, off = {UNITS_OFF, 0};

    cr_expect(units_bytes_of(&quarter, 80 * GIB) == 20 * GIB);
    cr_expect(units_bytes_of(&all, UINT64_MAX) == UINT64_MAX, "overflow");
    cr_expect(units_bytes_of(&quarter, 7) == 1, "not rounded down");
    cr_expect(units_bytes_of(&least, 9999) == 0);
    cr_expect(units_bytes_of(&quarter, 0) == 0);
    cr_expect(units_bytes_of(&fixed, 80 * GIB) == 7);
    cr_expect(units_bytes_of(&none, GIB) == UINT64_MAX);
    cr_expect(units_bytes_of(&off, GIB) == UINT64_MAX);
}

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

Test(units, devices)
{
    static const uint8_t uuid[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                     0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    static const char *const same[] = {"GPU-" UUID, "gpu-" UUID, "MIG-" UUID, " GPU-01234567-89AB-CDEF-0123-456789abcdef "};
    struct units_device device;

    for (size_t i = 0; i < 4; i++) {
        memset(&device, 0xff, sizeof(device));
        cr_expect(units_parse_device(same[i], strlen(same[i]), &device) == 0, "%s", same[i]);
        cr_expect(device.kind == UNITS_DEVICE_UUID && memcmp(device.uuid, uuid, 16) == 0, "%s", same[i]);
    }
    cr_expect(units_parse_device("0", 1, &device) == 0 && device.kind == UNITS_DEVICE_ORDINAL && device.ordinal == 0);
    cr_expect(units_parse_device(" 15 ", 4, &device) == 0 && device.ordinal == 15);
}

Test(units, no_devices)
{
    static const char *const bad[] = {
        "",
        " ",
        "-1",
        "+1",
        "01",
        "1.0",
        "0x1",
        "10000",
        "4294967296",
        "all",
        "GPU",
        "GPU-",
        UUID,
        "GPU-0",
        "GPU-01234567-89ab-cdef-0123-456789abcde",   /* a digit short */
        "GPU-01234567-89ab-cdef-0123-456789abcdef0", /* and long */
        "GPU-0123456789abcdef0123456789abcdef",
        "GPU-01234567-89ab-cdef-0123-456789abcdeg",
        "GPU-012345678-9ab-cdef-0123-456789abcdef",
        "GPU-01234567-89ab-cdef-0123_456789abcdef",
        ("XYZ-" UUID),
    };
    struct units_device device = {UNITS_DEVICE_ALL, 77, {0}};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect(units_parse_device(bad[i], strlen(bad[i]), &device) == -EINVAL, "'%s'", bad[i]);
    cr_expect(device.kind == UNITS_DEVICE_ALL && device.ordinal == 77, "a refusal changed the device");
}

Test(units, format_size)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 B"},
        {1, "1 B"},
        {1023, "1023 B"},
        {KIB, "1 KiB"},
        {20 * GIB, "20 GiB"},
        {GIB + GIB / 2, "1.50 GiB"},
        {GIB + GIB / 4, "1.25 GiB"},
        {GIB + 2 * MIB, "1026 MiB"},
        {81559 * MIB, "81559 MiB"},
        {GIB + 1, "1.00 GiB"},
        {2 * GIB - 1, "1.99 GiB"}, /* never rounded up: it is a limit */
        {1536, "1.50 KiB"},
        {1537, "1537 B"},
        {UINT64_C(1) << 63, "8388608 TiB"},
        {UINT64_MAX, "16777215.99 TiB"},
    };
    char text[UNITS_TEXT_MAX];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect(strcmp(units_format_size(text, rows[i].bytes), rows[i].text) == 0, "%s, expected %s", text, rows[i].text);
}

Test(units, what_is_written_can_be_read)
{
    uint64_t state = 1;

    for (unsigned i = 0; i < 100000; i++) {
        char text[UNITS_TEXT_MAX];
        uint64_t bytes, back;

        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        bytes = state >> (1 + (state >> 58) % 63);
        bytes = bytes ? bytes : 1;
        units_format_size(text, bytes);
        cr_assert(units_parse_size(text, strlen(text), &back) == 0, "%s", text);
        cr_assert(back <= bytes && bytes - back <= bytes / 50, "%llu was written as %s", (unsigned long long)bytes, text);
    }
}

Test(units, format_uuid)
{
    struct units_device device;
    char text[UNITS_TEXT_MAX];

    cr_assert(units_parse_device("GPU-" UUID, strlen("GPU-" UUID), &device) == 0);
    cr_expect(strcmp(units_format_uuid(text, device.uuid), "GPU-" UUID) == 0, "%s", text);
}

Test(units, errno_is_kept)
{
    struct units_device device;
    uint64_t value;

    errno = 4711;
    units_parse_size("99999999999999999999", 20, &value);
    units_parse_percent("x", 1, &value);
    units_parse_device("99999", 5, &device);
    cr_expect(errno == 4711);
}
