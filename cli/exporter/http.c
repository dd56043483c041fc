/* SPDX-License-Identifier: Apache-2.0 */
/* The exporter's answers over HTTP, with libmicrohttpd. One thread answers one request after the other; whoever is slow holds a connection of bounded
 * size, and loses it when others want one. */
#include <json-c/json.h>
#include <microhttpd.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exporter.h"
#include "listen.h"
#include "page.h"
#include "softslice/clock.h"

#define CONNECTIONS     128
#define CROWDED         96                    /* from here on the oldest that asks nothing makes room */
#define IDLE_SECONDS    15                    /* without a byte */
#define CONNECTION_SIZE (32 * 1024)           /* bytes of a request's head, more is refused */
#define ANSWERS_MAX     (size_t)(64 << 20)    /* bytes of answers that are on their way; beyond it new ones wait */
#define SLOW_READER     UINT64_C(10000000000) /* ns; who takes longer to read an answer may lose it */

#define NOTHING_ALLOWED "default-src 'none'; frame-ancestors 'none'"
#define PLAIN           "text/plain; charset=utf-8"
#define METRICS         "text/plain; version=0.0.4; charset=utf-8"
#define JSON            "application/json"

static const struct exporter_request *request;
static struct MHD_Daemon *daemon_;
static struct listening listening;

/* ---- answers. Only libmicrohttpd's thread comes here */

static size_t under_way; /* bytes of all answers that exist */

struct body {
    size_t length;
    char bytes[];
};

static void free_body(void *cls)
{
    struct body *body = cls;

    under_way -= body->length;
    free(body);
}

static struct MHD_Response *with_headers(struct MHD_Response *response, const char *type, const char *policy)
{
    if (!response)
        return NULL;
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Content-Security-Policy", policy);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    return response;
}

/* A short answer in words that live as long as the program. */
static struct MHD_Response *words(const char *text)
{
    return with_headers(MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT), PLAIN,
                        NOTHING_ALLOWED);
}

/* An answer of its own; NULL where there is no memory, or too much is on its way already. */
static struct MHD_Response *answer(const void *bytes, size_t length, const char *type)
{
    struct MHD_Response *response;
    struct body *body;

    if (under_way && (length > ANSWERS_MAX || under_way > ANSWERS_MAX - length))
        return NULL;
    body = malloc(sizeof(*body) + length);
    if (!body)
        return NULL;
    body->length = length;
    memcpy(body->bytes, bytes, length);
    under_way += length;
    response = MHD_create_response_from_buffer_with_free_callback_cls(length, body->bytes, free_body, body);
    if (!response)
        free_body(body);
    return with_headers(response, type, NOTHING_ALLOWED);
}

static struct MHD_Response *answer_out(struct out *out, const char *type)
{
    struct MHD_Response *response = out->failed ? NULL : answer(out->bytes, out->length, type);

    out_free(out);
    return response;
}

static struct MHD_Response *make_metrics(const struct snapshot *snapshot)
{
    struct out out = {0};

    metrics_write(&out, snapshot, request);
    return answer_out(&out, METRICS);
}

static struct MHD_Response *make_status(const struct snapshot *snapshot)
{
    struct json_object *document = snapshot->valid ? observe_json(&snapshot->seen) : NULL;
    struct MHD_Response *response = NULL;
    struct out out = {0};
    const char *text;

    if (document) {
        text = json_object_to_json_string_ext(document, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        if (text) {
            out_text(&out, text);
            out_text(&out, "\n");
            response = answer_out(&out, JSON);
        }
        json_object_put(document);
    }
    return response;
}

/* What was made of a snapshot, or of the history, is there for all who ask until there is a newer one. */
struct made {
    struct MHD_Response *response;
    uint64_t number;
};

static struct made metrics, status, history;

static void forget(struct made *made)
{
    if (made->response)
        MHD_destroy_response(made->response);
    made->response = NULL;
}

/* Whether `made` has to be made anew for that number. */
static bool is_old(struct made *made, uint64_t number)
{
    if (made->response && made->number == number)
        return false;
    forget(made);
    made->number = number;
    return true;
}

static struct MHD_Response *take(struct made *made, struct MHD_Response *(*make)(const struct snapshot *snapshot))
{
    const struct snapshot *snapshot = snapshot_take();

    if (!snapshot)
        return NULL;
    if (is_old(made, snapshot->number))
        made->response = make(snapshot);
    snapshot_release();
    return made->response;
}

static struct MHD_Response *take_history(void)
{
    struct out out = {0};

    if (!snapshot_hold())
        return NULL;
    if (is_old(&history, history_number())) {
        history_json(&out);
        history.response = answer_out(&out, JSON);
    }
    snapshot_release();
    return history.response;
}

/* ---- connections: who waits with a request loses its place first, then who takes very long to read the answer */

struct connection {
    int fd;         /* -1: this place is free */
    bool answering; /* a request is there, else one is awaited */
    bool told;      /* to go */
    uint64_t since;
};

static struct connection connections[CONNECTIONS];
static unsigned connected;

static void make_room(uint64_t now)
{
    struct connection *oldest = NULL;

    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct connection *other = &connections[i];

        if (other->fd < 0 || other->told || (other->answering && now - other->since < SLOW_READER))
            continue;
        if (!oldest || other->answering < oldest->answering ||
            (other->answering == oldest->answering && other->since < oldest->since))
            oldest = other;
    }
    if (!oldest)
        return;
    oldest->told = true;
    shutdown(oldest->fd, SHUT_RDWR);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct connection *place = *context;
    uint64_t now = clock_now();

    (void)cls;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (place) {
            place->fd = -1;
            connected--;
        }
        return;
    }
    if (connected >= CROWDED)
        make_room(now);
    for (unsigned i = 0; i < CONNECTIONS && !place; i++)
        place = connections[i].fd < 0 ? &connections[i] : NULL;
    *context = place;
    if (!place)
        return;
    *place = (struct connection){.fd = info->connect_fd, .since = now};
    connected++;
}

static struct connection *place_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static void note(struct MHD_Connection *connection, bool answering)
{
    struct connection *place = place_of(connection);

    if (!place)
        return;
    place->answering = answering;
    place->since = clock_now();
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)context;
    (void)code;
    note(connection, false);
}

/* ---- requests */

static enum MHD_Result send_once(struct MHD_Connection *connection, unsigned code, struct MHD_Response *response)
{
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result send_made(struct MHD_Connection *connection, struct MHD_Response *response)
{
    if (!response)
        return send_once(connection, MHD_HTTP_SERVICE_UNAVAILABLE, words("cannot tell now; see /metrics or try again\n"));
    return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

static enum MHD_Result send_page(struct MHD_Connection *connection)
{
    return send_once(
        connection, MHD_HTTP_OK,
        with_headers(MHD_create_response_from_buffer(page_html_size, (void *)(uintptr_t)page_html, MHD_RESPMEM_PERSISTENT),
                     "text/html; charset=utf-8", page_policy));
}

static enum MHD_Result send_wrong_method(struct MHD_Connection *connection)
{
    struct MHD_Response *response = words("only GET and HEAD\n");

    if (response)
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    return send_once(connection, MHD_HTTP_METHOD_NOT_ALLOWED, response);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **context)
{
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");

    (void)cls;
    (void)version;
    (void)upload;
    (void)upload_size;
    note(connection, true);
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return send_wrong_method(connection);
    /* The first call is before the request's end: who answers there closes the connection. */
    if (!*context) {
        *context = connection;
        return MHD_YES;
    }
    if (listening.loopback && host && !listen_host_is_local(host))
        return send_once(connection, MHD_HTTP_FORBIDDEN, words("ask for localhost or an address\n"));
    if (strcmp(url, "/metrics") == 0)
        return send_made(connection, take(&metrics, make_metrics));
    if (strcmp(url, "/api/v1/status") == 0)
        return send_made(connection, take(&status, make_status));
    if (strcmp(url, "/api/v1/history") == 0)
        return send_made(connection, take_history());
    if (strcmp(url, "/healthz") == 0)
        return send_once(connection, MHD_HTTP_OK, words("ok\n"));
    if (strcmp(url, "/") == 0)
        return send_page(connection);
    return send_once(connection, MHD_HTTP_NOT_FOUND, words("there is no such page\n"));
}

/* ---- begin and end */

/* Others' garbage is no news. */
static void log_nothing(void *cls, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void log_nothing(void *cls, const char *format, va_list args)
{
    (void)cls;
    (void)format;
    (void)args;
}

int http_begin(const char *address, const struct exporter_request *what, char url[128], struct cli_error *error)
{
    request = what;
    for (unsigned i = 0; i < CONNECTIONS; i++)
        connections[i].fd = -1;
    if (listen_begin(address, &listening, error))
        return -1;
    daemon_ = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, NULL,
                               MHD_OPTION_EXTERNAL_LOGGER, log_nothing, NULL, MHD_OPTION_LISTEN_SOCKET, listening.fd,
                               MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_SIZE, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                               MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                               MHD_OPTION_END);
    if (!daemon_) {
        close(listening.fd);
        return cli_fail(error, -1, "exporter: cannot serve %s: no memory, thread or descriptor is left", listening.name);
    }
    snprintf(url, 128, "http://%s/", listening.name);
    return 0;
}

void http_end(void)
{
    if (!daemon_)
        return;
    MHD_stop_daemon(daemon_);
    daemon_ = NULL;
    forget(&metrics);
    forget(&status);
    forget(&history);
}
