/* SPDX-License-Identifier: Apache-2.0 */
/* HBM that several processes hold: rows of the machine, and a file each for the bytes. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared.h"

struct sim_object *sim_object_find(struct sim_machine *m, uint64_t id)
{
    for (unsigned int i = 0; i < m->objects_high; i++)
        if (id && m->object[i].id == id)
            return &m->object[i];
    return NULL;
}

struct sim_object *sim_object_new(struct sim_machine *m, unsigned int row, unsigned int gpu, uint64_t size)
{
    struct sim_object *o = NULL;
    uint64_t id;
    unsigned int i;
    int fd;

    for (i = 0; i < SIM_MAX_OBJECTS && !o; i++)
        if (!m->object[i].id)
            o = &m->object[i];
    if (!o)
        return NULL;
    id = m->next_id++;
    memset(o, 0, sizeof(*o));
    snprintf(o->backing, sizeof(o->backing), "/dev/shm/softsim-%u-%llx-%llx", (unsigned int)getuid(), (unsigned long long)id,
             (unsigned long long)sim_now_ns());
    fd = open(o->backing, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return NULL;
    if (ftruncate(fd, (off_t)(SIM_OBJECT_HEADER + size)) < 0 || pwrite(fd, &id, sizeof(id), 0) != sizeof(id)) {
        close(fd);
        unlink(o->backing);
        return NULL;
    }
    close(fd);
    o->size = size;
    o->gpu = gpu;
    o->payer = (int32_t)row;
    o->holds[row] = 1;
    if (m->objects_high < i)
        m->objects_high = i;
    o->id = id;
    return o;
}

void sim_object_drop(struct sim_machine *m, struct sim_object *o, unsigned int row)
{
    if (--o->holds[row])
        return;
    for (unsigned int i = 0; i < m->procs_high; i++)
        if (o->holds[i]) {
            if (o->payer == (int32_t)row)
                o->payer = (int32_t)i;
            return;
        }
    unlink(o->backing);
    o->id = 0;
}

int sim_object_open(const struct sim_object *o)
{
    return open(o->backing, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
}
