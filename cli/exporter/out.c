/* SPDX-License-Identifier: Apache-2.0 */
/* Text that grows, and how names of any bytes get into it. */
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "observe.h"
#include "out.h"

static bool grow(struct out *out, size_t more)
{
    size_t wanted = out->size ? out->size : 4096;
    char *bytes;

    if (out->failed)
        return false;
    while (wanted - out->length < more)
        wanted *= 2;
    if (wanted == out->size)
        return true;
    bytes = realloc(out->bytes, wanted);
    if (!bytes) {
        out->failed = true;
        return false;
    }
    out->bytes = bytes;
    out->size = wanted;
    return true;
}

void out_bytes(struct out *out, const void *bytes, size_t length)
{
    if (!length || !grow(out, length))
        return;
    memcpy(out->bytes + out->length, bytes, length);
    out->length += length;
}

void out_text(struct out *out, const char *text)
{
    out_bytes(out, text, strlen(text));
}

void out_print(struct out *out, const char *format, ...)
{
    char line[1024];
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof(line))
        out->failed = true;
    else
        out_bytes(out, line, (size_t)length);
}

void out_seconds(struct out *out, uint64_t ns)
{
    out_print(out, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
}

/* As observe_text() has it, with quotes and backslashes escaped as both formats want it. */
static void out_escaped(struct out *out, const char *text)
{
    char clean[4 * PATH_MAX + 1];

    observe_text(clean, sizeof(clean), text, false);
    for (const char *rest = clean; *rest;) {
        size_t plain = strcspn(rest, "\"\\");

        out_bytes(out, rest, plain);
        rest += plain;
        if (!*rest)
            break;
        out_print(out, "\\%c", *rest++);
    }
}

void out_label(struct out *out, const char *name, const char *value)
{
    if (!*value)
        return;
    out_print(out, "%s%s=\"", out->length && !strchr("{,", out->bytes[out->length - 1]) ? "," : "", name);
    out_escaped(out, value);
    out_text(out, "\"");
}

void out_json(struct out *out, const char *text)
{
    out_text(out, "\"");
    out_escaped(out, text);
    out_text(out, "\"");
}

void out_free(struct out *out)
{
    free(out->bytes);
    *out = (struct out){0};
}
