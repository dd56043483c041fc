/* SPDX-License-Identifier: Apache-2.0 */
/* The pages of `softslice top` that are plain lines: the members of a tenant, and the help. */
#include <string.h>

#include "screen.h"

static const char *const help[] = {
    "Keys (arrows scroll, h closes)",
    "q ^C         quit",
    "s > < arrows sort by another column",
    "r            reverse the order",
    "arrows       select; PgUp PgDn Home End",
    "m Enter      members of the selected tenant",
    "/            show only names with this in them; Esc: all",
    "p space      pause",
    "+ -          look less often, more often",
    "^L           draw the screen again",
    "A GPU's bar, by the letters before the tenants:",
    "",
    "",
    "VRAM is in GiB: what the tenant uses, its limit, the most that it used.",
    "BUSY   how much of the time it had work on the GPU",
    "THROT  how much of the time it waited for its share",
    "REFUSED  allocations refused since its ledger began, and +n just now",
    "STATE  (+: more than one) near limit: less than a tenth of it is left",
    "       over limit: it was lowered below what is used",
    "       releasing: a process died, the driver still has its memory",
    "       suspended: a process is checkpointed",
    "-  is not known, or not armed",
};

enum { HELP_LINES = sizeof(help) / sizeof(*help), HELP_BAR = 11 };

static void help_line(const struct screen *screen, unsigned index, wchar_t text[TEXT_MAX])
{
    if (index == HELP_BAR)
        swprintf(text, TEXT_MAX, L"  a%ls used   %ls room up to the limit, %ls", screen->unicode ? L"\u2588\u2588" : L"##",
                 screen->unicode ? L"\u2591" : L".", screen->unicode ? L"\u2502" : L"|");
    else if (index == HELP_BAR + 1)
        swprintf(text, TEXT_MAX, L"  %ls used by others, where NVML tells", screen->unicode ? L"\u2592" : L"x");
    else
        text_wide(text, help[index]);
}

static const struct observe_tenant *find(const struct screen *screen)
{
    const struct top *top = screen->top;
    const struct observe *seen = &top->seen[top->newest];

    for (unsigned i = 0; top->any && i < seen->tenants; i++) {
        if (strcmp(seen->tenant[i].name, screen->name) == 0 && strcmp(seen->tenant[i].directory, screen->directory) == 0)
            return &seen->tenant[i];
    }
    return NULL;
}

/* The n-th line of a tenant's members: one for each GPU on which a member has something, one for a member that has nothing. NULL beyond the last; *device
 * is then how many there are, otherwise the GPU or -1. */
static const struct observe_member *find_line(const struct observe_tenant *tenant, unsigned index, int *device)
{
    unsigned count = 0;

    for (unsigned i = 0; i < tenant->members; i++) {
        const struct observe_member *member = &tenant->member[i];
        bool any = false;

        for (unsigned j = 0; j < tenant->view.devices; j++) {
            if (!member->device[j].committed && !member->device[j].tentative && !member->device[j].spilled)
                continue;
            any = true;
            *device = (int)j;
            if (count++ == index)
                return member;
        }
        *device = -1;
        if (!any && count++ == index)
            return member;
    }
    *device = (int)count;
    return NULL;
}

static void member_line(const struct screen *screen, const struct observe_tenant *tenant, unsigned index, wchar_t text[TEXT_MAX])
{
    char pid[16] = "-", host[16] = "-", gpu[TOP_GPU_MAX] = "-", bytes[TEXT_FIGURE] = "-", spilled[TEXT_FIGURE];
    wchar_t command[TEXT_MAX] = L"-";
    const struct observe_member *member;
    int device, columns = 1;

    if (!(member = find_line(tenant, index, &device))) {
        *text = 0;
        return;
    }
    if (member->pid)
        snprintf(pid, sizeof(pid), "%u", member->pid);
    if (member->host_pid)
        snprintf(host, sizeof(host), "%u", member->host_pid);
    if (*member->command)
        columns = text_wide(command, member->command);
    if (device >= 0) {
        top_gpu_text(gpu, observe_find_gpu(&screen->top->seen[screen->top->newest], tenant->view.device[device].uuid));
        text_gib(bytes, member->device[device].committed + member->device[device].tentative);
    }
    swprintf(text, TEXT_MAX, L"%8s %9s  %ls%*s %-8s %8s%s%s%s%s", host, pid, command, columns < 15 ? 15 - columns : 0, "", gpu,
             bytes, member->suspended ? "  suspended" : "", member->dead ? "  releasing" : "",
             device >= 0 && member->device[device].spilled ? "  spilled " : "",
             device >= 0 && member->device[device].spilled ? text_gib(spilled, member->device[device].spilled) : "");
}

unsigned page_lines(const struct screen *screen)
{
    const struct observe_tenant *tenant;
    int count = 0;

    if (screen->page == PAGE_HELP)
        return HELP_LINES;
    tenant = find(screen);
    if (tenant && !tenant->problem && tenant->member)
        find_line(tenant, UINT_MAX, &count);
    return 2 + (unsigned)count;
}

void page_line(const struct screen *screen, unsigned index, wchar_t text[TEXT_MAX])
{
    const struct observe_tenant *tenant = screen->page == PAGE_HELP ? NULL : find(screen);
    wchar_t name[TEXT_MAX];

    if (screen->page == PAGE_HELP) {
        help_line(screen, index, text);
        return;
    }
    if (index == 0) {
        text_wide(name, screen->name);
        swprintf(text, TEXT_MAX, L"Members of %ls%ls", name, tenant ? L"" : L": it has ended");
        if (tenant && tenant->problem) {
            text_wide(name, tenant->reason);
            swprintf(text, TEXT_MAX, L"Cannot be read: %ls", name);
        }
    } else if (index == 1) {
        wcscpy(text, tenant ? L"     PID INNER PID  COMMAND         GPU           GiB" : L"");
    } else if (tenant) {
        member_line(screen, tenant, index - 2, text);
    } else {
        *text = 0;
    }
}
