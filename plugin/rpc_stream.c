/* SPDX-License-Identifier: Apache-2.0 */
/* A call of a client to a server: its request as it comes, the method, and the reply. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc_internal.h"

enum { METHOD = 1, PATH = 2, SCHEME = 4, AUTHORITY = 8, NEEDED = METHOD | PATH | SCHEME };

/* ---- replies */

static void drop_request(struct rpc_stream *stream)
{
    stream->connection->server->request_bytes -= stream->reader.got;
    rpc_reader_free(&stream->reader);
}

/* A failure is all headers. */
static int answer_failure(struct rpc_stream *stream, const char *http_status, const struct rpc_reply *reply)
{
    char code[16], message[3 * sizeof(reply->message)];
    nghttp2_nv headers[4];

    snprintf(code, sizeof(code), "%d", reply->code);
    rpc_percent_encode(message, sizeof(message), reply->message);
    headers[0] = rpc_header(":status", http_status);
    headers[1] = rpc_header("content-type", "application/grpc");
    headers[2] = rpc_header("grpc-status", code);
    headers[3] = rpc_header("grpc-message", message);
    stream->answered = true;
    drop_request(stream);
    return nghttp2_submit_response(stream->connection->session, stream->id, headers, sizeof(headers) / sizeof(*headers), NULL);
}

/* The next bytes of a stream, for nghttp2. */
static ssize_t read_messages(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size, uint32_t *flags,
                             nghttp2_data_source *source, void *connection)
{
    struct rpc_stream *stream = source->ptr;
    nghttp2_nv trailer = rpc_header("grpc-status", "0");
    size_t length;

    (void)connection;
    if (!stream->current) {
        stream->current = stream->next;
        stream->next = NULL;
        stream->sent = 0;
    }
    if (!stream->current)
        return NGHTTP2_ERR_DEFERRED;
    length = stream->current->length - stream->sent;
    if (length > size)
        length = size;
    memcpy(buffer, stream->current->bytes + stream->sent, length);
    stream->sent += length;
    if (stream->sent == stream->current->length) {
        rpc_message_release(stream->current);
        stream->current = NULL;
        if (!stream->open) {
            *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (nghttp2_submit_trailer(session, id, &trailer, 1))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)length;
}

static int answer(struct rpc_stream *stream, struct rpc_reply *reply)
{
    nghttp2_nv headers[] = {rpc_header(":status", "200"), rpc_header("content-type", "application/grpc")};
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_messages};

    if (!reply->code) {
        stream->next = rpc_message_new(reply->body, reply->length);
        if (!stream->next)
            rpc_fail(reply, RPC_RESOURCE_EXHAUSTED, "no memory for a reply of %zu bytes", reply->length);
    }
    free(reply->body);
    if (reply->code)
        return answer_failure(stream, "200", reply);
    stream->answered = true;
    stream->open = stream->method->streams;
    drop_request(stream);
    return nghttp2_submit_response(stream->connection->session, stream->id, headers, sizeof(headers) / sizeof(*headers), &provider);
}

void rpc_stream_send(struct rpc_stream *stream, struct rpc_message *message)
{
    rpc_message_release(stream->next);
    stream->next = message;
    message->users++;
    nghttp2_session_resume_data(stream->connection->session, stream->id);
}

/* ---- requests */

static const struct rpc_method *find_method(const struct rpc_server *server, const uint8_t *path, size_t length)
{
    for (unsigned i = 0; i < server->method_count; i++) {
        if (rpc_equal(path, length, server->methods[i].path))
            return &server->methods[i];
    }
    return NULL;
}

/* Each of the pseudo-headers comes once, and before all others. */
static unsigned pseudo_header(const uint8_t *name, size_t length)
{
    if (rpc_equal(name, length, ":method"))
        return METHOD;
    if (rpc_equal(name, length, ":path"))
        return PATH;
    if (rpc_equal(name, length, ":scheme"))
        return SCHEME;
    return rpc_equal(name, length, ":authority") ? AUTHORITY : 0;
}

void rpc_stream_header(struct rpc_stream *stream, const uint8_t *name, size_t name_length, const uint8_t *value, size_t length)
{
    unsigned pseudo = pseudo_header(name, name_length);

    if (name_length && name[0] == ':') {
        if (!pseudo || stream->pseudo & pseudo || stream->regular)
            stream->malformed = true;
        stream->pseudo |= pseudo;
    } else {
        stream->regular = true;
    }
    if (pseudo == METHOD)
        stream->post = rpc_equal(value, length, "POST");
    else if (pseudo == PATH)
        stream->method = find_method(stream->connection->server, value, length);
    else if (rpc_equal(name, name_length, "content-type"))
        stream->grpc = rpc_is_grpc(value, length);
}

int rpc_stream_headers_end(struct rpc_stream *stream)
{
    struct rpc_reply reply = {0};

    if (stream->malformed || (stream->pseudo & NEEDED) != NEEDED) {
        stream->answered = true;
        return nghttp2_submit_rst_stream(stream->connection->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_PROTOCOL_ERROR);
    }
    if (!stream->post) {
        rpc_fail(&reply, RPC_INTERNAL, "not a call of gRPC: the method is not POST");
        return answer_failure(stream, "405", &reply);
    }
    if (!stream->grpc) {
        rpc_fail(&reply, RPC_INVALID_ARGUMENT, "not a call of gRPC: the content-type is not application/grpc");
        return answer_failure(stream, "415", &reply);
    }
    if (!stream->method) {
        rpc_fail(&reply, RPC_UNIMPLEMENTED, "no such method here");
        return answer_failure(stream, "200", &reply);
    }
    return 0;
}

int rpc_stream_data(struct rpc_stream *stream, const uint8_t *bytes, size_t length)
{
    size_t *all = &stream->connection->server->request_bytes, before = stream->reader.got;
    struct rpc_reply reply = {0};

    if (length > RPC_REQUESTS_MAX - *all)
        rpc_fail(&reply, RPC_RESOURCE_EXHAUSTED, "too many large requests at a time");
    else
        rpc_reader_take(&stream->reader, bytes, length, RPC_MESSAGE_MAX, &reply);
    *all += stream->reader.got - before;
    return reply.code ? answer_failure(stream, "200", &reply) : 0;
}

int rpc_stream_end(struct rpc_stream *stream)
{
    struct rpc_reply reply = {0};

    if (!rpc_reader_end(&stream->reader, &reply))
        stream->method->call(stream->connection->server->argument, stream->reader.body, stream->reader.length, &reply);
    return answer(stream, &reply);
}

void rpc_stream_free(struct rpc_stream *stream)
{
    drop_request(stream);
    rpc_message_release(stream->current);
    rpc_message_release(stream->next);
    LIST_REMOVE(stream, link);
    free(stream);
}
