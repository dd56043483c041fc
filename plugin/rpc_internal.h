/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the gRPC transport share: the loop's watches, servers and their connections, and messages on the wire. */
#ifndef SOFTSLICE_PLUGIN_RPC_INTERNAL_H
#define SOFTSLICE_PLUGIN_RPC_INTERNAL_H

#include <nghttp2/nghttp2.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/un.h>

#include "rpc.h"

#define RPC_CONNECTIONS_MAX 64          /* of a server */
#define RPC_STREAMS_MAX     32          /* of a connection */
#define RPC_REQUESTS_MAX    (64u << 20) /* bytes of all requests that have begun to come to a server */
#define RPC_CHUNK           (16 * 1024) /* bytes read at a time */
#define RPC_PREFIX          5           /* bytes before a message: whether it is compressed, and its length */

/* ---- rpc_loop.c */

struct rpc_watch;

/* NULL with errno set. */
struct rpc_watch *rpc_watch_new(struct rpc_loop *loop, int fd, void (*ready)(void *argument), void *argument);
/* Safe while the loop is serving: ready() is not called again. The fd stays open. */
void rpc_watch_free(struct rpc_loop *loop, struct rpc_watch *watch);
/* What it waits for from now on: EPOLLIN, EPOLLOUT, or 0 for nothing. */
void rpc_watch_for(struct rpc_loop *loop, struct rpc_watch *watch, uint32_t events);
/* Nothing for so long, then EPOLLIN. */
void rpc_watch_pause(struct rpc_loop *loop, struct rpc_watch *watch, int milliseconds);

/* CLOCK_MONOTONIC. */
int64_t rpc_now_ms(void);

/* ---- rpc_message.c */

/* A message with its prefix, as it goes out; counted, as all streams of a method are sent the same. */
struct rpc_message {
    unsigned users;
    size_t length;
    uint8_t bytes[];
};
struct rpc_message *rpc_message_new(const uint8_t *body, size_t length); /* one user; NULL: no memory */
void rpc_message_release(struct rpc_message *message);                   /* NULL too */

/* The one message of a stream, while its bytes come. All zero is empty. */
struct rpc_reader {
    uint8_t prefix[RPC_PREFIX];
    unsigned prefix_length;
    uint8_t *body;
    size_t length, got, room;
};
/* Take the next bytes. Not RPC_OK: said in *reply, and the stream is to end with it. */
enum rpc_code rpc_reader_take(struct rpc_reader *reader, const uint8_t *bytes, size_t count, size_t most, struct rpc_reply *reply);
/* At the end of the stream: whether it was one whole message. */
enum rpc_code rpc_reader_end(const struct rpc_reader *reader, struct rpc_reply *reply);
void rpc_reader_free(struct rpc_reader *reader);

/* `text` as the value of grpc-message, which is ASCII, and back. Cut where `size` ends. */
void rpc_percent_encode(char *to, size_t size, const char *text);
void rpc_percent_decode(char *to, size_t size, const uint8_t *text, size_t length);

/* ---- rpc_client.c */

/* A call on a socket that is connected, which is closed afterwards, until that moment of rpc_now_ms(). *reply has to be empty. */
enum rpc_code rpc_call_on(int fd, const char *socket_path, const char *method, const uint8_t *request, size_t length, int64_t until,
                          struct rpc_reply *reply);

/* ---- what both ends do with nghttp2 and sockets */

nghttp2_nv rpc_header(const char *name, const char *value);
bool rpc_equal(const uint8_t *bytes, size_t length, const char *text);
/* Whether it is the content-type of gRPC with messages in protobuf. */
bool rpc_is_grpc(const uint8_t *value, size_t length);
/* 0 or -ENAMETOOLONG. */
int rpc_address(struct sockaddr_un *address, const char *path);
/* What nghttp2 has for the socket. NGHTTP2_ERR_WOULDBLOCK, NGHTTP2_ERR_CALLBACK_FAILURE. */
ssize_t rpc_write(int fd, const uint8_t *bytes, size_t length);

/* ---- servers, their connections, and calls */

TAILQ_HEAD(rpc_connections, rpc_connection);

struct rpc_server {
    struct rpc_loop *loop;
    int fd;
    struct rpc_watch *watch;
    bool full; /* nobody is let in until somebody leaves */
    struct sockaddr_un address;
    dev_t device; /* of the socket in the file system */
    ino_t inode;
    const struct rpc_method *methods;
    unsigned method_count;
    void *argument;
    struct rpc_connections connections; /* whoever was heard of last is last */
    unsigned connection_count;
    size_t request_bytes;
};

struct rpc_connection {
    TAILQ_ENTRY(rpc_connection) link;
    struct rpc_server *server;
    int fd;
    struct rpc_watch *watch;
    nghttp2_session *session;
    bool blocked; /* the socket takes no more for now */
    LIST_HEAD(, rpc_stream) streams;
};

/* A call of a client. What these return is nghttp2's: 0 or an error of its. */
struct rpc_stream {
    LIST_ENTRY(rpc_stream) link;
    struct rpc_connection *connection;
    int32_t id;
    /* the request */
    unsigned pseudo; /* which of the pseudo-headers were there */
    bool malformed, regular, post, grpc;
    bool ended; /* it is all there */
    const struct rpc_method *method;
    struct rpc_reader reader;
    /* the reply */
    bool answered; /* it has begun */
    bool open;     /* one message after the other may come */
    struct rpc_message *current, *next;
    size_t sent; /* bytes of `current` */
};

/* ---- rpc_stream.c */

void rpc_stream_header(struct rpc_stream *stream, const uint8_t *name, size_t name_length, const uint8_t *value, size_t length);
int rpc_stream_headers_end(struct rpc_stream *stream);
int rpc_stream_data(struct rpc_stream *stream, const uint8_t *bytes, size_t length);
int rpc_stream_end(struct rpc_stream *stream);
/* The next message of an open stream, in the place of one that has not begun. */
void rpc_stream_send(struct rpc_stream *stream, struct rpc_message *message);
void rpc_stream_free(struct rpc_stream *stream);

/* ---- rpc_session.c */

/* Serve a client on the socket `fd`, which is the connection's from now on. False: no memory, and it is closed. */
bool rpc_connection_new(struct rpc_server *server, int fd);
/* With a goodbye to the client, if it takes one. */
void rpc_connection_end(struct rpc_connection *connection);
/* Send a message to the open streams of that method. */
void rpc_connection_send(struct rpc_connection *connection, const struct rpc_method *method, struct rpc_message *message);

#endif
