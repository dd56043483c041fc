/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, percentages and lists of them as people write them: 20GiB, 25%, 0=20GiB,GPU-<uuid>=25%. */
#ifndef SOFTSLICE_UNITS_H
#define SOFTSLICE_UNITS_H

#include <stddef.h>
#include <stdint.h>

enum units_kind {
    UNITS_NONE,    /* nothing was said */
    UNITS_BYTES,   /* value is bytes */
    UNITS_PERCENT, /* value is hundredths of a percent: 25 % is 2500 */
    UNITS_OFF      /* an alias said "no limit" in its own grammar */
};

struct units_amount {
    enum units_kind kind;
    uint64_t value;
};

enum units_device_kind { UNITS_DEVICE_ALL, UNITS_DEVICE_ORDINAL, UNITS_DEVICE_UUID };

/* Which device an amount is for. `ordinal` is the CUDA ordinal after CUDA_VISIBLE_DEVICES. */
struct units_device {
    enum units_device_kind kind;
    unsigned ordinal;
    uint8_t uuid[16];
};

/* Longest text that any function here writes, its NUL included. */
#define UNITS_TEXT_MAX 64

/* Parse one size: digits, optionally a fraction ("1.5GiB"), optionally a unit. B, KiB, MiB, GiB, TiB and their short forms
 * Ki, K, Mi, M, Gi, G, Ti, T mean powers of 1024 (a user who writes 20G or 20GB of HBM means GiB; KB, MB, GB, TB are refused
 * because they are ambiguous); no unit means bytes. Case-insensitive, no sign, no junk; blanks around it and before the unit are
 * allowed, so that what units_format_size() writes can be read. `len` bytes are read, no NUL needed. A fraction (up to 18 digits, not
 * of bytes) is rounded down to a whole byte. 0, -EINVAL (not a size), -ERANGE (0, or above 2^63-1). *bytes is written on success only. */
int units_parse_size(const char *text, size_t len, uint64_t *bytes);

/* Parse a percentage above 0 and up to 100, with at most two decimals and an obligatory '%', into hundredths of a percent.
 * 0, -EINVAL, -ERANGE. */
int units_parse_percent(const char *text, size_t len, uint64_t *hundredths);

/* A size or a percentage. 0, -EINVAL, -ERANGE. */
int units_parse_amount(const char *text, size_t len, struct units_amount *amount);

/* A device: an ordinal ("0" to "9999", no leading zeros) or a UUID ("GPU-" or "MIG-" and 8-4-4-4-12 hex digits, any case). 0 or -EINVAL. */
int units_parse_device(const char *text, size_t len, struct units_device *device);

/* Percent of `whole`, rounded down; bytes as they are; UINT64_MAX for NONE and OFF. */
uint64_t units_bytes_of(const struct units_amount *amount, uint64_t whole);

/* Write `bytes` for people, in the largest binary unit in which at most two decimals say it exactly ("20 GiB", "1.50 GiB",
 * "81559 MiB"); where that takes more than five digits, in the largest unit and rounded down ("1.00 GiB" for a GiB and a byte).
 * Returns `text`. No locale, no allocation. */
const char *units_format_size(char text[UNITS_TEXT_MAX], uint64_t bytes);

/* Write a UUID as the driver does, with the prefix "GPU-". Returns `text`. */
const char *units_format_uuid(char text[UNITS_TEXT_MAX], const uint8_t uuid[16]);

#endif
