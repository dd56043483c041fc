/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's messages and statuses on the wire: what comes before a message, codes, and texts in headers. And the few things that both ends do alike. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "rpc_internal.h"

#define FIRST_ROOM 4096 /* of a message that is longer; its memory grows with what really comes */

enum rpc_code rpc_fail(struct rpc_reply *reply, enum rpc_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(reply->message, sizeof(reply->message), format, args);
    va_end(args);
    return reply->code = code;
}

const char *rpc_code_name(enum rpc_code code)
{
    static const char *const names[] = {
        [RPC_OK] = "OK",
        [RPC_CANCELLED] = "CANCELLED",
        [RPC_UNKNOWN] = "UNKNOWN",
        [RPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
        [RPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
        [RPC_NOT_FOUND] = "NOT_FOUND",
        [RPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
        [RPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
        [RPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
        [RPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
        [RPC_ABORTED] = "ABORTED",
        [RPC_OUT_OF_RANGE] = "OUT_OF_RANGE",
        [RPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
        [RPC_INTERNAL] = "INTERNAL",
        [RPC_UNAVAILABLE] = "UNAVAILABLE",
        [RPC_DATA_LOSS] = "DATA_LOSS",
        [RPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
    };

    return (unsigned)code < sizeof(names) / sizeof(*names) ? names[code] : "UNKNOWN";
}

struct rpc_message *rpc_message_new(const uint8_t *body, size_t length)
{
    struct rpc_message *message = malloc(sizeof(*message) + RPC_PREFIX + length);

    if (!message)
        return NULL;
    message->users = 1;
    message->length = RPC_PREFIX + length;
    message->bytes[0] = 0; /* not compressed */
    for (unsigned i = 0; i < 4; i++)
        message->bytes[1 + i] = (uint8_t)(length >> (24 - 8 * i));
    if (length)
        memcpy(message->bytes + RPC_PREFIX, body, length);
    return message;
}

void rpc_message_release(struct rpc_message *message)
{
    if (message && --message->users == 0)
        free(message);
}

static enum rpc_code take_prefix(struct rpc_reader *reader, size_t most, struct rpc_reply *reply)
{
    const uint8_t *prefix = reader->prefix;

    reader->length = (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];
    if (prefix[0] == 1)
        return rpc_fail(reply, RPC_UNIMPLEMENTED, "the message is compressed, which is not understood here");
    if (prefix[0] > 1)
        return rpc_fail(reply, RPC_INTERNAL, "not a gRPC message: it begins with %u", prefix[0]);
    if (reader->length > most)
        return rpc_fail(reply, RPC_RESOURCE_EXHAUSTED, "the message has %zu bytes; at most %zu are taken", reader->length, most);
    return RPC_OK;
}

static bool make_room(struct rpc_reader *reader, size_t more)
{
    size_t room = reader->room ? 2 * reader->room : FIRST_ROOM;
    uint8_t *body;

    if (reader->got + more <= reader->room)
        return true;
    if (room < reader->got + more)
        room = reader->got + more;
    if (room > reader->length)
        room = reader->length;
    body = realloc(reader->body, room);
    if (!body)
        return false;
    reader->body = body;
    reader->room = room;
    return true;
}

enum rpc_code rpc_reader_take(struct rpc_reader *reader, const uint8_t *bytes, size_t count, size_t most, struct rpc_reply *reply)
{
    while (count && reader->prefix_length < RPC_PREFIX) {
        reader->prefix[reader->prefix_length++] = *bytes++;
        count--;
        if (reader->prefix_length == RPC_PREFIX && take_prefix(reader, most, reply))
            return reply->code;
    }
    if (!count)
        return RPC_OK;
    if (count > reader->length - reader->got)
        return rpc_fail(reply, RPC_UNIMPLEMENTED, "more than one message");
    if (!make_room(reader, count))
        return rpc_fail(reply, RPC_RESOURCE_EXHAUSTED, "no memory for a message of %zu bytes", reader->length);
    memcpy(reader->body + reader->got, bytes, count);
    reader->got += count;
    return RPC_OK;
}

enum rpc_code rpc_reader_end(const struct rpc_reader *reader, struct rpc_reply *reply)
{
    if (!reader->prefix_length)
        return rpc_fail(reply, RPC_UNIMPLEMENTED, "no message");
    if (reader->prefix_length < RPC_PREFIX)
        return rpc_fail(reply, RPC_INTERNAL, "the message ends in its prefix");
    if (reader->got < reader->length)
        return rpc_fail(reply, RPC_INTERNAL, "the message ends after %zu of its %zu bytes", reader->got, reader->length);
    return RPC_OK;
}

void rpc_reader_free(struct rpc_reader *reader)
{
    free(reader->body);
    *reader = (struct rpc_reader){0};
}

void rpc_percent_encode(char *to, size_t size, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    char *end = to + size - 1;

    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte >= ' ' && byte <= '~' && byte != '%') {
            if (end - to < 1)
                break;
            *to++ = (char)byte;
        } else {
            if (end - to < 3)
                break;
            *to++ = '%';
            *to++ = digits[byte >> 4];
            *to++ = digits[byte & 15];
        }
    }
    *to = '\0';
}

static int hex(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* What is no escape stays as it is, as the specification of gRPC asks. A text of ours ends at a NUL. */
void rpc_percent_decode(char *to, size_t size, const uint8_t *text, size_t length)
{
    size_t at = 0;

    for (size_t i = 0; i < length && at + 1 < size; i++) {
        bool escaped = text[i] == '%' && length - i > 2 && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0;

        to[at++] = (char)(escaped ? hex(text[i + 1]) << 4 | hex(text[i + 2]) : text[i]);
        if (escaped)
            i += 2;
    }
    to[at] = '\0';
}

nghttp2_nv rpc_header(const char *name, const char *value)
{
    return (nghttp2_nv){.name = (uint8_t *)name, .namelen = strlen(name), .value = (uint8_t *)value, .valuelen = strlen(value)};
}

bool rpc_equal(const uint8_t *bytes, size_t length, const char *text)
{
    return length == strlen(text) && memcmp(bytes, text, length) == 0;
}

bool rpc_is_grpc(const uint8_t *value, size_t length)
{
    const uint8_t *parameters = memchr(value, ';', length);

    if (parameters)
        length = (size_t)(parameters - value);
    while (length && value[length - 1] == ' ')
        length--;
    return rpc_equal(value, length, "application/grpc") || rpc_equal(value, length, "application/grpc+proto");
}

int rpc_address(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    strcpy(address->sun_path, path);
    return 0;
}

ssize_t rpc_write(int fd, const uint8_t *bytes, size_t length)
{
    ssize_t sent;

    do
        sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN ? NGHTTP2_ERR_WOULDBLOCK : NGHTTP2_ERR_CALLBACK_FAILURE;
}
