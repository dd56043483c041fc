/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, percentages and device names as people write them, and back. */
#include "softslice/units.h"

#include <errno.h>

#include "softslice/log.h"
#include "text.h"

#define UNITS_DECIMALS_MAX 18 /* so that a fraction's numerator and denominator fit 64 bits */
#define UNITS_ORDINAL_MAX  9999
#define UNITS_WHOLE_MAX    100000 /* from here on "1.00 GiB" reads better than an exact 1048580 KiB */

/* What a number was written as: 12.50 is whole 12, fraction 50, scale 100, decimals 2. */
struct number {
    uint64_t whole, fraction, scale;
    unsigned decimals;
};

/* Cut a number off the front of *text. -EINVAL where there is none, -ERANGE where its whole part is too large. */
static int take_number(struct text *text, struct number *number)
{
    size_t i = 0;
    bool large = false;

    *number = (struct number){.scale = 1};
    for (; i < text->length && text_is_digit(text->at[i]); i++) {
        large |= __builtin_mul_overflow(number->whole, 10, &number->whole);
        large |= __builtin_add_overflow(number->whole, (uint64_t)(text->at[i] - '0'), &number->whole);
    }
    if (i == 0)
        return -EINVAL;
    if (i < text->length && text->at[i] == '.') {
        for (i++; i < text->length && text_is_digit(text->at[i]); i++) {
            if (++number->decimals > UNITS_DECIMALS_MAX)
                return -EINVAL;
            number->fraction = number->fraction * 10 + (uint64_t)(text->at[i] - '0');
            number->scale *= 10;
        }
        if (number->decimals == 0)
            return -EINVAL;
    }
    text->at += i;
    text->length -= i;
    return large ? -ERANGE : 0;
}

/* The power of two that a unit stands for, or -1. */
static int unit_shift(struct text unit)
{
    static const char letters[] = "kmgt";
    size_t i;

    if (unit.length == 0 || text_is(unit, "b"))
        return 0;
    i = text_find((struct text){letters, 4}, text_lower(unit.at[0]));
    if (i == 4)
        return -1;
    unit.at++;
    unit.length--;
    return unit.length == 0 || text_is(unit, "i") || text_is(unit, "ib") ? (int)(i + 1) * 10 : -1;
}

int units_parse_size(const char *text, size_t len, uint64_t *bytes)
{
    struct text rest = text_trim((struct text){text, len});
    struct number number;
    unsigned __int128 total;
    int rc = take_number(&rest, &number);
    int shift;

    if (rc == -EINVAL)
        return rc;
    shift = unit_shift(text_trim(rest));
    if (shift < 0 || (shift == 0 && number.decimals))
        return -EINVAL;
    if (rc < 0)
        return rc;
    total = ((unsigned __int128)number.whole << shift) + ((unsigned __int128)number.fraction << shift) / number.scale;
    if (total == 0 || total > INT64_MAX)
        return -ERANGE;
    *bytes = (uint64_t)total;
    return 0;
}

int units_parse_percent(const char *text, size_t len, uint64_t *hundredths)
{
    struct text rest = text_trim((struct text){text, len});
    struct number number;
    int rc = take_number(&rest, &number);

    if (rc == -EINVAL || !text_is(text_trim(rest), "%") || number.decimals > 2)
        return -EINVAL;
    if (rc < 0 || number.whole > 100)
        return -ERANGE;
    number.whole = number.whole * 100 + number.fraction * (100 / number.scale);
    if (number.whole == 0 || number.whole > 10000)
        return -ERANGE;
    *hundredths = number.whole;
    return 0;
}

int units_parse_amount(const char *text, size_t len, struct units_amount *amount)
{
    struct text all = text_trim((struct text){text, len});
    bool percent = all.length && all.at[all.length - 1] == '%';
    uint64_t value;
    int rc = percent ? units_parse_percent(all.at, all.length, &value) : units_parse_size(all.at, all.length, &value);

    if (rc == 0)
        *amount = (struct units_amount){percent ? UNITS_PERCENT : UNITS_BYTES, value};
    return rc;
}

static int hex_digit(char c)
{
    if (text_is_digit(c))
        return c - '0';
    c = text_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_uuid(struct text text, uint8_t uuid[16])
{
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    unsigned digits = 0;

    if (text.length != sizeof(shape) - 1)
        return -EINVAL;
    for (size_t i = 0; i < text.length; i++) {
        int digit = hex_digit(text.at[i]);

        if (shape[i] == '-') {
            if (text.at[i] != '-')
                return -EINVAL;
            continue;
        }
        if (digit < 0)
            return -EINVAL;
        uuid[digits / 2] = (uint8_t)(digits % 2 ? uuid[digits / 2] << 4 | digit : digit);
        digits++;
    }
    return 0;
}

int units_parse_device(const char *text, size_t len, struct units_device *device)
{
    struct text all = text_trim((struct text){text, len});
    struct units_device found = {.kind = UNITS_DEVICE_ORDINAL};

    if (all.length > 4 && (text_is((struct text){all.at, 4}, "GPU-") || text_is((struct text){all.at, 4}, "MIG-"))) {
        found.kind = UNITS_DEVICE_UUID;
        if (parse_uuid((struct text){all.at + 4, all.length - 4}, found.uuid) < 0)
            return -EINVAL;
        *device = found;
        return 0;
    }
    if (all.length == 0 || (all.length > 1 && all.at[0] == '0'))
        return -EINVAL;
    for (size_t i = 0; i < all.length; i++) {
        if (!text_is_digit(all.at[i]))
            return -EINVAL;
        found.ordinal = found.ordinal * 10 + (unsigned)(all.at[i] - '0');
        if (found.ordinal > UNITS_ORDINAL_MAX)
            return -EINVAL;
    }
    *device = found;
    return 0;
}

uint64_t units_bytes_of(const struct units_amount *amount, uint64_t whole)
{
    switch (amount->kind) {
    case UNITS_BYTES:
        return amount->value;
    case UNITS_PERCENT:
        return (uint64_t)((unsigned __int128)whole * amount->value / 10000);
    case UNITS_NONE:
    case UNITS_OFF:
        break;
    }
    return UINT64_MAX;
}

/* Write `bytes` in units of 1 << shift with no decimals or two; rounded down where that is not exact. */
static void format_in(char text[UNITS_TEXT_MAX], uint64_t bytes, unsigned shift)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    uint64_t rest = bytes & ((UINT64_C(1) << shift) - 1);
    unsigned hundredths = (unsigned)((unsigned __int128)rest * 100 >> shift);

    if (rest == 0)
        log_format(text, UNITS_TEXT_MAX, "%llu %s", (unsigned long long)(bytes >> shift), unit[shift / 10]);
    else
        log_format(text, UNITS_TEXT_MAX, "%llu.%u%u %s", (unsigned long long)(bytes >> shift), hundredths / 10, hundredths % 10,
                   unit[shift / 10]);
}

const char *units_format_size(char text[UNITS_TEXT_MAX], uint64_t bytes)
{
    unsigned largest = 0;

    while (largest < 40 && bytes >> (largest + 10))
        largest += 10;
    for (unsigned shift = largest;; shift -= 10) {
        unsigned __int128 hundredfold = (unsigned __int128)bytes * 100;

        if (bytes >> shift >= UNITS_WHOLE_MAX)
            break;
        if ((hundredfold & ((UINT64_C(1) << shift) - 1)) == 0) {
            format_in(text, bytes, shift);
            return text;
        }
        if (shift == 0)
            break;
    }
    format_in(text, bytes, largest);
    return text;
}

const char *units_format_uuid(char text[UNITS_TEXT_MAX], const uint8_t uuid[16])
{
    static const char hex[] = "0123456789abcdef";
    char *out = text;

    memcpy(out, "GPU-", 4);
    out += 4;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[uuid[i] >> 4];
        *out++ = hex[uuid[i] & 15];
    }
    *out = 0;
    return text;
}
