/* SPDX-License-Identifier: Apache-2.0 */
/* CDI specs: read, added to and written, in the lowest version of the specification that says what is in them. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>

#include "cdi.h"

#define SPEC_MAX (16 << 20)

/* The container runtime interface libraries know nothing older; a device's name may begin with a digit from 0.5.0 on. */
#define VERSION       "0.3.0"
#define VERSION_DIGIT "0.5.0"

static int no_memory(struct cli_error *error)
{
    return cli_fail(error, -1, "out of memory");
}

/* ---- reading */

static const char *text_of_key(struct json_object *object, const char *key)
{
    struct json_object *value;

    return json_object_object_get_ex(object, key, &value) && json_object_is_type(value, json_type_string)
               ? json_object_get_string(value)
               : NULL;
}

static struct json_object *array_of(struct json_object *object, const char *key)
{
    struct json_object *value;

    return object && json_object_object_get_ex(object, key, &value) && json_object_is_type(value, json_type_array) ? value : NULL;
}

static struct json_object *devices_of(const struct cdi_spec *spec)
{
    return array_of(spec->object, "devices");
}

/* "0.5.0" as a number to compare; 0: none. */
static unsigned version_number(const char *text)
{
    unsigned part[3];
    char rest;

    if (!text || sscanf(text, "%3u.%3u.%3u%c", &part[0], &part[1], &part[2], &rest) != 3)
        return 0;
    return part[0] * 1000000 + part[1] * 1000 + part[2] + 1;
}

static bool is_spec(struct json_object *object)
{
    struct json_object *devices = object ? array_of(object, "devices") : NULL;

    if (!devices || !json_object_is_type(object, json_type_object) || !version_number(text_of_key(object, "cdiVersion")) ||
        !text_of_key(object, "kind"))
        return false;
    for (size_t i = 0; i < json_object_array_length(devices); i++) {
        struct json_object *device = json_object_array_get_idx(devices, i);

        if (!json_object_is_type(device, json_type_object) || !text_of_key(device, "name"))
            return false;
    }
    return true;
}

/* The whole of a regular file, as memory to free; NULL with errno set. */
static char *read_file(const char *path, size_t *length)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    char *text;

    *length = 0;
    if (fd < 0 || fstat(fd, &status) < 0)
        return NULL;
    if (!S_ISREG(status.st_mode) || status.st_size > SPEC_MAX) {
        errno = S_ISREG(status.st_mode) ? EFBIG : EINVAL;
        return NULL;
    }
    text = malloc((size_t)status.st_size + 1);
    while (text && *length < (size_t)status.st_size) {
        ssize_t got = read(fd, text + *length, (size_t)status.st_size - *length);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(text);
            return NULL;
        }
        if (got == 0)
            break;
        *length += (size_t)got;
    }
    if (text)
        text[*length] = '\0';
    return text;
}

/* NULL where it is not JSON from its first to its last byte. */
static struct json_object *parse(const char *text, size_t length)
{
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *object = NULL;

    if (tokener) {
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        object = json_tokener_parse_ex(tokener, text, (int)length + 1);
        json_tokener_free(tokener);
    }
    return object;
}

static int begin(struct cdi_spec *spec, const char *kind, struct cli_error *error)
{
    spec->object = json_object_new_object();
    if (!spec->object || json_object_object_add(spec->object, "cdiVersion", json_object_new_string(VERSION)) ||
        json_object_object_add(spec->object, "kind", json_object_new_string(kind)) ||
        json_object_object_add(spec->object, "devices", json_object_new_array()))
        return no_memory(error);
    return 0;
}

int cdi_spec_open(struct cdi_spec *spec, const char *path, const char *kind, struct cli_error *error)
{
    CLEANUP_FREE char *text = NULL;
    size_t length;

    memset(spec, 0, sizeof(*spec));
    if (!*path)
        return begin(spec, kind, error);
    snprintf(spec->path, sizeof(spec->path), "%s", path);
    text = read_file(path, &length);
    if (!text && errno == ENOENT && kind)
        return begin(spec, kind, error);
    if (!text)
        return cli_fail(error, -1, "cdi: %s: %s", path, errno == EINVAL ? "not a regular file" : strerror(errno));
    spec->object = parse(text, length);
    if (!is_spec(spec->object))
        return cli_fail(
            error, -1,
            "cdi: %s is not a CDI spec in JSON (nvidia-ctk writes one with 'cdi generate --format=json'); nothing is changed",
            path);
    if (kind && strcmp(cdi_spec_kind(spec), kind) != 0)
        return cli_fail(error, -1, "cdi: %s is a spec of kind %s, not %s: name another file, or add to it with --merge-into", path,
                        cdi_spec_kind(spec), kind);
    return 0;
}

void cdi_spec_close(struct cdi_spec *spec)
{
    json_object_put(spec->object);
    spec->object = NULL;
}

const char *cdi_spec_kind(const struct cdi_spec *spec)
{
    return text_of_key(spec->object, "kind");
}

/* ---- devices */

static bool find(const struct cdi_spec *spec, const char *name, size_t *index)
{
    struct json_object *devices = devices_of(spec);

    for (*index = 0; *index < json_object_array_length(devices); ++*index) {
        if (strcmp(text_of_key(json_object_array_get_idx(devices, *index), "name"), name) == 0)
            return true;
    }
    return false;
}

/* Ours is told by what it mounts. */
static bool is_ours(struct json_object *device)
{
    struct json_object *edits, *mounts;

    if (!json_object_object_get_ex(device, "containerEdits", &edits) || !(mounts = array_of(edits, "mounts")))
        return false;
    for (size_t i = 0; i < json_object_array_length(mounts); i++) {
        const char *path = text_of_key(json_object_array_get_idx(mounts, i), "containerPath");

        if (path && strcmp(path, CDI_ETC) == 0)
            return true;
    }
    return false;
}

bool cdi_spec_has(const struct cdi_spec *spec, const char *name)
{
    size_t index;

    return find(spec, name, &index) && is_ours(json_object_array_get_idx(devices_of(spec), index));
}

void cdi_spec_drop(struct cdi_spec *spec, const char *name)
{
    size_t index;

    if (!find(spec, name, &index) || !is_ours(json_object_array_get_idx(devices_of(spec), index)))
        return;
    json_object_array_del_idx(devices_of(spec), index, 1);
    spec->changed = true;
}

static bool add_mount(struct json_object *mounts, const char *host, const char *container, const char *first, bool runs)
{
    struct json_object *mount = json_object_new_object(), *options = json_object_new_array();
    bool added = mount && options && json_object_array_add(options, json_object_new_string(first)) == 0 &&
                 json_object_array_add(options, json_object_new_string("nosuid")) == 0 &&
                 json_object_array_add(options, json_object_new_string("nodev")) == 0 &&
                 (runs || json_object_array_add(options, json_object_new_string("noexec")) == 0) &&
                 json_object_array_add(options, json_object_new_string("bind")) == 0 &&
                 json_object_object_add(mount, "hostPath", json_object_new_string(host)) == 0 &&
                 json_object_object_add(mount, "containerPath", json_object_new_string(container)) == 0;

    if (!added || json_object_object_add(mount, "options", options)) {
        json_object_put(options);
        json_object_put(mount);
        return false;
    }
    if (json_object_array_add(mounts, mount) == 0)
        return true;
    json_object_put(mount);
    return false;
}

static bool add_mounts(struct json_object *mounts, const struct cdi_root *root, const char *name, const char *library)
{
    static struct cdi_mount mount[CDI_MOUNTS];
    bool added = true;

    cdi_mounts(mount, root->path, name, library);
    for (unsigned i = 0; i < CDI_MOUNTS && added; i++)
        added = add_mount(mounts, mount[i].host, mount[i].container, mount[i].writable ? "rw" : "ro", mount[i].runs);
    return added;
}

/* The edits of `gpu` as they are, as ours to add to; none for NULL. */
static struct json_object *copy_edits(const struct cdi_spec *spec, const char *gpu, struct cli_error *error)
{
    struct json_object *edits, *copy = NULL;
    size_t index;

    if (!gpu)
        return json_object_new_object();
    if (!find(spec, gpu, &index)) {
        cli_fail(error, -1, "cdi: %s has no device '%s'", spec->path, gpu);
        return NULL;
    }
    if (is_ours(json_object_array_get_idx(devices_of(spec), index))) {
        cli_fail(error, -1, "cdi: device '%s' of %s is a budget, not a GPU", gpu, spec->path);
        return NULL;
    }
    if (!json_object_object_get_ex(json_object_array_get_idx(devices_of(spec), index), "containerEdits", &edits))
        return json_object_new_object();
    if (!json_object_is_type(edits, json_type_object) || json_object_deep_copy(edits, &copy, NULL) < 0) {
        cli_fail(error, -1, "cdi: device '%s' of %s cannot be copied", gpu, spec->path);
        return NULL;
    }
    return copy;
}

static int raise_version(struct cdi_spec *spec, const char *name)
{
    const char *needed = isdigit((unsigned char)*name) ? VERSION_DIGIT : VERSION;

    if (version_number(text_of_key(spec->object, "cdiVersion")) >= version_number(needed))
        return 0;
    return json_object_object_add(spec->object, "cdiVersion", json_object_new_string(needed));
}

int cdi_spec_put(struct cdi_spec *spec, const struct cdi_root *root, const char *name, const char *gpu, const char *library,
                 struct cli_error *error)
{
    struct json_object *device, *edits, *mounts;
    size_t index;
    bool there = find(spec, name, &index);

    if (there && !is_ours(json_object_array_get_idx(devices_of(spec), index)))
        return cli_fail(error, -1, "cdi: %s has a device '%s' that softslice did not make: choose another name", spec->path, name);
    edits = copy_edits(spec, gpu, error);
    if (!edits)
        return *error->text ? -1 : no_memory(error);
    mounts = array_of(edits, "mounts");
    if (!mounts) {
        mounts = json_object_new_array();
        json_object_object_add(edits, "mounts", mounts);
    }
    device = json_object_new_object();
    if (!mounts || !device || !add_mounts(mounts, root, name, library) ||
        json_object_object_add(device, "name", json_object_new_string(name)) ||
        json_object_object_add(device, "containerEdits", edits)) {
        json_object_put(edits);
        json_object_put(device);
        return no_memory(error);
    }
    if (raise_version(spec, name) ||
        (there ? json_object_array_put_idx(devices_of(spec), index, device) : json_object_array_add(devices_of(spec), device))) {
        json_object_put(device);
        return no_memory(error);
    }
    spec->changed = true;
    return 0;
}

/* ---- writing */

int cdi_spec_write(const struct cdi_spec *spec, struct cli_error *error)
{
    char folder[PATH_MAX], *name;
    struct stat status;
    const char *text;
    mode_t mode = 0644;
    int result;

    text = json_object_to_json_string_ext(spec->object,
                                          JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
    if (!text)
        return no_memory(error);
    if (!*spec->path)
        return puts(text) < 0 ? cli_fail(error, -1, "cannot write to standard output") : 0;
    snprintf(folder, sizeof(folder), "%s", spec->path);
    name = strrchr(folder, '/');
    *name++ = '\0';
    CLEANUP_CLOSE int fd = open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cli_fail(error, -1, "cdi: %s: %s", folder, strerror(errno));
    if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode))
        mode = status.st_mode & 0777;
    if (json_object_array_length(devices_of(spec)) == 0) {
        result = unlinkat(fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
    } else {
        CLEANUP_FREE char *whole = NULL;
        int length = asprintf(&whole, "%s\n", text);

        result = length < 0 ? -ENOMEM : cdi_write(fd, name, whole, (size_t)length, mode);
    }
    return result < 0 ? cli_fail(error, -1, "cdi: cannot write %s: %s", spec->path, strerror(-result)) : 0;
}
