/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the configuration once and tells what is armed. */
#include "arm.h"

#include <stddef.h>
#include <sys/mman.h>

#include "resolve.h"
#include "softslice/log.h"

static const struct config *published;
static unsigned armed; /* enum resolve_arm, or ARMED_KNOWN alone: 0 means not yet read */
#define ARMED_KNOWN 0x100u

static const struct config no_memory = {.on_error = CONFIG_CLOSED, .log = LOG_WARN, .error = "no memory for the configuration"};

static unsigned dimensions_of(const struct config *config)
{
    if (config->error[0])
        return config->on_error == CONFIG_OPEN ? 0 : RESOLVE_ANY;
    if (config->disable)
        return 0;
    return (config_arms_vram(config) ? RESOLVE_VRAM : 0) | (config_arms_compute(config) ? RESOLVE_COMPUTE : 0);
}

static void report(const struct config *config)
{
    log_configure(config->log, config->log_file[0] ? config->log_file : NULL);
    if (!config->error[0])
        return;
    if (config->on_error == CONFIG_OPEN)
        log_error("%s; running without limits (on_error = open)", config->error);
    else
        log_error("%s; CUDA will not start (a framework may fall back to the CPU)%s", config->error,
                  config->admin_present ? "" : "; SOFTSLICE_ON_ERROR=open runs without limits");
}

const struct config *arm_config(void)
{
    const struct config *config = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
    if (config)
        return config;

    struct config *mine = mmap(NULL, sizeof(*mine), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mine == MAP_FAILED) {
        config = &no_memory;
    } else {
        config_load_process(mine);
        config = mine;
    }

    const struct config *nobody = NULL;
    if (__atomic_compare_exchange_n(&published, &nobody, config, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        report(config);
    } else {
        if (mine != MAP_FAILED)
            munmap(mine, sizeof(*mine));
        config = nobody;
    }
    return config;
}

unsigned arm_dimensions(void)
{
    unsigned known = __atomic_load_n(&armed, __ATOMIC_RELAXED);
    if (!known) {
        known = ARMED_KNOWN | dimensions_of(arm_config());
        __atomic_store_n(&armed, known, __ATOMIC_RELAXED);
    }
    return known & ~ARMED_KNOWN;
}
