/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC on unix sockets, as far as the kubelet speaks it: servers with unary and server-streaming methods, and unary calls with a deadline. Over nghttp2;
 * one thread, one loop. Messages are bytes here: what is in them is the business of who packs them (protobuf-c).
 *
 * The kubelet's gRPC sends the socket's path as `:authority`, which HTTP forbids: nghttp2's own checks of HTTP messaging are off, and what matters
 * (pseudo-headers, content-type) is checked in rpc_session.c. No message is compressed; one that is gets UNIMPLEMENTED. */
#ifndef SOFTSLICE_PLUGIN_RPC_H
#define SOFTSLICE_PLUGIN_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RPC_MESSAGE_MAX (4u << 20)  /* bytes of a request that a server takes; longer: RESOURCE_EXHAUSTED */
#define RPC_REPLY_MAX   (16u << 20) /* bytes of a reply that a call takes: the kubelet's own bound for its list of pods */

/* google.golang.org/grpc/codes */
enum rpc_code {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_OUT_OF_RANGE = 11,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_DATA_LOSS = 15,
    RPC_UNAUTHENTICATED = 16
};

/* What a method or a call came to. `body` is malloc'ed and its receiver's. `message` is for people: any bytes, percent-encoded on the wire. */
struct rpc_reply {
    enum rpc_code code;
    char message[1024];
    uint8_t *body;
    size_t length;
};

/* Set code and message; returns code. */
enum rpc_code rpc_fail(struct rpc_reply *reply, enum rpc_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
const char *rpc_code_name(enum rpc_code code);

/* A method by its path, "/v1beta1.DevicePlugin/Allocate". `call` is given the request's bytes and fills *reply. Of a streaming one the reply is the first
 * message of the stream, which stays open: rpc_server_send() sends further ones. */
struct rpc_method {
    const char *path;
    void (*call)(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply);
    bool streams;
};

struct rpc_loop;                     /* an epoll, all servers of a process in it */
struct rpc_loop *rpc_loop_new(void); /* NULL with errno set */
/* After its servers. */
void rpc_loop_free(struct rpc_loop *loop);
/* The caller's own fd in the loop: ready(argument) when it can be read. 0 or -errno. It stays the caller's, who unwatches before closing it. */
int rpc_loop_watch(struct rpc_loop *loop, int fd, void (*ready)(void *argument), void *argument);
void rpc_loop_unwatch(struct rpc_loop *loop, int fd);
/* Serve what is ready, waiting at most timeout_ms (-1: for ever). 0 or -errno; -EINTR too. May come back early, with nothing done. */
int rpc_loop_run(struct rpc_loop *loop, int timeout_ms);

struct rpc_server;
/* Listen on `path` (a socket that is there and that nobody listens on is replaced; one that somebody answers on, and any other file: -EADDRINUSE), mode
 * 0600. `methods` stays the caller's and must live as long. NULL with *error = -errno. */
struct rpc_server *rpc_server_new(struct rpc_loop *loop, const char *path, const struct rpc_method *methods, unsigned count,
                                  void *argument, int *error);
/* All its connections end; the socket is removed if it is still ours. From a watch's ready() too, but not from a method of the server. */
void rpc_server_free(struct rpc_server *server);
/* Send a message to every open stream of that path, as soon as the loop runs. The bytes are copied. A client that reads slower than this is called gets the
 * newest message next, and never those between. */
void rpc_server_send(struct rpc_server *server, const char *path, const uint8_t *message, size_t length);
/* How many streams of that path are open. */
unsigned rpc_server_streams(const struct rpc_server *server, const char *path);
/* Whether the socket in the file system is still the one that we listen on (the kubelet deletes all when it starts). */
bool rpc_server_is_there(const struct rpc_server *server);

/* A unary call, from any thread. Blocks, at most timeout_ms, without serving anybody meanwhile. Returns reply->code: the server's, RPC_UNAVAILABLE where
 * nobody listens, RPC_DEADLINE_EXCEEDED. */
enum rpc_code rpc_call(const char *socket_path, const char *method, const uint8_t *request, size_t length, int timeout_ms,
                       struct rpc_reply *reply);

#endif
