/* SPDX-License-Identifier: Apache-2.0 */
/* A client's connection to a server, and what nghttp2 tells of it. Each call is a stream on it.
 *
 * What a client can make us hold is bounded: nothing is read from it while it does not read what we have for it, a stream holds two messages at most,
 * and the bytes of requests are counted for the whole server. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc_internal.h"

/* ---- what nghttp2 tells */

/* Something of nghttp2's failed. Only a lack of memory is the end of the connection: what it says besides is that the stream is gone. */
static int fatal(int result)
{
    return nghttp2_is_fatal(result) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *argument)
{
    struct rpc_connection *connection = argument;
    struct rpc_stream *stream;

    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    stream->connection = connection;
    stream->id = frame->hd.stream_id;
    LIST_INSERT_HEAD(&connection->streams, stream, link);
    return fatal(nghttp2_session_set_stream_user_data(session, stream->id, stream));
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t length, uint8_t flags, void *connection)
{
    struct rpc_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    (void)flags;
    (void)connection;
    if (stream && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        rpc_stream_header(stream, name, name_length, value, length);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length, void *connection)
{
    struct rpc_stream *stream = nghttp2_session_get_stream_user_data(session, id);

    (void)flags;
    (void)connection;
    return stream && !stream->answered ? fatal(rpc_stream_data(stream, bytes, length)) : 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *connection)
{
    bool headers = frame->hd.type == NGHTTP2_HEADERS;
    struct rpc_stream *stream;
    int result = 0;

    (void)connection;
    if (!headers && frame->hd.type != NGHTTP2_DATA)
        return 0;
    stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!stream)
        return 0;
    stream->ended = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (headers && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        result = rpc_stream_headers_end(stream);
    if (!result && stream->ended && !stream->answered)
        result = rpc_stream_end(stream);
    return fatal(result);
}

/* A client that was answered before it had sent all is told to stop. */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *connection)
{
    struct rpc_stream *stream;

    (void)connection;
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!stream || stream->ended)
        return 0;
    return fatal(nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR));
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *connection)
{
    struct rpc_stream *stream = nghttp2_session_get_stream_user_data(session, id);

    (void)error_code;
    (void)connection;
    if (stream)
        rpc_stream_free(stream);
    return 0;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *bytes, size_t length, int flags, void *argument)
{
    struct rpc_connection *connection = argument;
    ssize_t sent = rpc_write(connection->fd, bytes, length);

    (void)session;
    (void)flags;
    connection->blocked = sent == NGHTTP2_ERR_WOULDBLOCK;
    return sent;
}

/* ---- connections */

static bool open_session(struct rpc_connection *connection)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, RPC_STREAMS_MAX}};
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int result = nghttp2_session_callbacks_new(&callbacks);

    if (!result)
        result = nghttp2_option_new(&option);
    if (!result) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
        nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
        nghttp2_option_set_no_http_messaging(option, 1);
        result = nghttp2_session_server_new2(&connection->session, callbacks, connection, option);
    }
    if (!result)
        result = nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 1);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return result == 0;
}

/* False: there is no more to be had from this connection. */
static bool receive(struct rpc_connection *connection)
{
    uint8_t bytes[RPC_CHUNK];
    ssize_t length = recv(connection->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (length < 0)
        return errno == EAGAIN || errno == EINTR;
    return length && nghttp2_session_mem_recv(connection->session, bytes, (size_t)length) == length;
}

static bool flush(struct rpc_connection *connection)
{
    connection->blocked = false;
    if (nghttp2_session_send(connection->session))
        return false;
    if (!nghttp2_session_want_read(connection->session) && !nghttp2_session_want_write(connection->session))
        return false;
    rpc_watch_for(connection->server->loop, connection->watch, connection->blocked ? EPOLLOUT : EPOLLIN);
    return true;
}

static void free_connection(struct rpc_connection *connection)
{
    struct rpc_server *server = connection->server;
    struct rpc_stream *stream;

    while ((stream = LIST_FIRST(&connection->streams)))
        rpc_stream_free(stream);
    nghttp2_session_del(connection->session);
    if (connection->watch)
        rpc_watch_free(server->loop, connection->watch);
    close(connection->fd);
    TAILQ_REMOVE(&server->connections, connection, link);
    server->connection_count--;
    free(connection);
    if (server->full) {
        server->full = false;
        rpc_watch_for(server->loop, server->watch, EPOLLIN);
    }
}

static void ready(void *argument)
{
    struct rpc_connection *connection = argument;
    struct rpc_connections *all = &connection->server->connections;

    TAILQ_REMOVE(all, connection, link);
    TAILQ_INSERT_TAIL(all, connection, link);
    if ((!connection->blocked && !receive(connection)) || !flush(connection))
        free_connection(connection);
}

bool rpc_connection_new(struct rpc_server *server, int fd)
{
    struct rpc_connection *connection = calloc(1, sizeof(*connection));

    if (!connection) {
        close(fd);
        return false;
    }
    connection->server = server;
    connection->fd = fd;
    TAILQ_INSERT_TAIL(&server->connections, connection, link);
    server->connection_count++;
    connection->watch = rpc_watch_new(server->loop, fd, ready, connection);
    if (connection->watch && open_session(connection) && flush(connection))
        return true;
    free_connection(connection);
    return false;
}

void rpc_connection_send(struct rpc_connection *connection, const struct rpc_method *method, struct rpc_message *message)
{
    struct rpc_stream *stream;

    LIST_FOREACH(stream, &connection->streams, link)
    {
        if (stream->open && stream->method == method) {
            rpc_stream_send(stream, message);
            rpc_watch_for(connection->server->loop, connection->watch, EPOLLOUT);
        }
    }
}

void rpc_connection_end(struct rpc_connection *connection)
{
    if (nghttp2_session_terminate_session(connection->session, NGHTTP2_NO_ERROR) == 0)
        nghttp2_session_send(connection->session);
    free_connection(connection);
}
