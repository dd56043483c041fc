/* SPDX-License-Identifier: Apache-2.0 */
/* A printf for fixed buffers that needs no locale, heap or stdio, and may be called from a signal handler.
 *
 * Conversions: %s %.*s %c %d %i %u %x %p %% and the lengths l, ll, z (%lu, %llx, %zu). No flags, width or other precision: a
 * conversion that is not known is copied as it stands, and so is everything after it. */
#include <stdint.h>

#include "softslice/log.h"

struct out {
    char *buffer;
    size_t size, length; /* length never counts the NUL and stays below size */
};

static void put(struct out *out, char c)
{
    if (out->length + 1 < out->size)
        out->buffer[out->length++] = c;
}

static void put_number(struct out *out, unsigned long long value, unsigned base)
{
    char digits[24];
    unsigned count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (count)
        put(out, digits[--count]);
}

static void put_signed(struct out *out, long long value)
{
    if (value < 0)
        put(out, '-');
    put_number(out, value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value, 10);
}

static void put_string(struct out *out, const char *string, size_t most)
{
    if (!string)
        string = "(null)";
    for (size_t i = 0; i < most && string[i]; i++)
        put(out, string[i]);
}

size_t log_vformat(char *buffer, size_t size, const char *format, va_list args)
{
    struct out out = {buffer, size, 0};

    if (size == 0)
        return 0;
    for (const char *at = format; *at; at++) {
        const char *start = at;
        size_t most = SIZE_MAX;
        unsigned longs = 0;

        if (*at != '%') {
            put(&out, *at);
            continue;
        }
        at++;
        if (at[0] == '.' && at[1] == '*') {
            int precision = va_arg(args, int);

            most = precision < 0 ? SIZE_MAX : (size_t)precision;
            at += 2;
        }
        for (; *at == 'l' || *at == 'z'; at++)
            longs += *at == 'z' ? 1 + (sizeof(size_t) > sizeof(long)) : 1;
        switch (*at) {
        case 's':
            put_string(&out, va_arg(args, const char *), most);
            break;
        case 'c':
            put(&out, (char)va_arg(args, int));
            break;
        case 'd':
        case 'i':
            put_signed(&out, longs > 1 ? va_arg(args, long long) : longs ? va_arg(args, long) : va_arg(args, int));
            break;
        case 'u':
        case 'x':
            put_number(&out,
                       longs > 1 ? va_arg(args, unsigned long long)
                       : longs   ? va_arg(args, unsigned long)
                                 : va_arg(args, unsigned),
                       *at == 'x' ? 16 : 10);
            break;
        case 'p':
            put_string(&out, "0x", SIZE_MAX);
            put_number(&out, (uintptr_t)va_arg(args, void *), 16);
            break;
        case '%':
            put(&out, '%');
            break;
        default:
            put_string(&out, start, SIZE_MAX);
            goto done;
        }
    }
done:
    out.buffer[out.length] = 0;
    return out.length;
}

size_t log_format(char *buffer, size_t size, const char *format, ...)
{
    va_list args;
    size_t length;

    va_start(args, format);
    length = log_vformat(buffer, size, format, args);
    va_end(args);
    return length;
}
