/* SPDX-License-Identifier: Apache-2.0 */
/* One look at the tenants of state directories. */
#include "observe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "observe_internal.h"
#include "softslice/clock.h"
#include "softslice/config.h"
#include "softslice/units.h"

#define TURNS "turns" /* the folder in which tenants take turns: no tenant, unless it can be read as one */

#define LEFT_FOR_OTHERS 16 /* folders of a directory, however many those before it have */

/* What goes from hand to hand during one look. */
struct look {
    const struct observe_request *request;
    struct observe *seen;
    unsigned budget; /* folders that may still be looked at */
    unsigned looked; /* number of `place`s */
    struct place {
        dev_t device;
        ino_t inode;
    } * place;         /* directories that were looked at */
    unsigned readable; /* directories and roots that could be opened */
    unsigned room;     /* tenants that seen->tenant has room for */
    unsigned members;  /* of all tenants */
    bool no_memory;
};

/* ---- lists of texts that end with NULL */

/* The new last one, which the list owns. NULL: no memory; it was freed. */
static char *append(char ***list, char *text)
{
    size_t count = 0;
    char **grown;

    while (*list && (*list)[count])
        count++;
    /* Grown when the number is a power of two. */
    grown = text && !(count & (count + 1)) ? realloc(*list, 2 * (count + 1) * sizeof(**list)) : *list;
    if (!text || !grown) {
        free(text);
        return NULL;
    }
    *list = grown;
    grown[count] = text;
    grown[count + 1] = NULL;
    return text;
}

static void free_list(char **list)
{
    for (char **text = list; text && *text; text++)
        free(*text);
    free(list);
}

void observe_complain(struct observe *seen, const char *format, ...)
{
    char text[PATH_MAX + 256], clean[2 * PATH_MAX];
    unsigned count = 0;
    va_list args;

    while (seen->complaints && seen->complaints[count])
        count++;
    if (count == OBSERVE_COMPLAINTS)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    append(&seen->complaints, strdup(observe_text(clean, sizeof(clean), text, false)));
}

/* ---- folders */

struct names {
    char **name;
    unsigned count, room;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_name(struct names *names, const char *name)
{
    if (names->count == names->room) {
        unsigned room = names->room ? 2 * names->room : 64;
        char **grown = realloc(names->name, room * sizeof(*grown));

        if (!grown)
            return false;
        names->name = grown;
        names->room = room;
    }
    names->name[names->count] = strdup(name);
    return names->name[names->count] && ++names->count;
}

static void free_names(struct names *names)
{
    for (unsigned i = 0; i < names->count; i++)
        free(names->name[i]);
    free(names->name);
}

/* What may be a folder in `directory`, in the order of its name, as far as the budget reaches; what is beyond is counted. 0 or -errno. */
static int list_folders(struct look *look, int directory, struct names *names)
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *all = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    if (!all) {
        int code = -errno;

        if (copy >= 0)
            close(copy);
        return code;
    }
    while ((entry = readdir(all))) {
        if (*entry->d_name == '.' || (entry->d_type != DT_DIR && entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN))
            continue;
        if (!look->budget) {
            look->seen->omitted++;
        } else if (add_name(names, entry->d_name)) {
            look->budget--;
        } else {
            look->no_memory = true;
            break;
        }
    }
    closedir(all);
    if (names->count)
        qsort(names->name, names->count, sizeof(*names->name), compare_names);
    return 0;
}

/* ---- a tenant */

static void explain(struct observe_tenant *tenant, int directory)
{
    switch (-tenant->problem) {
    case EACCES:
    case EPERM:
        snprintf(tenant->reason, sizeof(tenant->reason), "permission denied: it belongs to uid %u", tenant->uid);
        return;
    case ELOOP:
    case ENOTDIR:
        snprintf(tenant->reason, sizeof(tenant->reason), "a symbolic link, which is not followed");
        return;
    case EPROTO:
        snprintf(tenant->reason, sizeof(tenant->reason), "its ledger is %s", ledger_read_fault(directory, tenant->name));
        return;
    default:
        snprintf(tenant->reason, sizeof(tenant->reason), "%s", strerror(-tenant->problem));
    }
}

struct hearing {
    struct look *look;
    struct observe_tenant *tenant;
    unsigned room;
};

static void hear(void *context, const struct ledger_seen *heard)
{
    struct hearing *hearing = context;
    struct observe_tenant *tenant = hearing->tenant;
    struct observe_member *member;

    if (hearing->look->members == OBSERVE_MEMBERS) {
        hearing->look->seen->members_omitted++;
        return;
    }
    if (tenant->members == hearing->room) {
        unsigned room = hearing->room ? 2 * hearing->room : 4;
        struct observe_member *grown = realloc(tenant->member, room * sizeof(*grown));

        if (!grown) {
            hearing->look->no_memory = true;
            return;
        }
        tenant->member = grown;
        hearing->room = room;
    }
    hearing->look->members++;
    member = &tenant->member[tenant->members++];
    *member = (struct observe_member){.pid = heard->pid, .pid_namespace = heard->pid_namespace, .dead = heard->dead};
    for (unsigned i = 0; i < tenant->view.devices; i++) {
        member->device[i].committed = heard->device[i].committed;
        member->device[i].tentative = heard->device[i].tentative;
        member->device[i].spilled = heard->device[i].spilled;
        member->suspended |= heard->device[i].suspended;
    }
}

/* Leave only the device that is asked for. False: the tenant does not know it. */
static bool keep_device(struct observe_tenant *tenant, const uint8_t uuid[16])
{
    for (unsigned i = 0; i < tenant->view.devices; i++) {
        if (memcmp(tenant->view.device[i].uuid, uuid, 16) != 0)
            continue;
        tenant->view.device[0] = tenant->view.device[i];
        tenant->view.devices = 1;
        for (unsigned j = 0; j < tenant->members; j++)
            tenant->member[j].device[0] = tenant->member[j].device[i];
        return true;
    }
    return false;
}

static bool is_alive(const struct observe_tenant *tenant)
{
    for (unsigned i = 0; i < tenant->view.devices; i++) {
        if (tenant->view.device[i].current)
            return true;
    }
    return tenant->view.members;
}

/* Read one into the next place of the list. Whether it stays there. */
static bool read_tenant(struct look *look, int directory, const char *name, struct observe_tenant *tenant)
{
    const struct observe_request *request = look->request;
    struct hearing hearing = {look, tenant, 0};
    struct stat status;

    snprintf(tenant->name, sizeof(tenant->name), "%s", name);
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || (!S_ISDIR(status.st_mode) && !S_ISLNK(status.st_mode)))
        return false;
    tenant->uid = status.st_uid;
    tenant->problem = ledger_read_whole(directory, name, &tenant->view, request->without_members ? NULL : hear, &hearing);
    if (tenant->problem == -ENOENT)
        return false;
    if (tenant->problem == -EACCES && strcmp(name, TURNS) == 0)
        return false;
    if (tenant->problem < 0) {
        explain(tenant, directory);
        look->members -= tenant->members;
        tenant->members = 0;
        memset(&tenant->view, 0, sizeof(tenant->view));
        return true;
    }
    if (request->uuid && !keep_device(tenant, request->uuid))
        return false;
    return request->ended || request->tenant || is_alive(tenant);
}

static void add_tenant(struct look *look, int directory, const char *path, const char *name, const struct observe_labels *labels)
{
    struct observe *seen = look->seen;
    struct observe_tenant *tenant;

    if (seen->tenants == look->room) {
        unsigned room = look->room ? 2 * look->room : 16;
        struct observe_tenant *grown = realloc(seen->tenant, room * sizeof(*grown));

        if (!grown) {
            look->no_memory = true;
            return;
        }
        seen->tenant = grown;
        look->room = room;
    }
    tenant = &seen->tenant[seen->tenants];
    memset(tenant, 0, sizeof(*tenant));
    tenant->directory = path;
    memcpy(tenant->pod, labels->pod, sizeof(tenant->pod));
    memcpy(tenant->namespace, labels->namespace, sizeof(tenant->namespace));
    memcpy(tenant->container, labels->container, sizeof(tenant->container));
    if (read_tenant(look, directory, name, tenant)) {
        seen->tenants++;
        return;
    }
    look->members -= tenant->members;
    free(tenant->member);
}

/* ---- directories */

/* Whether it was looked at already, by whichever name: then its tenants are known. */
static bool was_looked_at(struct look *look, const struct stat *status)
{
    struct place *grown;

    for (unsigned i = 0; i < look->looked; i++) {
        if (look->place[i].device == status->st_dev && look->place[i].inode == status->st_ino)
            return true;
    }
    /* Grown when the number is a power of two. */
    grown = look->looked & (look->looked - 1) ? look->place
                                              : realloc(look->place, (look->looked ? 2 * look->looked : 1) * sizeof(*grown));
    if (!grown) {
        look->no_memory = true;
        return true;
    }
    look->place = grown;
    look->place[look->looked++] = (struct place){.device = status->st_dev, .inode = status->st_ino};
    return false;
}

/* All tenants of a state directory, of which `directory` is an open file. */
static void read_directory(struct look *look, int directory, const char *named)
{
    struct observe_labels labels = {0};
    struct names names = {0};
    struct stat status;
    char what[128];
    const char *path;
    bool labelled;
    int result = 0;

    if (fstat(directory, &status) < 0) {
        observe_complain(look->seen, "state directory %s: %s", named, strerror(errno));
        return;
    }
    if (was_looked_at(look, &status)) {
        look->readable++;
        return;
    }
    path = append(&look->seen->directories, strdup(named));
    if (!path) {
        look->no_memory = true;
        return;
    }
    labelled = observe_labels_read(directory, status.st_uid, &labels, what);
    if (look->request->tenant) {
        add_tenant(look, directory, path, look->request->tenant, &labels);
    } else {
        result = list_folders(look, directory, &names);
        for (unsigned i = 0; i < names.count && !look->no_memory; i++)
            add_tenant(look, directory, path, names.name[i], &labels);
    }
    free_names(&names);
    look->readable += result == 0;
    if (result < 0)
        observe_complain(look->seen, "state directory %s: %s", path, strerror(-result));
    else if (!labelled)
        observe_complain(look->seen, "%s/%s", path, what);
}

/* An O_PATH file, or -errno. A symbolic link is not followed: a slash at the end would. */
static int open_directory(int at, const char *path)
{
    char name[PATH_MAX];
    size_t length = strlen(path);
    int fd;

    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length >= sizeof(name))
        return -ENAMETOOLONG;
    memcpy(name, path, length);
    name[length] = '\0';
    fd = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int observe_open(const char *directory)
{
    return open_directory(AT_FDCWD, directory);
}

/* Before the next of `count` directories, put some of the budget aside for those after it, half of it at most: whoever fills a directory with folders
 * hides nobody elsewhere. What was put aside. */
static unsigned put_aside(struct look *look, unsigned count)
{
    unsigned each = look->budget / (2 * count), aside = (each < LEFT_FOR_OTHERS ? each : LEFT_FOR_OTHERS) * (count - 1);

    look->budget -= aside;
    return aside;
}

static void read_named(struct look *look, int at, const char *name, const char *path)
{
    int directory = open_directory(at, name);

    if (directory < 0) {
        observe_complain(look->seen, "state directory %s: %s", path, strerror(-directory));
        return;
    }
    read_directory(look, directory, path);
    close(directory);
}

static void read_root(struct look *look, const char *root)
{
    int directory = open_directory(AT_FDCWD, root), result = directory;
    struct names names = {0};
    char path[PATH_MAX];

    if (directory >= 0) {
        result = list_folders(look, directory, &names);
        for (unsigned i = 0; i < names.count && !look->no_memory; i++) {
            unsigned aside = put_aside(look, names.count - i);

            snprintf(path, sizeof(path), "%s/%s", root, names.name[i]);
            read_named(look, directory, names.name[i], path);
            look->budget += aside;
        }
        free_names(&names);
        close(directory);
    }
    if (result < 0)
        observe_complain(look->seen, "root %s: %s", root, strerror(-result));
    else
        look->readable++;
}

/* The one in use. Where nobody named one and there is none yet, there are no tenants. */
static int read_default(struct look *look, char error[OBSERVE_ERROR_MAX])
{
    static struct config config;
    static struct ledger ledger;
    char path[PATH_MAX];
    int directory;

    if (observe_configured(&config) < 0) {
        snprintf(error, OBSERVE_ERROR_MAX, "%s", config.error);
        return -EINVAL;
    }
    if (!*config.state_dir) {
        snprintf(path, sizeof(path), "/dev/shm/softslice-%u", geteuid());
        if (access("/run/softslice", F_OK) < 0 && access(path, F_OK) < 0 && errno == ENOENT) {
            look->readable++;
            return append(&look->seen->directories, strdup(path)) ? 0 : -ENOMEM;
        }
    }
    directory = ledger_state_dir(&ledger, config.state_dir, path, sizeof(path));
    if (directory < 0) {
        snprintf(error, OBSERVE_ERROR_MAX, "%s", ledger.error);
        return directory;
    }
    read_directory(look, directory, path);
    close(directory);
    return 0;
}

static int read_everything(struct look *look, char error[OBSERVE_ERROR_MAX])
{
    const struct observe_request *request = look->request;
    unsigned left = 0;

    if (!request->directories && !request->roots)
        return read_default(look, error);
    for (const char *const *path = request->directories; path && *path; path++)
        left++;
    for (const char *const *root = request->roots; root && *root; root++)
        left++;
    for (const char *const *path = request->directories; path && *path; path++) {
        unsigned aside = put_aside(look, left--);

        read_named(look, AT_FDCWD, *path, *path);
        look->budget += aside;
    }
    for (const char *const *root = request->roots; root && *root; root++) {
        unsigned aside = put_aside(look, left--);

        read_root(look, *root);
        look->budget += aside;
    }
    return 0;
}

/* ---- GPUs */

static int compare_gpus(const void *a, const void *b)
{
    return memcmp(((const struct observe_gpu *)a)->uuid, ((const struct observe_gpu *)b)->uuid, 16);
}

static int gather_gpus(struct look *look)
{
    struct observe *seen = look->seen;
    unsigned shown;

    if (!look->request->without_nvml && observe_gpus_read(seen) < 0)
        return -ENOMEM;
    for (unsigned i = 0; look->request->uuid && i < seen->gpus;) {
        if (memcmp(seen->gpu[i].uuid, look->request->uuid, 16) == 0)
            i++;
        else
            seen->gpu[i] = seen->gpu[--seen->gpus];
    }
    shown = seen->gpus;
    for (unsigned i = 0; i < seen->tenants; i++) {
        for (unsigned j = 0; j < seen->tenant[i].view.devices; j++) {
            const uint8_t *uuid = seen->tenant[i].view.device[j].uuid;

            if (!observe_find_gpu(seen, uuid) && !observe_gpu_add(seen, uuid) && seen->gpus < OBSERVE_GPUS)
                return -ENOMEM;
        }
    }
    if (seen->gpus > shown)
        qsort(seen->gpu + shown, seen->gpus - shown, sizeof(*seen->gpu), compare_gpus);
    return 0;
}

/* ---- the whole */

static int judge(const struct look *look, char error[OBSERVE_ERROR_MAX])
{
    const struct observe *seen = look->seen;
    char clean[OBSERVE_TEXT];

    if (look->no_memory) {
        snprintf(error, OBSERVE_ERROR_MAX, "out of memory");
        return -ENOMEM;
    }
    if (!look->readable) {
        snprintf(error, OBSERVE_ERROR_MAX, "%.*s", OBSERVE_ERROR_MAX - 1,
                 seen->complaints && *seen->complaints ? *seen->complaints : "no state directory is named");
        return -ENOENT;
    }
    if (look->request->tenant && !seen->tenants) {
        snprintf(error, OBSERVE_ERROR_MAX, "there is no tenant '%.100s'%s%.200s%s",
                 observe_text(clean, sizeof(clean), look->request->tenant, false), look->request->uuid ? " on that GPU" : "",
                 seen->directories && !seen->directories[1] ? " in " : "",
                 seen->directories && !seen->directories[1] ? *seen->directories : "");
        return -ENOENT;
    }
    if (look->request->uuid && !seen->gpus) {
        snprintf(error, OBSERVE_ERROR_MAX, "neither NVML nor a tenant shows that GPU");
        return -ENODEV;
    }
    return 0;
}

bool observe_is_name(const char *text)
{
    return *text && *text != '.' && !strchr(text, '/') && strlen(text) <= NAME_MAX;
}

int observe(const struct observe_request *request, struct observe *seen, char error[OBSERVE_ERROR_MAX])
{
    struct look look = {.request = request, .seen = seen, .budget = OBSERVE_TENANTS};
    struct timespec now;
    int result;

    *seen = (struct observe){.with_members = !request->without_members};
    *error = '\0';
    if (request->tenant && !observe_is_name(request->tenant)) {
        snprintf(error, OBSERVE_ERROR_MAX, "'%.80s' is not a tenant's name", request->tenant);
        return -ENOENT;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    seen->when = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    seen->clock = clock_now();
    result = read_everything(&look, error);
    free(look.place);
    if (result == 0)
        look.no_memory |= gather_gpus(&look) < 0;
    for (unsigned i = 0; result == 0 && i < seen->tenants; i++)
        observe_admin_limits(seen, &seen->tenant[i]);
    if (result == 0)
        result = judge(&look, error);
    if (result == 0 && look.members)
        observe_pids_find(seen);
    if (result < 0)
        observe_free(seen);
    return result;
}

void observe_free(struct observe *seen)
{
    for (unsigned i = 0; i < seen->tenants; i++)
        free(seen->tenant[i].member);
    free(seen->tenant);
    free(seen->gpu);
    free_list(seen->directories);
    free_list(seen->complaints);
    memset(seen, 0, sizeof(*seen));
}
