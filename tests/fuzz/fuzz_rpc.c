/* SPDX-License-Identifier: Apache-2.0 */
/* What a client writes to a gRPC server of the device plugin, and what a server answers to its calls. `make fuzz` builds this with libFuzzer; tests/plugin
 * does without it.
 *
 * Input: its first byte says who sends it and how, the rest is what: as it is, or after the beginning that every connection has, or as frames of a known
 * kind on few streams. Afterwards nothing may be left of the connection. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../plugin/rpc_internal.h"

#define MUST(condition)                                                                                                            \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                        \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

/* Bits of the first byte. */
enum { BEGUN = 1, FRAMED = 2, CALLED = 4, HALF_CLOSED = 8, SENDING = 16, WATCHING = 32, SERVER = 64 };

static const char magic[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
static struct rpc_loop *loop;
static struct rpc_server *server;
static char path[64];
static int client;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void echo(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    MUST(argument == &loop && length <= RPC_MESSAGE_MAX && (length == 0 || request));
    if (length && request[0] == 'f') {
        rpc_fail(reply, RPC_NOT_FOUND, "%.*s", (int)(length - 1), (const char *)request + 1);
        return;
    }
    reply->body = malloc(length + 1);
    MUST(reply->body);
    if (length)
        memcpy(reply->body, request, length);
    reply->length = length;
}

static const struct rpc_method methods[] = {{"/e", echo, false}, {"/w", echo, true}};

static void remove_server(void)
{
    rpc_server_free(server);
    rpc_loop_free(loop);
}

static void make_server(void)
{
    int error;

    snprintf(path, sizeof(path), "/dev/shm/softslice-fuzz-rpc.%d", (int)getpid());
    loop = rpc_loop_new();
    MUST(loop);
    server = rpc_server_new(loop, path, methods, 2, &loop, &error);
    MUST(server);
    atexit(remove_server);
}

static void serve(void)
{
    uint8_t answer[4096];

    for (int i = 0; i < 4; i++) {
        MUST(rpc_loop_run(loop, 0) == 0);
        while (recv(client, answer, sizeof(answer), MSG_DONTWAIT) > 0)
            ;
    }
}

static void give(const void *bytes, size_t length)
{
    send(client, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT); /* who is to read may have hung up */
    if (server->connection_count)
        serve();
}

static void give_frame(uint8_t kind, uint8_t flags, uint8_t stream, const uint8_t *payload, size_t length)
{
    uint8_t frame[9 + 255] = {0, 0, (uint8_t)length, kind, flags, 0, 0, 0, stream};

    memcpy(frame + 9, payload, length);
    give(frame, 9 + length);
}

/* The headers of a good call of "/e" or "/w": indexed ones of HPACK's static table, and literals. */
static void give_call(uint8_t stream, char method)
{
    uint8_t block[] = "\x83\x86\x04\x02/e\x0f\x10\x10"
                      "application/grpc";

    block[5] = (uint8_t)method;
    give_frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream, block, sizeof(block) - 1);
}

/* A frame for each: kind, flags, stream, length. */
static void give_frames(const uint8_t *data, size_t size)
{
    while (size >= 4) {
        size_t length = data[3] < size - 4 ? data[3] : size - 4;

        give_frame(data[0] % 11, data[1], data[2] % 8, data + 4, length);
        data += 4 + length;
        size -= 4 + length;
    }
}

static void be_client(const uint8_t *data, size_t size)
{
    int pair[2], how = size ? data[0] : 0;

    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    client = pair[0];
    MUST(rpc_connection_new(server, pair[1]));
    if (how & BEGUN)
        give(magic, sizeof(magic));
    if (how & CALLED)
        give_call(1, 'e');
    if (how & WATCHING) {
        give_call(3, 'w');
        give_frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 3, (const uint8_t *)"\0\0\0\0\1x", 6);
    }
    if (size > 1 && how & FRAMED)
        give_frames(data + 1, size - 1);
    else if (size > 1)
        give(data + 1, size - 1);
    if (how & SENDING)
        rpc_server_send(server, "/w", data, size);
    if (how & HALF_CLOSED)
        shutdown(client, SHUT_WR);
    serve();
    close(client);
    for (int i = 0; i < 4 && server->connection_count; i++)
        MUST(rpc_loop_run(loop, 0) == 0);
    MUST(!server->connection_count && TAILQ_EMPTY(&server->connections) && !server->request_bytes);
}

/* A call whose answer is there before it begins, and then the end of the connection. */
static void be_server(const uint8_t *data, size_t size)
{
    static const char good[] = "\x88\x0f\x10\x10"
                               "application/grpc";
    struct rpc_reply reply = {0};
    int pair[2];

    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    client = pair[0];
    if (data[0] & BEGUN)
        give(magic + 24, sizeof(magic) - 24);
    if (data[0] & CALLED)
        give_frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, (const uint8_t *)good, sizeof(good) - 1);
    if (data[0] & FRAMED)
        give_frames(data + 1, size - 1);
    else
        give(data + 1, size - 1);
    shutdown(client, SHUT_WR);
    rpc_call_on(pair[1], "fuzz", "/e", data, size, rpc_now_ms() + 60000, &reply);
    MUST(reply.code <= RPC_UNAUTHENTICATED && reply.code != RPC_DEADLINE_EXCEEDED && (!reply.code || !reply.body));
    MUST(strlen(reply.message) < sizeof(reply.message) && (!reply.length || reply.body));
    free(reply.body);
    close(client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!server)
        make_server();
    if (size && data[0] & SERVER)
        be_server(data, size);
    else
        be_client(data, size);
    return 0;
}
