/* SPDX-License-Identifier: Apache-2.0 */
/* Ids of the reader's PID namespace, or of one that is outside of all. */
#include "nvml_pids.h"

#include <stddef.h>
#include <string.h>

#define FOREIGN 10000000 /* above every id that Linux gives out */

static bool outer;
static unsigned int offset;

void nvml_pids_begin(const char *setting)
{
    outer = setting && strncmp(setting, "host", 4) == 0;
    offset = outer ? (unsigned int)sim_number(setting[4] ? setting + 5 : NULL, FOREIGN) : 0;
}

unsigned int nvml_pids_of(const struct sim_machine *m, unsigned int row, const struct sim_process_id *reader)
{
    static struct {
        uint64_t generation, namespace;
        int32_t pid;
    } known[SIM_MAX_PROCS]; /* all of /proc is searched for the first time only */
    const struct sim_proc *p = &m->proc[row];

    if (outer)
        return p->outer + offset;
    if (sim_process_near(reader, &p->id))
        return (unsigned int)p->id.pid;
    if (known[row].generation != p->generation || known[row].namespace != reader->namespace) {
        known[row].generation = p->generation;
        known[row].namespace = reader->namespace;
        known[row].pid = sim_process_seen(reader, &p->id);
    }
    return (unsigned int)known[row].pid;
}
