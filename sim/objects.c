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

/* The row is whole before the file is made, so that the file of a process killed in between is found and removed. */
struct sim_object *sim_object_new(struct sim_machine *m, unsigned int row, unsigned int gpu, uint64_t size)
{
    struct sim_object *o = NULL;
    char state[SIM_PATH_MAX];
    uint64_t id;
    unsigned int i;
    bool made = false;
    int fd;

    for (i = 0; i < SIM_MAX_OBJECTS && !o; i++)
        if (!m->object[i].id)
            o = &m->object[i];
    if (!o)
        return NULL;
    id = m->next_id++;
    memset(o, 0, sizeof(*o));
    sim_state_path(state, sizeof(state));
    if (snprintf(o->backing, sizeof(o->backing), "%s.%llx-%llx", state, (unsigned long long)id, (unsigned long long)sim_now_ns()) >=
        (int)sizeof(o->backing))
        return NULL;
    o->size = size;
    o->gpu = gpu;
    o->payer = (int32_t)row;
    o->holds[row] = 1;
    if (m->objects_high < i)
        m->objects_high = i;
    __atomic_store_n(&o->id, id, __ATOMIC_SEQ_CST);
    fd = open(o->backing, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        made = ftruncate(fd, (off_t)(SIM_OBJECT_HEADER + size)) == 0 && pwrite(fd, &id, sizeof(id), 0) == sizeof(id);
        close(fd);
    }
    if (made)
        return o;
    sim_object_drop(m, o, row);
    return NULL;
}

/* The reference is the last thing to go: killed before that, the process still holds it, and whoever clears its row does this again. */
void sim_object_drop(struct sim_machine *m, struct sim_object *o, unsigned int row)
{
    int heir = -1;

    if (o->holds[row] > 1) {
        o->holds[row]--;
        return;
    }
    for (unsigned int i = 0; i < m->procs_high && heir < 0; i++)
        if (i != row && o->holds[i])
            heir = (int)i;
    if (heir < 0) {
        unlink(o->backing);
        __atomic_store_n(&o->id, 0, __ATOMIC_SEQ_CST);
    } else if (o->payer == (int32_t)row) {
        __atomic_store_n(&o->payer, (int32_t)heir, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&o->holds[row], 0, __ATOMIC_SEQ_CST);
}

int sim_object_open(const struct sim_object *o)
{
    return open(o->backing, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
}
