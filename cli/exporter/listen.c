/* SPDX-License-Identifier: Apache-2.0 */
/* The socket that the exporter listens on. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listen.h"

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

static bool parse_port(const char *text, uint16_t *port)
{
    unsigned value = 0;

    for (const char *digit = text; *digit; digit++) {
        if (*digit < '0' || *digit > '9' || digit - text > 4)
            return false;
        value = value * 10 + (unsigned)(*digit - '0');
    }
    *port = (uint16_t)value;
    return *text && value <= UINT16_MAX;
}

/* ADDR:PORT or [ADDR]:PORT. The size of the address, 0 where it is none. */
static socklen_t parse(const char *text, union address *address)
{
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];
    size_t length = colon ? (size_t)(colon - text) : 0;
    uint16_t port;

    memset(address, 0, sizeof(*address));
    if (!colon || length >= sizeof(host) || !parse_port(colon + 1, &port))
        return 0;
    memcpy(host, text, length);
    host[length] = 0;
    if (inet_pton(AF_INET, host, &address->four.sin_addr) == 1) {
        address->four.sin_family = AF_INET;
        address->four.sin_port = htons(port);
        return sizeof(address->four);
    }
    if (length < 2 || host[0] != '[' || host[length - 1] != ']')
        return 0;
    host[length - 1] = 0;
    if (inet_pton(AF_INET6, host + 1, &address->six.sin6_addr) != 1)
        return 0;
    address->six.sin6_family = AF_INET6;
    address->six.sin6_port = htons(port);
    return sizeof(address->six);
}

static bool is_loopback(const union address *address)
{
    if (address->any.sa_family == AF_INET)
        return ntohl(address->four.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&address->six.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&address->six.sin6_addr) && address->six.sin6_addr.s6_addr[12] == 127);
}

static void name_address(const union address *address, char name[LISTEN_NAME])
{
    char host[INET6_ADDRSTRLEN];

    if (address->any.sa_family == AF_INET)
        snprintf(name, LISTEN_NAME, "%s:%u", inet_ntop(AF_INET, &address->four.sin_addr, host, sizeof(host)),
                 ntohs(address->four.sin_port));
    else
        snprintf(name, LISTEN_NAME, "[%s]:%u", inet_ntop(AF_INET6, &address->six.sin6_addr, host, sizeof(host)),
                 ntohs(address->six.sin6_port));
}

static int explain(int code, const char *text, struct cli_error *error)
{
    switch (code) {
    case EADDRINUSE:
        return cli_fail(error, -1, "exporter: cannot listen on %s: another program does; name another port with --listen", text);
    case EACCES:
    case EPERM:
        return cli_fail(error, -1, "exporter: may not listen on %s: ports below 1024 need a privilege", text);
    case EADDRNOTAVAIL:
        return cli_fail(error, -1, "exporter: cannot listen on %s: this machine has no such address", text);
    default:
        return cli_fail(error, -1, "exporter: cannot listen on %s: %s", text, strerror(code));
    }
}

int listen_begin(const char *text, struct listening *listening, struct cli_error *error)
{
    union address address;
    socklen_t size = parse(text, &address);
    int on = 1, fd;

    if (!size)
        return cli_fail(error, -1, "exporter: --listen '%s': not an address and a port (write 127.0.0.1:9877 or [::1]:9877)", text);
    fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return explain(errno, text, error);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, &address.any, size) < 0 || listen(fd, SOMAXCONN) < 0 || getsockname(fd, &address.any, &size) < 0) {
        explain(errno, text, error);
        close(fd);
        return -1;
    }
    listening->fd = fd;
    listening->loopback = is_loopback(&address);
    name_address(&address, listening->name);
    return 0;
}

bool listen_host_is_local(const char *host)
{
    union address address;
    char name[LISTEN_NAME + 16];
    const char *colon = strrchr(host, ':');

    if (strncmp(host, "localhost", 9) == 0 && (!host[9] || host[9] == ':'))
        return true;
    if (parse(host, &address))
        return true;
    /* Without a port. */
    if (strlen(host) >= LISTEN_NAME || (colon && host[strlen(host) - 1] != ']'))
        return false;
    snprintf(name, sizeof(name), "%s:80", host);
    return parse(name, &address);
}
