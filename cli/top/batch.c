/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice top --batch`: a block of plain columns for each interval, for programs to read. No column has a blank in it, and what is not known is
 * "-". */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "text.h"
#include "top.h"

#define FIGURE 24

static const char *number(char text[FIGURE], bool known, uint64_t value)
{
    if (known)
        snprintf(text, FIGURE, "%llu", (unsigned long long)value);
    else
        strcpy(text, "-");
    return text;
}

static const char *percent(char text[FIGURE], bool known, double part)
{
    if (known)
        snprintf(text, FIGURE, "%.2f", part * 100);
    else
        strcpy(text, "-");
    return text;
}

static void print_time(const struct top *top)
{
    const struct observe *seen = &top->seen[top->newest];
    time_t seconds = (time_t)(seen->when / 1000000000);
    char text[32] = "";
    struct tm utc;

    if (gmtime_r(&seconds, &utc))
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    printf("TIME %s.%03uZ interval %.3f s gpus %u tenants %u processes %u", text, (unsigned)(seen->when / 1000000 % 1000),
           top->model.interval, top->model.gpus, top->model.tenants, top->model.processes);
    if (seen->omitted)
        printf(" omitted %u", seen->omitted);
    putchar('\n');
}

static void print_gpu(const struct top_gpu *gpu)
{
    char index[FIGURE], total[FIGURE], used[FIGURE], current[FIGURE], limits[FIGURE], name[TEXT_BYTES];
    const struct observe_gpu *seen = gpu->gpu;

    printf("%-40s %5s %14s %14s %14s %14s %s\n", seen->uuid_text, number(index, seen->index >= 0, (uint64_t)seen->index),
           number(total, seen->total, seen->total), number(used, seen->total, seen->used), number(current, true, gpu->current),
           number(limits, gpu->tenants > gpu->unlimited, gpu->limits), text_word(name, seen->name));
}

static const char *limit_text(char text[FIGURE], const struct top_row *row)
{
    if (row->known >> TOP_LIMIT & 1 && row->device->limit == LEDGER_NO_LIMIT)
        return strcpy(text, "none");
    return number(text, row->known >> TOP_LIMIT & 1, row->device ? row->device->limit : 0);
}

static void print_row(const struct top_row *row)
{
    static const struct ledger_device_state none;
    const struct ledger_device_state *device = row->device ? row->device : &none;
    char name[TEXT_BYTES], directory[TEXT_BYTES], text[10][FIGURE], state[TOP_STATE_MAX];
    bool has = row->known >> TOP_CURRENT & 1, compute = row->known >> TOP_COMPUTE & 1;

    top_state_text(state, row->state, ",");
    for (char *c = state; *c; c++)
        *c = *c == ' ' ? '_' : *c;
    printf("%-24s %-40s %9s %14s %14s %14s %7s %10s %8s %6s %8s %6s %s %s\n", text_word(name, row->tenant->name),
           row->gpu ? row->gpu->uuid_text : "-", number(text[0], row->known >> TOP_PROCESSES & 1, row->tenant->view.members),
           number(text[1], has, device->current), limit_text(text[2], row), number(text[3], has, device->peak),
           percent(text[4], row->known >> TOP_BUSY & 1, row->busy),
           percent(text[5], row->known >> TOP_THROTTLED & 1, row->throttled),
           percent(text[6], compute, (double)device->share / SHARE_WHOLE),
           number(text[7], compute && device->weight, device->weight), number(text[8], has, device->events[LEDGER_EVENT_REFUSED]),
           number(text[9], row->known >> TOP_NEW & 1, row->refused), state, text_word(directory, row->tenant->directory));
}

static void print_block(const struct top *top)
{
    print_time(top);
    printf("%-40s %5s %14s %14s %14s %14s %s\n", "GPU", "INDEX", "TOTAL", "USED", "CURRENT", "LIMITS", "NAME");
    for (unsigned i = 0; i < top->model.gpus; i++)
        print_gpu(&top->model.gpu[i]);
    printf("%-24s %-40s %9s %14s %14s %14s %7s %10s %8s %6s %8s %6s %s %s\n", "TENANT", "GPU", "PROCESSES", "CURRENT", "LIMIT",
           "PEAK", "BUSY%", "THROTTLED%", "COMPUTE%", "WEIGHT", "REFUSED", "NEW", "STATE", "DIRECTORY");
    for (unsigned i = 0; i < top->model.rows; i++)
        print_row(&top->model.row[i]);
    putchar('\n');
}

static void print_error(const char *error)
{
    wchar_t text[TEXT_MAX];

    text_wide(text, error);
    printf("TIME - %ls\n\n", text);
}

/* Wait for the next look. False where there is nobody any more to tell of it. */
static bool wait_until(double until)
{
    struct pollfd out = {.fd = STDOUT_FILENO};

    while (!top_signal && top_clock() < until) {
        int result = top_wait(&out, until);

        if (result < 0 && errno != EINTR)
            return false;
        if (result > 0 && out.revents & (POLLERR | POLLHUP | POLLNVAL))
            return false;
    }
    return !top_signal;
}

int batch_run(struct top *top, struct cli_error *error)
{
    double next = top_clock();

    for (char **complaint = top->seen[top->newest].complaints; complaint && *complaint; complaint++)
        cli_warn("%s", *complaint);
    top_catch_signals();
    signal(SIGPIPE, SIG_IGN);
    for (uint64_t i = 0; !top->iterations || i < top->iterations; i++) {
        next += top->interval;
        if (!wait_until(next))
            return 0;
        if (next < top_clock() - top->interval)
            next = top_clock();
        errno = 0;
        if (top_look(top) == 0)
            print_block(top);
        else
            print_error(top->error);
        if (fflush(stdout) == EOF || ferror(stdout))
            return errno == EPIPE ? 0 : cli_fail(error, CLI_FAILED, "top: cannot write: %s", strerror(errno));
    }
    return 0;
}
