/* SPDX-License-Identifier: Apache-2.0 */
/* The admin's file: whose it must be, how its limits combine with the user's, what a user may not switch off; and devices that are not there. */
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

#include "config_helper.h"

CONFIG_TEST_SUITE(config_admin);

/* ---- the admin's file */

Test(config_admin, admin_limits_by_minimum_and_tenant)
{
    write_admin("[softslice]\nvram = 10GiB\nweight = 50\n[tenant big]\nvram = 50%\n[gpu " UUID_B "]\nvram=1GiB\n");
    set("SOFTSLICE_VRAM", "20GiB");
    set("SOFTSLICE_WEIGHT", "100");
    GOOD();
    cr_expect(own(&gpu_a) == 20 * GIB && admin(&gpu_a) == 10 * GIB && admin(&gpu_b) == GIB);
    cr_expect(config.tenant_named && config.admin_present);
    EXPECT_TEXT(config.tenant, "default");
    cr_expect(config.weight == 50, "a weight is a quantity: the smaller holds");
    expect_from(CONFIG_WEIGHT, "admin.ini", "3 [softslice]");
    set("SOFTSLICE_TENANT", "big");
    GOOD();
    cr_expect(admin(&gpu_a) == 40 * GIB && admin(&gpu_b) == GIB);
    EXPECT_TEXT(config.tenant, "big");
    forget();
    write_admin("[softslice]\nweight = 50\n");
    set("SOFTSLICE_WEIGHT", "20");
    GOOD();
    cr_expect(config.weight == 20 && !config.tenant_named);
    EXPECT_TEXT(origin_of(CONFIG_WEIGHT), "SOFTSLICE_WEIGHT");
}

/* A tenant's limit and a GPU's bound different things; neither may lift the other. */
Test(config_admin, admin_limits_of_tenant_and_gpu_both_hold)
{
    static const struct {
        const char *tenant;
        uint64_t a, b;
    } cases[] = {{"small", 10 * GIB, 10 * GIB}, {"big", 30 * GIB, 40 * GIB}, {"unnamed", GIB, 40 * GIB}};

    for (unsigned i = 0; i < 3; i++) {
        write_admin("[softslice]\nvram = 1GiB\n[tenant small]\nvram = 10GiB\n[tenant big]\nvram = 50GiB, " UUID_A
                    "=30GiB\n[gpu " UUID_B "]\nvram=40GiB\n");
        set("SOFTSLICE_TENANT", cases[i].tenant);
        GOOD();
        cr_expect(admin(&gpu_a) == cases[i].a && admin(&gpu_b) == cases[i].b, "tenant %s", cases[i].tenant);
        forget();
    }
}

Test(config_admin, admin_limit_of_the_unnamed_tenant)
{
    write_admin("[tenant default]\nvram = 3GiB\n[tenant other]\nvram = 1GiB\n");
    GOOD();
    cr_expect(admin(&gpu_a) == 3 * GIB && config.tenant_named);
    EXPECT_TEXT(config.tenant, "default");
    write_admin("[tenant other]\nvram = 1GiB\n");
    GOOD();
    cr_expect(admin(&gpu_a) == NO_LIMIT && !config.tenant_named);
    write_admin("[softslice]\nmode = share\n");
    GOOD();
    cr_expect(!config.tenant_named, "only a limit names a tenant");
    write_admin("[slice small]\nvram = 1GiB\n");
    GOOD();
    cr_expect(!config.tenant_named && admin(&gpu_a) == NO_LIMIT, "a slice is the device plugin's");
}

Test(config_admin, admin_wins_what_is_no_quantity)
{
    write_admin("[softslice]\ntenant=t\nstate_dir=/run/a\nmode=cap\nmanaged=forbid\nspill=off\nlog=error\nlog_file=/a\nperiod=1s\n"
                "quantum=2ms\nmax_stall=1s\n"
                "[tenant t]\nmanaged=resident\n");
    write_user("[softslice]\ntenant=u\nstate_dir=/run/u\nmode=share\nmanaged=charge\nspill=host\n[tenant t]\nspill=host\n");
    set("SOFTSLICE_TENANT", "v");
    set("SOFTSLICE_STATE_DIR", "/run/v");
    set("SOFTSLICE_MODE", "share");
    set("SOFTSLICE_LOG", "off");
    set("SOFTSLICE_LOG_FILE", "/v");
    set("SOFTSLICE_PERIOD", "2s");
    set("SOFTSLICE_QUANTUM", "7ms");
    set("SOFTSLICE_MAX_STALL", "7s");
    GOOD();
    EXPECT_TEXT(config.tenant, "t");
    EXPECT_TEXT(config.state_dir, "/run/a");
    EXPECT_TEXT(config.log_file, "/a");
    cr_expect(config.mode == CONFIG_MODE_CAP && config.managed == CONFIG_MANAGED_RESIDENT && config.spill == CONFIG_SPILL_OFF);
    cr_expect(config.log == LOG_ERROR && config.period_us == 1000000 && config.quantum_us == 2000 &&
              config.max_stall_us == 1000000);
    expect_from(CONFIG_MANAGED, "admin.ini", "13 [tenant t]");
}

Test(config_admin, admin_knows_no_ordinals)
{
    write_admin("[softslice]\nvram = 0=1GiB\n");
    BAD("admin.ini:2: vram = '0=1GiB': the admin's file names devices by UUID");
    write_admin("[tenant other]\ncompute = 0=10%\n");
    BAD("admin.ini:2: compute = '0=10%': the admin's file names devices by UUID");
    write_admin("[softslice]\nvram = " UUID_B "=1GiB\n");
    GOOD();
    cr_expect(admin(&gpu_b) == GIB && admin(&gpu_a) == NO_LIMIT);
}

Test(config_admin, admin_errors_come_first)
{
    write_admin("[softslice]\nvram = much\n");
    set("SOFTSLICE_VRAM", "more");
    BAD("admin.ini:2");
}

Test(config_admin, admin_file_that_others_could_write)
{
    write_admin("[softslice]\nvram = 1GiB\n");
    cr_assert(chmod(admin_path, 0664) == 0);
    BAD("admin.ini: group or others may write");
    cr_assert(chmod(admin_path, 0602) == 0);
    BAD("admin.ini: group or others may write");
    cr_assert(chmod(admin_path, 0444) == 0);
    GOOD();
    admin_owner = geteuid() + 1;
    BAD("admin.ini: the admin's file does not belong to root");
}

Test(config_admin, admin_file_that_is_no_file)
{
    cr_assert(mkdir(admin_path, 0755) == 0);
    BAD("admin.ini: not a regular file");
    cr_assert(rmdir(admin_path) == 0);
    cr_assert(symlink("nowhere", admin_path) == 0);
    BAD("admin.ini: a symbolic link that leads nowhere");
    cr_assert(unlink(admin_path) == 0);
    cr_assert(symlink("admin.ini", admin_path) == 0);
    BAD("admin.ini: too many symbolic links");
}

/* As a container sees a mounted directory of limits that was removed on the host: it is there, and empty. */
Test(config_admin, admin_files_directory_that_was_removed)
{
    char kept[PATH_MAX];
    int fd;

    strcpy(kept, admin_path);
    cr_assert(mkdir(kept, 0755) == 0);
    fd = open(kept, O_RDONLY | O_DIRECTORY);
    cr_assert(fd >= 0);
    snprintf(admin_path, sizeof(admin_path), "/proc/self/fd/%d/admin.ini", fd);
    GOOD();
    cr_expect_not(config.admin_present);
    cr_assert(rmdir(kept) == 0);
    BAD("admin.ini: its directory was removed");
    cr_expect(config.admin_present);
    close(fd);
}

/* In a child, because uids do not come back. Returns the child's exit status. */
static int as_user(uid_t uid, int (*body)(void))
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        if (setgid(uid) < 0 || setuid(uid) < 0)
            _exit(99);
        _exit(body());
    }
    cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int is_refused(void)
{
    return load() == -EINVAL && strstr(config.error, "admin.ini: ") && config.on_error == CONFIG_CLOSED ? 0 : 1;
}

static int is_taken(void)
{
    return load() == 0 && config_vram_admin(&config, &gpu_a, NULL) == GIB ? 0 : 1;
}

Test(config_admin, owners_of_the_admin_file)
{
    if (geteuid() != 0)
        skip("needs root to change owners");
    cr_assert(chmod(scratch, 0755) == 0);
    write_admin("[softslice]\nvram = 1GiB\n");
    set("SOFTSLICE_ON_ERROR", "open");
    cr_expect(as_user(1000, is_taken) == 0, "root's");
    cr_assert(chown(admin_path, 1000, 1000) == 0);
    cr_expect(as_user(1000, is_refused) == 0, "our own");
    cr_expect(as_user(1001, is_refused) == 0, "another user's");
    cr_expect(is_refused() == 0, "a user's, for root");
    cr_assert(chown(admin_path, 65534, 65534) == 0);
    cr_expect(as_user(1000, is_taken) == 0, "root's as a rootless container sees it");
    cr_expect(as_user(65534, is_refused) == 0, "nobody's own");
    cr_expect(is_refused() == 0, "nobody's, for root");
    cr_assert(chown(admin_path, 0, 0) == 0 && chmod(admin_path, 0600) == 0);
    cr_expect(as_user(1000, is_refused) == 0, "unreadable");
    cr_assert(chmod(admin_path, 0644) == 0 && chmod(scratch, 0700) == 0);
    cr_expect(as_user(1000, is_refused) == 0, "in a directory that cannot be searched");
}

/* ---- what a user may not switch off */

Test(config_admin, on_error)
{
    set("SOFTSLICE_VRAM", "3GB!");
    BAD("SOFTSLICE_VRAM");
    set("SOFTSLICE_ON_ERROR", "open");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN);
    write_admin("[softslice]\non_error = closed\n");
    BAD("SOFTSLICE_VRAM");
    write_admin("[softslice]\nmode = cap\n");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN, "this admin says nothing of limits");
    /* A limit of the admin's must not be got rid of by writing nonsense into a variable. */
    write_admin("[softslice]\nvram = 1GiB\n");
    BAD("SOFTSLICE_VRAM");
    write_admin("[tenant other]\nvram = 1GiB\n");
    BAD("SOFTSLICE_VRAM"); /* whose tenant this process would have been is not known any more */
    write_admin("[slice small]\nvram = 1GiB\n");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN, "the menu of the device plugin limits nobody");
    write_admin("[softslice]\nvram = 1GiB\non_error = open\n");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN, "the admin's own word");
    write_admin("[softslice]\non_error = open\nvram = x\n");
    BAD("admin.ini:3"); /* a bad admin file is closed whatever it says */
}

Test(config_admin, on_error_open_without_an_error)
{
    set("SOFTSLICE_ON_ERROR", "open");
    GOOD();
    cr_expect(config.on_error == CONFIG_OPEN);
    write_admin("[softslice]\ncompute = 50%\n");
    GOOD();
    cr_expect(config.on_error == CONFIG_CLOSED, "an error later on (no state directory) must not open it either");
    expect_from(CONFIG_ON_ERROR, "admin.ini", "2 limit");
}

Test(config_admin, what_is_known_of_a_bad_configuration)
{
    write_user("[softslice]\nvram = x\non_error = open\nlog = debug\nlog_file = /tmp/x\n");
    cr_expect(load() == -EINVAL);
    cr_expect(strstr(config.error, "user.ini:2") != NULL, "%s", config.error);
    cr_expect(config.on_error == CONFIG_OPEN && config.log == LOG_DEBUG);
    EXPECT_TEXT(config.log_file, "/tmp/x");
}

Test(config_admin, disable)
{
    set("SOFTSLICE_DISABLE", "1");
    set("SOFTSLICE_VRAM", "1GiB");
    set("SOFTSLICE_WEIGHT", "1");
    GOOD();
    cr_expect(config.disable && !config_arms_vram(&config) && !config_arms_compute(&config));
    set("SOFTSLICE_COMPUTE", "nonsense");
    GOOD(); /* off is off */
    cr_expect(config.disable);
    write_admin("[tenant other]\nvram = 1GiB\n");
    variable_count--;
    variables[variable_count] = NULL;
    GOOD();
    cr_expect(config.disable, "no limit of the admin's for this process");
    write_admin("[softslice]\nvram = 1GiB\n");
    GOOD();
    cr_expect(!config.disable && config_arms_vram(&config));
    expect_from(CONFIG_DISABLE, "admin.ini", "2 limit");
    write_admin("[softslice]\ndisable = 0\n");
    GOOD();
    cr_expect(!config.disable, "the admin said so");
    write_admin("[softslice]\nvram = 1GiB\ndisable = 1\n");
    GOOD();
    cr_expect(config.disable, "the admin said so");
    write_admin("nonsense");
    BAD("admin.ini:1");
    cr_expect(!config.disable);
}

/* A share of the admin's is a maximum whatever the user says of how it is kept. */
Test(config_admin, mode_and_max_stall)
{
    set("SOFTSLICE_MODE", "share");
    set("SOFTSLICE_MAX_STALL", "10ms");
    write_admin("[softslice]\nvram = 1GiB\nweight = 50\n");
    GOOD();
    cr_expect(config.mode == CONFIG_MODE_SHARE && config.max_stall_us == 10000, "no share of the admin's");
    write_admin("[softslice]\nvram = 1GiB\ncompute = 50%\n");
    GOOD();
    cr_expect(config.mode == CONFIG_MODE_CAP && config.max_stall_us == 2000000);
    expect_from(CONFIG_MODE, "admin.ini", "3 limit");
    expect_from(CONFIG_MAX_STALL, "admin.ini", "3 limit");
    write_admin("[softslice]\n[gpu " UUID_B "]\ncompute = 50%\n");
    GOOD();
    cr_expect(config.mode == CONFIG_MODE_CAP, "on one of its GPUs");
    write_admin("[softslice]\ncompute = 100%\n");
    GOOD();
    cr_expect(config.mode == CONFIG_MODE_SHARE && config.max_stall_us == 10000, "which caps nothing");
    write_admin("[softslice]\ncompute = 50%\nmode = share\nmax_stall = 100ms\n");
    GOOD();
    cr_expect(config.mode == CONFIG_MODE_SHARE && config.max_stall_us == 100000, "the admin's own word");
    forget();
    set("SOFTSLICE_MAX_STALL", "10s");
    set("SOFTSLICE_TENANT", "t");
    write_admin("[tenant t]\ncompute = 50%\n");
    GOOD();
    cr_expect_eq(config.max_stall_us, 10000000, "longer stalls keep it better");
}

/* ---- devices that are not there */

Test(config_admin, devices_that_are_not_there)
{
    const struct config_device both[] = {gpu_a, gpu_b};

    set("SOFTSLICE_VRAM", "0=1GiB,1=1GiB");
    GOOD();
    cr_expect(config_check_devices(&config, both, 2) == 0, "%s", config.error);
    cr_expect(config_check_devices(&config, both, 1) == -EINVAL);
    EXPECT_TEXT(config.error, "SOFTSLICE_VRAM: 1=1 GiB: there is no such GPU here");
    forget();
    set("SOFTSLICE_COMPUTE", UUID_B "=10%");
    GOOD();
    cr_expect(config_check_devices(&config, both, 2) == 0);
    cr_expect(config_check_devices(&config, both, 1) == -EINVAL);
    forget();
    set("CUDA_DEVICE_MEMORY_LIMIT_7", "1g"); /* HAMi sets them for all */
    write_admin("[gpu " UUID_B "]\nvram=1G\n");
    GOOD();
    cr_expect(config_check_devices(&config, both, 1) == 0);
}

Test(config_admin, devices_of_other_machines)
{
    const struct config_device both[] = {gpu_a, gpu_b};
    char expected[PATH_MAX + 128];

    write_user("[gpu " UUID_A "]\nvram=1G\n[gpu " UUID_B "]\nvram=1G\n");
    GOOD();
    cr_expect(config_check_devices(&config, both, 1) == 0, "%s", config.error);
    write_user("[gpu GPU-00000000-0000-0000-0000-0000000000aa]\nvram=1G\n"); /* misspelt: GPU a would be without a limit */
    GOOD();
    cr_expect(config_check_devices(&config, both, 1) == -EINVAL);
    snprintf(expected, sizeof(expected),
             "%s/user.ini:2 [gpu]: GPU-00000000-0000-0000-0000-0000000000aa=1 GiB: there is no such GPU here, and one that is here "
             "has no limit",
             scratch);
    EXPECT_TEXT(config.error, expected);
}
