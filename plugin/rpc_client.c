/* SPDX-License-Identifier: Apache-2.0 */
/* A unary call: a connection of its own, for one stream. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "rpc_internal.h"

#define TIMEOUT_MAX 99999999 /* ms: eight digits are what a header has room for */

struct call {
    const char *path; /* of the socket */
    int fd;
    int64_t until;
    nghttp2_session *session;
    int32_t stream;
    bool blocked; /* the socket takes no more for now */
    struct rpc_message *request;
    size_t sent;
    struct rpc_reader reader;
    struct rpc_reply *reply;
    int http_status, status; /* -1: not said */
    bool grpc;               /* it answers in gRPC */
    bool done;               /* the stream has ended, or need not be read on */
};

/* ---- what the stream came to */

static enum rpc_code code_of_http(int status)
{
    switch (status) {
    case 400:
        return RPC_INTERNAL;
    case 401:
        return RPC_UNAUTHENTICATED;
    case 403:
        return RPC_PERMISSION_DENIED;
    case 404:
        return RPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return RPC_UNAVAILABLE;
    default:
        return RPC_UNKNOWN;
    }
}

static enum rpc_code code_of_http2(uint32_t error)
{
    switch (error) {
    case NGHTTP2_REFUSED_STREAM:
        return RPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return RPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return RPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return RPC_PERMISSION_DENIED;
    default:
        return RPC_INTERNAL;
    }
}

/* The stream has ended, as the server wanted. */
static void judge(struct call *call)
{
    struct rpc_reply *reply = call->reply;

    call->done = true;
    if (call->status < 0) {
        rpc_fail(reply, code_of_http(call->http_status), "%s: the answer is none of gRPC: HTTP status %d", call->path,
                 call->http_status);
    } else if (call->status > 0) {
        reply->code = call->status <= RPC_UNAUTHENTICATED ? (enum rpc_code)call->status : RPC_UNKNOWN;
    } else if (!rpc_reader_end(&call->reader, reply)) {
        reply->body = call->reader.body;
        reply->length = call->reader.length;
        call->reader.body = NULL;
    }
}

/* ---- what nghttp2 tells */

static int number(const uint8_t *value, size_t length)
{
    int result = 0;

    if (!length || length > 3)
        return RPC_UNKNOWN;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return RPC_UNKNOWN;
        result = 10 * result + value[i] - '0';
    }
    return result;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t length, uint8_t flags, void *argument)
{
    struct call *call = argument;

    (void)session;
    (void)flags;
    if (frame->hd.stream_id != call->stream)
        return 0;
    if (rpc_equal(name, name_length, ":status"))
        call->http_status = number(value, length);
    else if (rpc_equal(name, name_length, "content-type"))
        call->grpc = rpc_is_grpc(value, length);
    else if (rpc_equal(name, name_length, "grpc-status"))
        call->status = number(value, length);
    else if (rpc_equal(name, name_length, "grpc-message"))
        rpc_percent_decode(call->reply->message, sizeof(call->reply->message), value, length);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length, void *argument)
{
    struct call *call = argument;

    (void)session;
    (void)flags;
    if (id == call->stream && !call->done && call->grpc)
        call->done = rpc_reader_take(&call->reader, bytes, length, RPC_REPLY_MAX, call->reply) != RPC_OK;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *argument)
{
    struct call *call = argument;

    (void)session;
    if (frame->hd.stream_id == call->stream && frame->hd.flags & NGHTTP2_FLAG_END_STREAM && !call->done &&
        (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA))
        judge(call);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *argument)
{
    struct call *call = argument;

    (void)session;
    if (id == call->stream && !call->done) {
        call->done = true;
        rpc_fail(call->reply, code_of_http2(error), "%s: the server ended the call: %s", call->path, nghttp2_http2_strerror(error));
    }
    return 0;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *bytes, size_t length, int flags, void *argument)
{
    struct call *call = argument;
    ssize_t sent = rpc_write(call->fd, bytes, length);

    (void)session;
    (void)flags;
    call->blocked = sent == NGHTTP2_ERR_WOULDBLOCK;
    return sent;
}

static ssize_t read_request(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *flags,
                            nghttp2_data_source *source, void *argument)
{
    struct call *call = argument;
    size_t length = call->request->length - call->sent;

    (void)session;
    (void)id;
    (void)source;
    if (length > size)
        length = size;
    memcpy(buffer, call->request->bytes + call->sent, length);
    call->sent += length;
    if (call->sent == call->request->length)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

/* ---- the call */

static int open_session(struct call *call, const char *method)
{
    char timeout[32];
    nghttp2_nv headers[8];
    const nghttp2_data_provider provider = {.read_callback = read_request};
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    nghttp2_session_callbacks *callbacks;
    int result = nghttp2_session_callbacks_new(&callbacks);
    int64_t left = call->until - rpc_now_ms();

    if (result)
        return result;
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    result = nghttp2_session_client_new(&call->session, callbacks, call);
    nghttp2_session_callbacks_del(callbacks);
    if (!result)
        result = nghttp2_submit_settings(call->session, NGHTTP2_FLAG_NONE, settings, 1);
    if (result)
        return result;
    snprintf(timeout, sizeof(timeout), "%dm", (int)(left < 0 ? 0 : left < TIMEOUT_MAX ? left : TIMEOUT_MAX));
    headers[0] = rpc_header(":method", "POST");
    headers[1] = rpc_header(":scheme", "http");
    headers[2] = rpc_header(":path", method);
    headers[3] = rpc_header(":authority", "localhost");
    headers[4] = rpc_header("te", "trailers");
    headers[5] = rpc_header("grpc-timeout", timeout);
    headers[6] = rpc_header("content-type", "application/grpc");
    headers[7] = rpc_header("user-agent", "softslice/" SOFTSLICE_VERSION);
    result = nghttp2_submit_request(call->session, NULL, headers, sizeof(headers) / sizeof(*headers), &provider, NULL);
    if (result < 0)
        return result;
    call->stream = result;
    return 0;
}

static enum rpc_code gone(struct call *call)
{
    return rpc_fail(call->reply, RPC_UNAVAILABLE, "%s: the server closed the connection", call->path);
}

static enum rpc_code receive(struct call *call)
{
    uint8_t bytes[RPC_CHUNK];
    ssize_t length = recv(call->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    ssize_t taken;

    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return RPC_OK;
    if (length <= 0)
        return gone(call);
    taken = nghttp2_session_mem_recv(call->session, bytes, (size_t)length);
    if (taken < 0 && !call->done)
        return rpc_fail(call->reply, RPC_INTERNAL, "%s: not HTTP/2: %s", call->path, nghttp2_strerror((int)taken));
    return RPC_OK;
}

static enum rpc_code converse(struct call *call)
{
    struct pollfd poll_fd = {.fd = call->fd};
    enum rpc_code code;

    while (!call->done) {
        int64_t left = call->until - rpc_now_ms();

        call->blocked = false;
        if (nghttp2_session_send(call->session))
            return gone(call);
        if (call->done)
            break;
        if (!nghttp2_session_want_read(call->session) && !nghttp2_session_want_write(call->session))
            return gone(call);
        poll_fd.events = (short)(POLLIN | (call->blocked ? POLLOUT : 0));
        if (left <= 0 || poll(&poll_fd, 1, (int)left) == 0)
            return rpc_fail(call->reply, RPC_DEADLINE_EXCEEDED, "%s: no answer in time", call->path);
        if (poll_fd.revents & ~POLLOUT) {
            code = receive(call);
            if (code)
                return code;
        }
    }
    return call->reply->code;
}

enum rpc_code rpc_call_on(int fd, const char *socket_path, const char *method, const uint8_t *request, size_t length, int64_t until,
                          struct rpc_reply *reply)
{
    struct call call = {.path = socket_path, .fd = fd, .until = until, .reply = reply, .status = -1};
    int result;

    call.request = rpc_message_new(request, length);
    result = call.request ? open_session(&call, method) : NGHTTP2_ERR_NOMEM;
    if (result)
        rpc_fail(reply, RPC_RESOURCE_EXHAUSTED, "%s: %s", socket_path, nghttp2_strerror(result));
    else
        converse(&call);
    nghttp2_session_del(call.session);
    rpc_reader_free(&call.reader);
    rpc_message_release(call.request);
    close(fd);
    return reply->code;
}

/* A connect() to a socket whose backlog is full waits for its turn, so it is not one that cannot block. The socket; -1 with *reply set. */
static int connect_there(const char *path, int64_t left, struct rpc_reply *reply)
{
    struct timeval patience = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
    struct sockaddr_un address;
    int result = rpc_address(&address, path);
    int fd;

    if (result) {
        rpc_fail(reply, RPC_UNAVAILABLE, "%s: %s", path, strerror(-result));
        return -1;
    }
    if (left <= 0) {
        rpc_fail(reply, RPC_DEADLINE_EXCEEDED, "%s: no time is left for the call", path);
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    result = fd < 0 ? -1 : setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    while (result == 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
        if (errno != EINTR)
            result = -1;
    }
    if (result == 0)
        return fd;
    if (fd >= 0 && errno == EAGAIN)
        rpc_fail(reply, RPC_DEADLINE_EXCEEDED, "%s: the server lets nobody in", path);
    else
        rpc_fail(reply, RPC_UNAVAILABLE, "%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

enum rpc_code rpc_call(const char *socket_path, const char *method, const uint8_t *request, size_t length, int timeout_ms,
                       struct rpc_reply *reply)
{
    int64_t until = rpc_now_ms() + timeout_ms;
    int fd;

    *reply = (struct rpc_reply){0};
    fd = connect_there(socket_path, timeout_ms, reply);
    return fd < 0 ? reply->code : rpc_call_on(fd, socket_path, method, request, length, until, reply);
}
