/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of a look: texts that are safe to show, rates between two looks. */
#include <stdio.h>
#include <string.h>

#include "observe.h"
#include "softslice/units.h"

/* How many bytes from `text` on are one character that may be shown; 0: none. */
static unsigned character(const unsigned char *text)
{
    uint32_t code, least;
    unsigned length;

    if (*text < 0x80)
        return *text >= 0x20 && *text != 0x7f;
    if (*text >= 0xc2 && *text <= 0xdf) {
        code = *text & 0x1f;
        length = 2;
        least = 0xa0; /* below are control characters */
    } else if (*text >= 0xe0 && *text <= 0xef) {
        code = *text & 0xf;
        length = 3;
        least = 0x800;
    } else if (*text >= 0xf0 && *text <= 0xf4) {
        code = *text & 7;
        length = 4;
        least = 0x10000;
    } else {
        return 0;
    }
    for (unsigned i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    /* Nor what is no character, ends a line or turns the direction of writing round. */
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) || (code >= 0x2028 && code <= 0x202e) ||
        (code >= 0x2066 && code <= 0x2069) || code == 0x200e || code == 0x200f)
        return 0;
    return length;
}

const char *observe_text(char *clean, size_t size, const char *text, bool ascii)
{
    static const char unknown[] = "\xef\xbf\xbd";
    size_t at = 0;

    while (*text) {
        unsigned length = character((const unsigned char *)text);
        bool good = length == 1 || (length && !ascii);
        const char *from = good ? text : ascii ? "?" : unknown;
        size_t bytes = good ? length : strlen(from);

        if (at + bytes >= size)
            break;
        memcpy(clean + at, from, bytes);
        at += bytes;
        text += length ? length : 1;
    }
    clean[at] = '\0';
    return clean;
}

void observe_uuid_text(const uint8_t uuid[16], char text[OBSERVE_UUID])
{
    char wide[UNITS_TEXT_MAX];

    snprintf(text, OBSERVE_UUID, "%.*s", OBSERVE_UUID - 1, units_format_uuid(wide, uuid));
}

/* Looked for from `place` on, where it is if nobody came or went. */
static const struct observe_tenant *find_tenant(const struct observe *seen, const struct observe_tenant *same, size_t place)
{
    for (size_t n = 0; n < seen->tenants; n++) {
        size_t i = (place + n) % seen->tenants;

        if (strcmp(seen->tenant[i].name, same->name) == 0 && strcmp(seen->tenant[i].directory, same->directory) == 0)
            return &seen->tenant[i];
    }
    return NULL;
}

bool observe_rate(const struct observe *before, const struct observe *now, const struct observe_tenant *tenant, unsigned device,
                  double *busy, double *throttled)
{
    const struct ledger_device_state *new = &tenant->view.device[device];
    const struct observe_tenant *was =
        new->compute && now->clock > before->clock ? find_tenant(before, tenant, (size_t)(tenant - now->tenant)) : NULL;

    for (unsigned i = 0; was && i < was->view.devices; i++) {
        const struct ledger_device_state *old = &was->view.device[i];
        double passed = (double)(now->clock - before->clock);

        if (memcmp(old->uuid, new->uuid, 16) != 0)
            continue;
        if (!old->compute || new->busy < old->busy || new->throttled < old->throttled)
            return false;
        *busy = (double)(new->busy - old->busy) / passed;
        *throttled = (double)(new->throttled - old->throttled) / passed;
        return true;
    }
    return false;
}
