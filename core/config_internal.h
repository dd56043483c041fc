/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of config: how values from several sources come together while config_load() runs. */
#ifndef SOFTSLICE_CORE_CONFIG_INTERNAL_H
#define SOFTSLICE_CORE_CONFIG_INTERNAL_H

#include "softslice/config.h"
#include "text.h"

enum config_type {
    CONFIG_TYPE_limits,
    CONFIG_TYPE_integer,
    CONFIG_TYPE_choice,
    CONFIG_TYPE_name,
    CONFIG_TYPE_path,
    CONFIG_TYPE_size,
    CONFIG_TYPE_time,
    CONFIG_TYPE_boolean
};

#define CONFIG_TENANT_UNNAMED "default" /* of who named no tenant where the admin's file has a limit */
#define CONFIG_REASON_MAX     160
#define CONFIG_QUOTE_MAX      80

/* Where a value comes from. */
struct config_at {
    enum config_source source;
    enum config_section section;
    unsigned line;              /* of an ini file */
    const char *name;           /* the variable or "[section]" */
    struct units_device device; /* of [gpu UUID], or of an alias with an ordinal */
};

/* config_load()'s state. */
struct config_loader {
    struct config *config;
    const struct config_input *input;
    uint8_t rank[CONFIG_KEYS];         /* of who said the key so far; a higher one replaces it */
    uint32_t own_weight, admin_weight; /* 0: not said */
    uint8_t admin_weight_rank;
    unsigned admin_weight_line;
    char admin_weight_name[CONFIG_NAME_MAX];
    bool admin_bad;                 /* the admin's file is there and cannot be used */
    bool admin_limits;              /* it has a limit in any section */
    bool admin_limits_unnamed;      /* it has one in [tenant default] */
    char reason[CONFIG_REASON_MAX]; /* why config_set() refused */
};

/* config.c: the table's types, the words of a choice (NULL-terminated), and the key that `name` is, or CONFIG_KEYS. */
enum config_type config_type_of(enum config_key key);
const char *const *config_choices(enum config_key key);
enum config_key config_find(struct text name);

/* The key whose name is so near to `name` that it may have been meant, or CONFIG_KEYS. */
enum config_key config_nearest(struct text name);

/* config_set.c: check the text of a value, and enter it if `apply` and no source of higher precedence said it. False with
 * loader->reason if it is bad. */
bool config_set(struct config_loader *loader, enum config_key key, struct text value, const struct config_at *at, bool apply);

/* Add one limit. False with loader->reason where the source gave one for this device already, or there are too many. */
bool config_add_rule(struct config_loader *loader, struct config_rules *rules, const struct units_device *device,
                     const struct units_amount *amount, const struct config_at *at);

/* Note who said `key`, if nobody of higher precedence did. True if so. */
bool config_claim(struct config_loader *loader, enum config_key key, const struct config_at *at);

/* The first error is the one that is kept. */
void config_fail(struct config_loader *loader, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `text` for an error line: cut, and without what would not print. */
const char *config_quote(char quote[CONFIG_QUOTE_MAX], struct text text);

/* A tenant's name: [A-Za-z0-9._-], not starting with '.', at most 63. */
bool config_is_tenant(struct text name);

/* config_env.c */
void config_read_environment(struct config_loader *loader);
void config_read_aliases(struct config_loader *loader);

/* The value of a variable, NULL where it is unset or empty; and to refuse it for loader->reason. */
const char *config_variable(const struct config_loader *loader, const char *name);
void config_fail_variable(struct config_loader *loader, const char *name, const char *value);

/* config_hami.c: what HAMi's variables say beside limits, once those are read; whether its limit of compute is off; then, when all else is read, the tenant
 * and the state directory of a container of HAMi's, where nobody named a tenant. */
void config_read_hami(struct config_loader *loader);
bool config_hami_frees_compute(const struct config_loader *loader);
void config_name_hami(struct config_loader *loader);

/* Whether this code is in a file that is called libvgpu.so, as HAMi's library is. */
bool config_is_drop_in(void);

/* config_file.c: what the whole file says but for [tenant] sections, which are checked; then the section of `tenant` alone. */
struct ini_file;
void config_read_file(struct config_loader *loader, struct ini_file *file, enum config_source source);
void config_read_tenant(struct config_loader *loader, struct ini_file *file, enum config_source source, const char *tenant);

#endif
