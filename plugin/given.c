/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations on the host. A record is written last and its directory goes with it, so a directory without one was never given to anybody. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "document.h"
#include "given.h"

#define FILE_NAME ".allocation"
#define FILE_MOST (1 << 20)
#define DIGITS    8 /* of a name, after its prefix */
#define SAVED     ".json"
#define IDS_MOST  4096

/* ---- the file */

static struct json_object *read_json(int directory, const char *path)
{
    struct json_object *object = NULL;
    struct stat status;
    char *text;

    CLEANUP_CLOSE int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid() || status.st_size > FILE_MOST)
        return NULL;
    text = malloc((size_t)status.st_size + 1);
    if (text) {
        ssize_t length = pread(fd, text, (size_t)status.st_size, 0);

        text[length > 0 ? length : 0] = '\0';
        object = json_tokener_parse(text);
        free(text);
    }
    return object;
}

static bool take_text(struct json_object *object, const char *key, char *text, size_t size)
{
    struct json_object *value;

    return json_object_object_get_ex(object, key, &value) && json_object_is_type(value, json_type_string) &&
           (size_t)snprintf(text, size, "%s", json_object_get_string(value)) < size;
}

static bool take_ids(struct json_object *object, struct given *record)
{
    struct json_object *ids, *id;
    size_t count = json_object_object_get_ex(object, "ids", &ids) && json_object_is_type(ids, json_type_array)
                       ? json_object_array_length(ids)
                       : 0;

    record->id = count && count <= IDS_MOST ? calloc(count, sizeof(*record->id)) : NULL;
    for (size_t i = 0; record->id && i < count; i++) {
        id = json_object_array_get_idx(ids, i);
        if (!json_object_is_type(id, json_type_string))
            return false;
        snprintf(record->id[i], sizeof(*record->id), "%s", json_object_get_string(id));
        record->ids++;
    }
    return record->id != NULL;
}

static void forget(struct given *record)
{
    free(record->id);
    free(record->limits);
    record->id = NULL;
    record->limits = NULL;
}

static bool take_record(struct json_object *object, const char *name, struct given *record)
{
    struct json_object *value;
    bool good;

    memset(record, 0, sizeof(*record));
    snprintf(record->name, sizeof(record->name), "%s", name);
    if (!json_object_is_type(object, json_type_object) ||
        !take_text(object, "resource", record->resource, sizeof(record->resource)) ||
        !take_text(object, "gpu", record->uuid, sizeof(record->uuid)))
        return false;
    if (json_object_object_get_ex(object, "bytes", &value))
        record->bytes = (uint64_t)json_object_get_int64(value);
    if (json_object_object_get_ex(object, "made", &value))
        record->made = json_object_get_int64(value);
    if (json_object_object_get_ex(object, "cdi", &value))
        record->cdi = json_object_get_boolean(value);
    good = json_object_object_get_ex(object, "limits", &value) && json_object_is_type(value, json_type_string) &&
           strlen(json_object_get_string(value)) < sizeof(((struct cdi_budget *)0)->limits) &&
           (record->limits = strdup(json_object_get_string(value))) && take_ids(object, record);
    if (!good)
        forget(record);
    return good;
}

/* As text to free; NULL: out of memory. */
static char *record_json(const struct given *record)
{
    struct json_object *object = json_object_new_object(), *ids = json_object_new_array();
    bool failed = !object;
    char *text;

    for (unsigned i = 0; i < record->ids; i++)
        document_append(&failed, ids, json_object_new_string(record->id[i]));
    document_put(&failed, object, "resource", json_object_new_string(record->resource));
    document_put(&failed, object, "gpu", json_object_new_string(record->uuid));
    document_put(&failed, object, "bytes", document_number(record->bytes));
    document_put(&failed, object, "made", json_object_new_int64(record->made));
    document_put(&failed, object, "cdi", json_object_new_boolean(record->cdi));
    document_put(&failed, object, "limits", json_object_new_string(record->limits));
    document_put(&failed, object, "ids", ids);
    text = failed ? NULL : strdup(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
    json_object_put(object);
    return text;
}

static bool is_missing(int directory, const char *path)
{
    return faccessat(directory, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

/* Whether given_name() makes such names. */
static bool is_ours(const char *name, size_t length)
{
    const char *digits = name + strlen(GIVEN_PREFIX);

    return length == strlen(GIVEN_PREFIX) + DIGITS && strncmp(name, GIVEN_PREFIX, strlen(GIVEN_PREFIX)) == 0 &&
           strspn(digits, "0123456789abcdef") >= DIGITS;
}

/* ---- the copy that outlives a reboot */

static void make_folder(const char *path)
{
    char part[PATH_MAX];

    snprintf(part, sizeof(part), "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(part, 0755);
        *slash = '/';
    }
    mkdir(part, 0700);
}

static int open_saved(const struct given_list *records)
{
    if (records->saved)
        make_folder(records->saved);
    return records->saved ? open(records->saved, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

static void save(struct given_list *records, const char *name, const char *text)
{
    char file[CONFIG_TENANT_MAX + sizeof(SAVED)];
    CLEANUP_CLOSE int folder = open_saved(records);
    int result;

    snprintf(file, sizeof(file), "%s" SAVED, name);
    result = folder < 0 ? -errno : cdi_write(folder, file, text, strlen(text), 0600);
    if (result < 0 && records->saved && !records->unsaved) {
        say_warning("%s: %s: running pods will not survive a reboot of the node", records->saved, strerror(-result));
        records->unsaved = true;
    }
}

static bool saved_path(const struct given_list *records, const char *name, char path[PATH_MAX])
{
    return records->saved && (size_t)snprintf(path, PATH_MAX, "%s/%s" SAVED, records->saved, name) < PATH_MAX;
}

static void unsave(const struct given_list *records, const char *name)
{
    char path[PATH_MAX];

    if (saved_path(records, name, path))
        unlink(path);
}

static bool is_saved(const struct given_list *records, const char *name)
{
    char path[PATH_MAX];

    return saved_path(records, name, path) && !is_missing(AT_FDCWD, path);
}

static int write_record(struct given_list *records, const struct cdi_root *root, const struct given *record)
{
    CLEANUP_FREE char *text = record_json(record);
    CLEANUP_CLOSE int folder = openat(root->fd, record->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = !text ? -ENOMEM : folder < 0 ? -errno : cdi_write(folder, FILE_NAME, text, strlen(text), 0600);

    if (result == 0)
        save(records, record->name, text);
    return result;
}

/* ---- the list */

static int append(struct given_list *records, const struct given *record)
{
    if (records->count == records->room) {
        unsigned room = records->room ? 2 * records->room : 64;
        struct given *grown = realloc(records->one, room * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        records->one = grown;
        records->room = room;
    }
    records->one[records->count++] = *record;
    return 0;
}

void given_load(struct given_list *records, const char *root)
{
    char path[CONFIG_TENANT_MAX + sizeof(FILE_NAME) + 1];
    DIR *all = opendir(root);
    struct dirent *entry;
    struct given record;

    while (all && (entry = readdir(all))) {
        struct json_object *object;

        if (strncmp(entry->d_name, GIVEN_PREFIX, strlen(GIVEN_PREFIX)) != 0 || strlen(entry->d_name) >= CONFIG_TENANT_MAX)
            continue;
        snprintf(path, sizeof(path), "%s/" FILE_NAME, entry->d_name);
        object = read_json(dirfd(all), path);
        if (!object && is_ours(entry->d_name, strlen(entry->d_name)) && is_missing(dirfd(all), path))
            continue; /* given_left() finds it */
        if (!object || !take_record(object, entry->d_name, &record))
            say_warning("%s/%s: no record of an allocation in it: it is left as it is ('softslice cdi remove %s' removes it)", root,
                        entry->d_name, entry->d_name);
        else if (append(records, &record) < 0)
            say_error("out of memory");
        json_object_put(object);
    }
    if (all)
        closedir(all);
    if (records->count)
        say_info("%u allocation%s of an earlier process in %s", records->count, records->count == 1 ? "" : "s", root);
}

int given_add(struct given_list *records, const struct cdi_root *root, const struct given *record)
{
    struct given copy = *record;
    int result = -ENOMEM;

    copy.limits = strdup(record->limits);
    copy.id = calloc(record->ids, sizeof(*copy.id));
    if (copy.id && copy.limits) {
        memcpy(copy.id, record->id, record->ids * sizeof(*copy.id));
        result = write_record(records, root, record);
    }
    if (result == 0)
        result = append(records, &copy);
    if (result < 0)
        forget(&copy);
    return result;
}

static bool is_known(const struct given_list *records, const char *name)
{
    for (unsigned i = 0; i < records->count; i++) {
        if (strcmp(records->one[i].name, name) == 0)
            return true;
    }
    return false;
}

/* One that is on the host is a running container's, whether this process could read it or not: it is taken, or left alone. */
static bool is_on_host(struct given_list *records, const struct cdi_root *root, const char *name)
{
    char path[CONFIG_TENANT_MAX + sizeof(FILE_NAME) + 1];
    struct json_object *object;
    struct given record;

    snprintf(path, sizeof(path), "%s/" FILE_NAME, name);
    if (is_missing(root->fd, path))
        return false;
    object = read_json(root->fd, path);
    if (object && take_record(object, name, &record) && append(records, &record) < 0)
        forget(&record);
    json_object_put(object);
    return true;
}

/* False: it should be there, and could not be made. */
static bool restore_one(struct given_list *records, const struct cdi_root *root, struct json_object *object, const char *name,
                        int (*make)(void *context, const struct given *record), void *context)
{
    struct given record;

    if (!cdi_is_name(name) || !take_record(object, name, &record)) {
        say_warning("%s/%s" SAVED ": no record of an allocation: it is left as it is", records->saved, name);
        return true;
    }
    bool made = make(context, &record) == 0 && given_add(records, root, &record) == 0;
    if (made)
        say_info("%s is made again, for the container that had it before", name);
    forget(&record);
    return made;
}

bool given_restore(struct given_list *records, const struct cdi_root *root, int (*make)(void *context, const struct given *record),
                   void *context)
{
    bool all_made = true;
    DIR *all = records->saved ? opendir(records->saved) : NULL;
    char name[CONFIG_TENANT_MAX];
    struct dirent *entry;

    while (all && (entry = readdir(all))) {
        size_t length = strlen(entry->d_name), end = strlen(SAVED);
        struct json_object *object;

        if (strncmp(entry->d_name, GIVEN_PREFIX, strlen(GIVEN_PREFIX)) != 0 || length <= end || length - end >= sizeof(name) ||
            strcmp(entry->d_name + length - end, SAVED) != 0)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(length - end), entry->d_name);
        if (is_known(records, name) || is_on_host(records, root, name))
            continue;
        object = read_json(dirfd(all), entry->d_name);
        all_made &= restore_one(records, root, object, name, make, context);
        json_object_put(object);
    }
    if (all)
        closedir(all);
    return all_made;
}

static void leave_spec(const struct cdi_root *root, const char *name)
{
    struct cli_error error = {""};
    struct cdi_spec spec = {0};
    char path[PATH_MAX];

    if (!cdi_host_spec(root, name, path) || cdi_spec_open(&spec, path, NULL, &error))
        return;
    cdi_spec_drop(&spec, name);
    if (spec.changed && cdi_spec_write(&spec, &error))
        say_warning("%s", error.text);
    cdi_spec_close(&spec);
}

void given_remove(struct given_list *records, const struct cdi_root *root, const char *name, const char *why)
{
    struct cli_error error = {""};
    char gone[CONFIG_TENANT_MAX];

    snprintf(gone, sizeof(gone), "%s", name);
    leave_spec(root, gone);
    unsave(records, gone);
    if (cdi_host_remove(root, gone, &error)) {
        say_warning("%s", error.text);
        return;
    }
    if (why)
        say_info("%s is removed: %s", gone, why);
    for (unsigned i = 0; i < records->count; i++) {
        if (strcmp(records->one[i].name, gone) != 0)
            continue;
        forget(&records->one[i]);
        memmove(&records->one[i], &records->one[i + 1], (records->count - i - 1) * sizeof(*records->one));
        records->count--;
        return;
    }
}

/* ---- what was left half made, or half removed */

static bool rests(const struct cdi_root *root, const char *path, double age)
{
    struct stat status;

    return fstatat(root->fd, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && difftime(time(NULL), status.st_ctime) >= age;
}

/* Another's, who chose such a name, has a note of another spec. */
static bool is_unfinished(const struct given_list *records, const struct cdi_root *root, const char *name, double age)
{
    char path[CONFIG_TENANT_MAX + sizeof(FILE_NAME) + 1], spec[PATH_MAX];

    snprintf(path, sizeof(path), "%s/" FILE_NAME, name);
    return !is_known(records, name) && !is_saved(records, name) && is_missing(root->fd, path) && rests(root, name, age) &&
           (!cdi_host_spec(root, name, spec) || strcmp(strrchr(spec, '/') ? strrchr(spec, '/') + 1 : spec, PLUGIN_SPEC) == 0);
}

static void find_left(const struct given_list *records, const struct cdi_root *root, const char *folder, double age,
                      void (*found)(void *context, const char *name), void *context)
{
    static const char end[] = ".turns";
    bool turns = strcmp(folder, CDI_TURNS) == 0;
    int fd = openat(root->fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *all = fd >= 0 ? fdopendir(fd) : NULL;
    char name[CONFIG_TENANT_MAX], path[2 * CONFIG_TENANT_MAX];
    struct dirent *entry;

    if (!all && fd >= 0)
        close(fd);
    while (all && (entry = readdir(all))) {
        size_t length = strcspn(entry->d_name, ".");

        if (!is_ours(entry->d_name, length) || strcmp(entry->d_name + length, turns ? end : "") != 0)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)length, entry->d_name);
        snprintf(path, sizeof(path), CDI_TURNS "/%s%s", name, end);
        if (turns ? is_missing(root->fd, name) && !is_saved(records, name) && rests(root, path, age)
                  : is_unfinished(records, root, name, age))
            found(context, name);
    }
    if (all)
        closedir(all);
}

void given_left(const struct given_list *records, const struct cdi_root *root, double age,
                void (*found)(void *context, const char *name), void *context)
{
    find_left(records, root, ".", age, found, context);
    find_left(records, root, CDI_TURNS, age, found, context);
}

/* ---- questions */

bool given_has(const struct given *record, const char *resource, char *const *ids, size_t count)
{
    if (strcmp(record->resource, resource) != 0)
        return false;
    for (unsigned i = 0; i < record->ids; i++) {
        for (size_t j = 0; j < count; j++) {
            if (strcmp(record->id[i], ids[j]) == 0)
                return true;
        }
    }
    return false;
}

bool given_overlap(const struct given *one, const struct given *other)
{
    if (strcmp(one->resource, other->resource) != 0 || strcmp(one->uuid, other->uuid) != 0)
        return false;
    for (unsigned i = 0; i < one->ids; i++) {
        for (unsigned j = 0; j < other->ids; j++) {
            if (strcmp(one->id[i], other->id[j]) == 0)
                return true;
        }
    }
    return false;
}

void given_label(struct given *record, const struct cdi_root *root, const char *pod, const char *namespace, const char *container)
{
    const char *const label[][2] = {{"pod", pod}, {"namespace", namespace}, {"container", container}};
    char text[4 * OBSERVE_LABEL] = "[labels]\n";

    if (strcmp(record->pod, pod) == 0 && strcmp(record->namespace, namespace) == 0 && strcmp(record->container, container) == 0)
        return;
    snprintf(record->pod, sizeof(record->pod), "%s", pod);
    snprintf(record->namespace, sizeof(record->namespace), "%s", namespace);
    snprintf(record->container, sizeof(record->container), "%s", container);
    /* One that is longer than a line can be is left out. */
    for (unsigned i = 0; i < sizeof(label) / sizeof(*label); i++) {
        if (*label[i][1] && strlen(label[i][0]) + strlen(label[i][1]) + 3 <= INI_LINE_MAX)
            sprintf(text + strlen(text), "%s = %s\n", label[i][0], label[i][1]);
    }
    CLEANUP_CLOSE int folder = openat(root->fd, record->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = folder < 0 ? -errno : cdi_write(folder, "labels.ini", text, strlen(text), 0644);
    if (result == 0) {
        say_info("%s is container %s of pod %s/%s", record->name, container, namespace, pod);
        return;
    }
    *record->container = '\0'; /* so that it is tried again */
    if (!record->unlabelled)
        say_warning("%s: its labels cannot be written: %s", record->name, strerror(-result));
    record->unlabelled = true;
}

bool given_is_there(const struct cdi_root *root, const char *name)
{
    return !is_missing(root->fd, name);
}

bool given_lives(const struct cdi_root *root, const char *name)
{
    return cdi_host_processes(root, name) > 0;
}

int given_name(const struct cdi_root *root, char name[CONFIG_TENANT_MAX])
{
    uint32_t number;

    for (unsigned i = 0; i < 1000; i++) {
        if (getrandom(&number, sizeof(number), 0) != sizeof(number))
            return -errno;
        snprintf(name, CONFIG_TENANT_MAX, GIVEN_PREFIX "%0*x", DIGITS, number);
        if (is_missing(root->fd, name))
            return 0;
    }
    return -EEXIST;
}
