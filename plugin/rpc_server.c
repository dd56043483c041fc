/* SPDX-License-Identifier: Apache-2.0 */
/* A server: its socket in the file system, and who is let in. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc_internal.h"

#define BREATHER_MS 100 /* until the next try to accept, where the process or the system is out of descriptors or memory */

/* ---- the socket's file */

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd >= 0 ? fd : -errno;
}

/* Whether it is a socket that nobody listens on. */
static bool is_left_over(const struct sockaddr_un *address)
{
    struct stat file;
    bool refused;
    int fd;

    if (lstat(address->sun_path, &file) || !S_ISSOCK(file.st_mode))
        return false;
    fd = new_socket();
    if (fd < 0)
        return false;
    refused = connect(fd, (const struct sockaddr *)address, sizeof(*address)) && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int listen_there(struct rpc_server *server)
{
    const struct sockaddr *address = (const struct sockaddr *)&server->address;
    struct stat file;
    int result;

    /* The kernel makes the file with the mode of the socket. */
    if (fchmod(server->fd, 0600))
        return -errno;
    result = bind(server->fd, address, sizeof(server->address)) ? -errno : 0;
    if (result == -EADDRINUSE && is_left_over(&server->address) && unlink(server->address.sun_path) == 0)
        result = bind(server->fd, address, sizeof(server->address)) ? -errno : 0;
    if (result)
        return result;
    if (lstat(server->address.sun_path, &file))
        return -errno;
    server->device = file.st_dev;
    server->inode = file.st_ino;
    return listen(server->fd, SOMAXCONN) ? -errno : 0;
}

/* The number of a file that is removed is not given to another while it is a socket of ours. */
bool rpc_server_is_there(const struct rpc_server *server)
{
    struct stat file;

    return server->inode && lstat(server->address.sun_path, &file) == 0 && file.st_dev == server->device &&
           file.st_ino == server->inode;
}

/* ---- who is let in */

/* End the connection that has been without a call for longest. False: all are busy. */
static bool make_room(struct rpc_server *server)
{
    struct rpc_connection *connection;

    TAILQ_FOREACH(connection, &server->connections, link)
    {
        if (LIST_EMPTY(&connection->streams)) {
            rpc_connection_end(connection);
            return true;
        }
    }
    return false;
}

static void let_in(void *argument)
{
    struct rpc_server *server = argument;
    int fd;

    if (server->connection_count >= RPC_CONNECTIONS_MAX && !make_room(server)) {
        server->full = true;
        rpc_watch_for(server->loop, server->watch, 0);
        return;
    }
    fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        rpc_connection_new(server, fd);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        rpc_watch_pause(server->loop, server->watch, BREATHER_MS);
}

/* ---- servers */

struct rpc_server *rpc_server_new(struct rpc_loop *loop, const char *path, const struct rpc_method *methods, unsigned count,
                                  void *argument, int *error)
{
    struct rpc_server *server = calloc(1, sizeof(*server));

    if (!server) {
        *error = -ENOMEM;
        return NULL;
    }
    *server = (struct rpc_server){.loop = loop, .methods = methods, .method_count = count, .argument = argument};
    TAILQ_INIT(&server->connections);
    server->fd = new_socket();
    *error = server->fd < 0 ? server->fd : rpc_address(&server->address, path);
    if (!*error)
        *error = listen_there(server);
    if (!*error) {
        errno = ENOMEM;
        server->watch = rpc_watch_new(loop, server->fd, let_in, server);
        *error = server->watch ? 0 : -errno;
    }
    if (*error) {
        rpc_server_free(server);
        return NULL;
    }
    return server;
}

void rpc_server_free(struct rpc_server *server)
{
    struct rpc_connection *connection;

    if (!server)
        return;
    if (server->watch)
        rpc_watch_free(server->loop, server->watch);
    if (rpc_server_is_there(server))
        unlink(server->address.sun_path);
    if (server->fd >= 0)
        close(server->fd);
    server->full = false;
    while ((connection = TAILQ_FIRST(&server->connections)))
        rpc_connection_end(connection);
    free(server);
}

unsigned rpc_server_streams(const struct rpc_server *server, const char *path)
{
    const struct rpc_connection *connection;
    const struct rpc_stream *stream;
    unsigned count = 0;

    TAILQ_FOREACH(connection, &server->connections, link)
    {
        LIST_FOREACH(stream, &connection->streams, link)
        count += stream->open && strcmp(stream->method->path, path) == 0;
    }
    return count;
}

void rpc_server_send(struct rpc_server *server, const char *path, const uint8_t *message, size_t length)
{
    struct rpc_message *copy = rpc_message_new(message, length);
    struct rpc_connection *connection;

    if (!copy)
        return;
    for (unsigned i = 0; i < server->method_count; i++) {
        if (!server->methods[i].streams || strcmp(server->methods[i].path, path) != 0)
            continue;
        TAILQ_FOREACH(connection, &server->connections, link)
        rpc_connection_send(connection, &server->methods[i], copy);
    }
    rpc_message_release(copy);
}
