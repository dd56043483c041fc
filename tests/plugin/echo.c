/* SPDX-License-Identifier: Apache-2.0 */
/* The gRPC transport alone, for the tests to talk to: echo SOCKET serves three methods there, and does what it is told on standard input, a line each:
 *
 *     send TEXT                        to all open streams of /test.Echo/Watch
 *     fill N                           the same, N bytes
 *     call SOCKET METHOD MS [N]        a call with N bytes; prints its code, the length of its answer, and its message
 *     there                            whether the socket is still ours
 *     again                            serve anew
 *     memory                           the bytes that malloc has given out
 *
 * and prints a line for each. It ends with its standard input. */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc.h"

#define WATCH "/test.Echo/Watch"

static struct rpc_loop *loop;
static struct rpc_server *server;
static const char *path;
static bool ended;

/* "" is given back empty. */
static void echo(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    if (argument != &loop) {
        rpc_fail(reply, RPC_INTERNAL, "the argument is another");
        return;
    }
    reply->body = malloc(length + 1);
    reply->length = length;
    if (length)
        memcpy(reply->body, request, length);
}

/* The first byte is the code, the rest the message. With a body that is to be dropped. */
static void fail(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    echo(argument, request, length, reply);
    if (length)
        rpc_fail(reply, (enum rpc_code)request[0], "%.*s", (int)length - 1, (const char *)request + 1);
}

static const struct rpc_method methods[] = {
    {"/test.Echo/Echo", echo, false}, {"/test.Echo/Fail", fail, false}, {WATCH, echo, true}, {"/test.Echo/WatchFail", fail, true}};

static int serve(void)
{
    int error;

    server = rpc_server_new(loop, path, methods, sizeof(methods) / sizeof(*methods), &loop, &error);
    if (!server)
        printf("error %s\n", strerror(-error));
    else
        printf("serving\n");
    return server ? 0 : 1;
}

static uint8_t *filled(size_t length)
{
    uint8_t *bytes = malloc(length + 1);

    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(i * 7);
    return bytes;
}

static void call(const char *socket_path, const char *method, int ms, size_t length)
{
    struct rpc_reply reply;
    uint8_t *request = filled(length);

    rpc_call(socket_path, method, request, length, ms, &reply);
    printf("%s %zu %s\n", rpc_code_name(reply.code), reply.length, reply.message);
    free(request);
    free(reply.body);
}

static void obey(char *line)
{
    char socket_path[200], method[200];
    size_t length = 0;
    int ms;

    if (strncmp(line, "send ", 5) == 0) {
        rpc_server_send(server, WATCH, (const uint8_t *)line + 5, strlen(line + 5));
        printf("sent\n");
    } else if (sscanf(line, "fill %zu", &length) == 1) {
        uint8_t *bytes = filled(length);

        rpc_server_send(server, WATCH, bytes, length);
        free(bytes);
        printf("sent\n");
    } else if (sscanf(line, "call %199s %199s %d %zu", socket_path, method, &ms, &length) >= 3) {
        call(socket_path, method, ms, length);
    } else if (strcmp(line, "there") == 0) {
        printf("%d\n", rpc_server_is_there(server));
    } else if (strcmp(line, "again") == 0) {
        rpc_server_free(server);
        serve();
    } else if (strcmp(line, "memory") == 0) {
        printf("%zu\n", mallinfo2().uordblks + mallinfo2().hblkhd);
    } else {
        printf("not understood: %s\n", line);
    }
}

/* Lines are short, and come one at a time: whoever writes one waits for its answer. */
static void read_line(void *argument)
{
    char line[4096];
    ssize_t length = read(STDIN_FILENO, line, sizeof(line) - 1);

    (void)argument;
    ended = length <= 0;
    if (ended)
        return;
    line[length - 1] = '\0';
    obey(line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int result;

    if (argc != 2)
        return 2;
    path = argv[1];
    loop = rpc_loop_new();
    if (!loop || rpc_loop_watch(loop, STDIN_FILENO, read_line, NULL) || serve())
        return 1;
    fflush(stdout);
    do
        result = rpc_loop_run(loop, -1);
    while (!ended && (result == 0 || result == -EINTR));
    rpc_loop_unwatch(loop, STDIN_FILENO);
    rpc_server_free(server);
    rpc_loop_free(loop);
    return ended ? 0 : 1;
}
