/* SPDX-License-Identifier: Apache-2.0 */
/* What HAMi's variables say beside limits: its cache file, which makes a container's processes one tenant, its policy and its log level. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "compat.h"
#include "config_internal.h"
#include "ledger_sys.h"
#include "softslice/ledger.h"

#define CACHE         "CUDA_DEVICE_MEMORY_SHARED_CACHE"
#define CACHE_DEFAULT "/tmp/cudevshr.cache"
#define CACHE_ENDING  ".cache"
#define POLICY        "GPU_CORE_UTILIZATION_POLICY"
#define PRIORITY      "CUDA_TASK_PRIORITY"
#define LOG_LEVEL     "LIBCUDA_LOG_LEVEL"
#define TENANT_PREFIX "hami-"
#define LIBRARY       "libvgpu.so"

static bool is_word(const char *value, const char *lower, const char *upper)
{
    return value && (strcmp(value, lower) == 0 || strcmp(value, upper) == 0);
}

bool config_hami_frees_compute(const struct config_loader *loader)
{
    return is_word(config_variable(loader, POLICY), "disable", "DISABLE");
}

static bool has_rule(const struct config_rules *rules)
{
    for (unsigned i = 0; i < rules->count; i++) {
        if (rules->rule[i].source == CONFIG_HAMI)
            return true;
    }
    return false;
}

/* One that is not understood is no reason to say more or less than we would. */
static void read_log_level(struct config_loader *loader)
{
    static const uint8_t levels[] = {LOG_ERROR, LOG_WARN, LOG_WARN, LOG_INFO, LOG_DEBUG};
    struct config_at at = {.source = CONFIG_HAMI, .name = LOG_LEVEL};
    const char *value = config_variable(loader, LOG_LEVEL);

    if (value && value[0] >= '0' && value[0] <= '4' && !value[1] && config_claim(loader, CONFIG_LOG, &at))
        loader->config->log = levels[value[0] - '0'];
}

static void read_cache(struct config_loader *loader)
{
    const char *value = config_variable(loader, CACHE), *slash;
    bool limited = has_rule(&loader->config->vram) || has_rule(&loader->config->compute);

    /* HAMi has this file wherever it is loaded. Where it is not HAMi's place that we are in, a limit alone is each process's own. */
    if (!value && limited && loader->input->is_drop_in && loader->input->is_drop_in())
        value = CACHE_DEFAULT;
    if (!value)
        return;
    slash = strrchr(value, '/');
    if (value[0] != '/' || !slash[1] || strlen(value) >= sizeof(loader->config->hami.cache)) {
        log_format(loader->reason, sizeof(loader->reason), "not an absolute path of a file, which tells whose budget it is");
        config_fail_variable(loader, CACHE, value);
        return;
    }
    memcpy(loader->config->hami.cache, value, strlen(value) + 1);
}

void config_read_hami(struct config_loader *loader)
{
    const char *priority = config_variable(loader, PRIORITY);

    loader->config->hami.priority = !(priority && strcmp(priority, "0") == 0);
    read_log_level(loader);
    read_cache(loader);
}

/* The file's name without its ending, in the letters that a tenant's name may have. Two files whose names become one share a budget. */
static void tenant_of(const char *cache, char tenant[CONFIG_TENANT_MAX])
{
    const char *name = strrchr(cache, '/') + 1;
    size_t length = strlen(name), ending = strlen(CACHE_ENDING);

    if (length > ending && strcmp(name + length - ending, CACHE_ENDING) == 0)
        length -= ending;
    if (length > CONFIG_TENANT_MAX - sizeof(TENANT_PREFIX))
        length = CONFIG_TENANT_MAX - sizeof(TENANT_PREFIX);
    memcpy(tenant, TENANT_PREFIX, sizeof(TENANT_PREFIX) - 1);
    tenant += sizeof(TENANT_PREFIX) - 1;
    for (size_t i = 0; i < length; i++)
        tenant[i] = text_is_alnum(name[i]) || name[i] == '.' || name[i] == '_' || name[i] == '-' ? name[i] : '_';
    tenant[length] = '\0';
}

/* Whether nobody but HAMi and the admin, who is asked anyway, limits compute. */
static bool yields(const struct config_loader *loader)
{
    const struct config_rules *rules = &loader->config->compute;

    for (unsigned i = 0; i < rules->count; i++) {
        if (rules->rule[i].source != CONFIG_HAMI && rules->rule[i].source != CONFIG_ADMIN)
            return false;
    }
    return has_rule(rules) && !is_word(config_variable(loader, POLICY), "force", "FORCE");
}

void config_name_hami(struct config_loader *loader)
{
    struct config *config = loader->config;
    struct config_at at = {.source = CONFIG_HAMI, .name = CACHE};

    if (!*config->hami.cache)
        return;
    config->hami.yields = yields(loader);
    if (config->tenant_named)
        return;
    config_claim(loader, CONFIG_TENANT, &at);
    config->tenant_named = true;
    tenant_of(config->hami.cache, config->tenant);
    if (config_claim(loader, CONFIG_STATE_DIR, &at))
        memcpy(config->state_dir, LEDGER_COMMON_DIR, sizeof(LEDGER_COMMON_DIR));
}

/* ---- our own file's name, without a lock of the dynamic linker's: this runs while somebody looks a symbol up */

/* Reads /proc/self/maps letter by letter. */
struct maps {
    uintptr_t address; /* whose file is looked for */
    uintptr_t number[2];
    unsigned field;   /* 0 and 1: the addresses; then the rest of the line */
    unsigned matched; /* letters of LIBRARY after the last slash; beyond its length: another name */
    bool found;
};

static void end_line(struct maps *maps)
{
    maps->found |=
        maps->field == 2 && maps->matched == strlen(LIBRARY) && maps->address >= maps->number[0] && maps->address < maps->number[1];
    maps->number[0] = maps->number[1] = 0;
    maps->field = 0;
    maps->matched = UINT_MAX;
}

static void take_letter(struct maps *maps, char c)
{
    if (c == '\n') {
        end_line(maps);
    } else if (maps->field < 2) {
        if (text_is_digit(c) || (c >= 'a' && c <= 'f'))
            maps->number[maps->field] = maps->number[maps->field] << 4 | (uintptr_t)(text_is_digit(c) ? c - '0' : c - 'a' + 10);
        else
            maps->field++;
    } else if (c == '/') {
        maps->matched = 0;
    } else if (maps->matched < strlen(LIBRARY)) {
        maps->matched = c == LIBRARY[maps->matched] ? maps->matched + 1 : UINT_MAX;
    }
}

bool config_is_drop_in(void)
{
    struct maps maps = {.address = (uintptr_t)config_is_drop_in, .matched = UINT_MAX};
    int fd = sys_openat(AT_FDCWD, "/proc/self/maps", O_RDONLY, 0), saved = errno;
    char buffer[1024];
    ssize_t size;

    if (fd < 0)
        return false;
    while (!maps.found && (size = sys_result(syscall(SYS_read, fd, buffer, sizeof(buffer)))) > 0) {
        for (ssize_t i = 0; i < size; i++)
            take_letter(&maps, buffer[i]);
    }
    sys_close(fd);
    errno = saved;
    return maps.found;
}
