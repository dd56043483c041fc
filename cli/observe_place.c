/* SPDX-License-Identifier: Apache-2.0 */
/* Which state directory the programs of this environment use, if nobody names one. */
#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "cli.h"
#include "observe.h"

bool observe_in_hamis_place(void)
{
    void *library =
        dlopen(CLI_LIBRARY, RTLD_LAZY | RTLD_NOLOAD); /* by the name that it has in itself, whatever its file is called */
    struct link_map *map;
    bool is = library && dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && strrchr(map->l_name, '/') &&
              strcmp(strrchr(map->l_name, '/'), "/libvgpu.so") == 0;

    if (library)
        dlclose(library);
    return is;
}

/* What says where it is, and besides whose processes share a budget in HAMi's way: they have a directory of their own. */
static const char *get_variable(void *without_hami, const char *name)
{
    if (strcmp(name, "SOFTSLICE_STATE_DIR") == 0 || strcmp(name, "SOFTSLICE_CONFIG") == 0)
        return getenv(name);
    if (!without_hami && (strcmp(name, "SOFTSLICE_TENANT") == 0 || strncmp(name, "CUDA_DEVICE_", strlen("CUDA_DEVICE_")) == 0 ||
                          strcmp(name, "GPU_CORE_UTILIZATION_POLICY") == 0))
        return getenv(name);
    return NULL;
}

int observe_configured(struct config *config)
{
    static char yes;
    struct config_input input = {.getenv = get_variable, .admin_file = CONFIG_ADMIN_FILE, .is_drop_in = observe_in_hamis_place};

    if (config_load(config, &input) == 0)
        return 0;
    /* Where a limit is not understood there is no CUDA, but there may be tenants of others. */
    input.context = &yes;
    return config_load(config, &input);
}
