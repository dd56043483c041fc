/* SPDX-License-Identifier: Apache-2.0 */
/* What the user and the admin asked for: environment, user ini, other enforcers' variables and the admin's file, in one struct
 * without pointers to the heap, so that it can be read into a mapping and published by one compare-and-swap. */
#ifndef SOFTSLICE_CONFIG_H
#define SOFTSLICE_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "softslice/log.h"
#include "softslice/units.h"

#define CONFIG_TENANT_MAX 64 /* a tenant's name with its NUL: [A-Za-z0-9._-], not starting with '.' */
#define CONFIG_RULES_MAX  64 /* limits of all sources together, per dimension */
#define CONFIG_ERROR_MAX  512
#define CONFIG_NAME_MAX   80
#define CONFIG_ADMIN_FILE "/etc/softslice/softslice.ini"

enum config_source {
    CONFIG_DEFAULT,
    CONFIG_USER_INI,    /* the file named by SOFTSLICE_CONFIG */
    CONFIG_ENVIRONMENT, /* SOFTSLICE_* */
    CONFIG_HAMI,        /* CUDA_DEVICE_MEMORY_LIMIT[_i], CUDA_DEVICE_SM_LIMIT[_i] */
    CONFIG_NVIDIA,      /* NVIDIA_GPU_MEMORY_LIMIT */
    CONFIG_ADMIN        /* CONFIG_ADMIN_FILE */
};

enum config_mode { CONFIG_MODE_CAP, CONFIG_MODE_SHARE };
enum config_on_error { CONFIG_CLOSED, CONFIG_OPEN };
enum config_managed { CONFIG_MANAGED_CHARGE, CONFIG_MANAGED_RESIDENT, CONFIG_MANAGED_FORBID };
enum config_spill { CONFIG_SPILL_OFF, CONFIG_SPILL_HOST };
enum config_keep_asleep { CONFIG_KEEP_ASLEEP_OFF, CONFIG_KEEP_ASLEEP_ON };

/* One row of core/config.def, in its order. */
enum config_key {
#define CONFIG_KEY(key, NAME, type, fallback, help) CONFIG_##NAME,
#include "config.def"
    CONFIG_KEYS
};

/* Where in its source a value stood. */
enum config_section { CONFIG_FOR_ALL /* [softslice], or a variable */, CONFIG_FOR_TENANT, CONFIG_FOR_GPU };

/* A limit as one source gave it, for one device or for all. */
struct config_rule {
    struct units_device device;
    struct units_amount amount;
    uint8_t source;      /* enum config_source */
    uint8_t section;     /* enum config_section */
    uint8_t specificity; /* the most specific rule of a source holds: 1 for [tenant] + 2 for a single device */
    uint16_t line;       /* of the ini file, 0 elsewhere */
};

struct config_rules {
    unsigned count;
    struct config_rule rule[CONFIG_RULES_MAX];
};

/* What HAMi's variables say beside limits: core/config_hami.c. */
struct config_hami {
    char cache[PATH_MAX]; /* the file that its monitor reads; "" where there is none */
    uint8_t priority;     /* for the monitor: 0 high, 1 low */
    bool yields;          /* CUDA_DEVICE_SM_LIMIT is all that limits compute, and the monitor may say that it does not hold now */
};

struct config {
    struct config_rules vram;    /* bytes or percent of the device */
    struct config_rules compute; /* percent */
    uint32_t weight;             /* 1 to 10000, default 100; weight_set tells whether anybody said it */
    bool weight_set;
    uint32_t admin_weight; /* the admin's maximum, 0 where there is none; `weight` keeps to it already */
    enum config_mode mode;
    enum config_on_error on_error;
    enum config_managed managed;
    enum config_spill spill;
    uint64_t headroom; /* bytes */
    enum config_keep_asleep keep_asleep;
    uint64_t period_us, quantum_us, max_stall_us;
    enum log_level log;
    bool disable;      /* the user's, or the admin's; the user's does not count where the admin's file sets a limit for the tenant.
                         * Where it holds nothing else was checked */
    bool tenant_named; /* false: each process is its own tenant */
    char tenant[CONFIG_TENANT_MAX];
    char state_dir[PATH_MAX]; /* "" where neither the admin nor the user named one: see ledger_state_dir() */
    char log_file[PATH_MAX];
    char user_ini[PATH_MAX];
    char admin_ini[PATH_MAX];
    bool admin_present;
    struct config_hami hami;
    struct {
        uint8_t source; /* enum config_source; for limits the source that comes first in precedence, see each rule's own */
        uint16_t line;
        char name[CONFIG_NAME_MAX]; /* the variable or "[section]" that said it */
    } from[CONFIG_KEYS];
    char error[CONFIG_ERROR_MAX]; /* one line, "" if all is well: names the variable, or the file and line */
};

/* Where to look. Injected so that tests need no real environment and no root. */
struct config_input {
    const char *(*getenv)(void *context, const char *name);
    char **environment; /* to find misspelt SOFTSLICE_* names; may be NULL */
    void *context;
    const char *admin_file;   /* CONFIG_ADMIN_FILE */
    unsigned admin_owner;     /* uid that the admin's file belongs to: 0, but in tests */
    bool (*is_drop_in)(void); /* whether this library stands in HAMi's place; may be NULL: no */
};

/* Fill `config` from all sources. 0, or -EINVAL with config->error set, in which case on_error, log and log_file are nevertheless
 * as well known as the sources allow, and nothing else may be used. Reads files with bounded buffers on the stack; no malloc, no
 * stdio, no locks; errno is kept; takes less than 32 KiB of stack and returns its one temporary mapping. A user's SOFTSLICE_ON_ERROR
 * or SOFTSLICE_DISABLE cannot open what the admin's file closes, be it by its on_error or by setting a limit. */
int config_load(struct config *config, const struct config_input *input);

/* config_load() from this process's environment (none under setuid, as secure_getenv) and CONFIG_ADMIN_FILE. */
int config_load_process(struct config *config);

/* A device, to find the rules that are for it. ordinal is -1 where it is not known (NVML). */
struct config_device {
    uint8_t uuid[16];
    int ordinal;
    uint64_t physical; /* bytes of HBM */
};

/* The limit in bytes that the process's own sources give `device` (environment over user ini, the more specific rule over the
 * less; other enforcers' by minimum with it), UINT64_MAX if none. `rule` (may be NULL) receives the rule that decided. */
uint64_t config_vram_own(const struct config *config, const struct config_device *device, const struct config_rule **rule);

/* The admin's limit in bytes for `device`, UINT64_MAX if none. */
uint64_t config_vram_admin(const struct config *config, const struct config_device *device, const struct config_rule **rule);

/* The same for the compute share, in hundredths of a percent; 10000 if none. */
uint32_t config_compute_own(const struct config *config, const struct config_device *device, const struct config_rule **rule);
uint32_t config_compute_admin(const struct config *config, const struct config_device *device, const struct config_rule **rule);

/* Whether the limits name only devices that are there: `devices` are all that this process can see. A rule of a SOFTSLICE_* variable must
 * match one of them. One of the user's ini may be for other machines, but then must not leave a device without any limit of its own:
 * the name may be misspelt. 0, or -EINVAL with one line in config->error. */
int config_check_devices(struct config *config, const struct config_device *devices, unsigned count);

/* Armed dimensions (design, section 2): VRAM where any VRAM limit is set or a tenant is named, compute where a share or weight is.
 * Neither if disabled. */
bool config_arms_vram(const struct config *config);
bool config_arms_compute(const struct config *config);

/* For `softslice config` and the man page: name ("vram"), environment variable, help, of one key. */
struct config_key_info {
    const char *key, *variable, *fallback, *help;
};
extern const struct config_key_info config_keys[CONFIG_KEYS];

/* The value of `key` as text, as `softslice config` prints it: "20 GiB", "0=20 GiB, 1=25%" (all sources' limits), "none". Returns `text`. */
const char *config_value(const struct config *config, enum config_key key, char *text, unsigned size);

/* Who said it: "SOFTSLICE_VRAM", "/etc/softslice/softslice.ini:12 [tenant a]", "default". Returns `text`. */
const char *config_origin(const struct config *config, enum config_key key, char *text, unsigned size);

/* The same for a single limit of `key` (CONFIG_VRAM or CONFIG_COMPUTE): "0=20 GiB" and "CUDA_DEVICE_MEMORY_LIMIT_0". */
const char *config_rule_value(const struct config_rule *rule, char *text, unsigned size);
const char *config_rule_origin(const struct config *config, enum config_key key, const struct config_rule *rule, char *text,
                               unsigned size);

#endif
