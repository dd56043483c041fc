# SPDX-License-Identifier: Apache-2.0
# The build. `make help` lists the targets; V=1 shows the commands; SAN=address,undefined or SAN=thread builds with sanitizers, in a
# directory of its own; CC, CFLAGS, LDFLAGS, PREFIX and DESTDIR are yours. Tests and benchmarks are in mk/test.mk.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS ?= -O2 -g
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
SAN ?=
comma := ,
BUILD ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' '$(1)' '$(2)';)

# Asked when first needed, and once: neither answer is wanted by `make help`, and there may be no compiler yet.
once = $(eval $(1) := $(2))$($(1))
ARCH = $(call once,ARCH,$(or $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1),$(shell uname -m)))
CUDA_INCLUDE = $(call once,CUDA_INCLUDE,$(or $(shell scripts/cuda-include),$(error no cuda.h)))

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wpointer-arith $(if $(CI),-Werror)
HARDEN = $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong $(if $(filter x86_64,$(ARCH)),-fcf-protection) \
         $(if $(filter aarch64,$(ARCH)),-mbranch-protection=standard)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all) \
            $(if $(findstring thread,$(SAN)),-Wno-error=tsan)# it knows no fences: only what rests on one alone would look like a race
override CPPFLAGS += -D_GNU_SOURCE -Iinclude -DSOFTSLICE_VERSION='"$(VERSION)"'
COMPILE = $(CC) -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(WARN) $(HARDEN) $(SANFLAGS) -MMD -MP
CUDA_FLAGS = -isystem $(CUDA_INCLUDE)
LIBFLAGS := -fPIC -fvisibility=hidden -fno-semantic-interposition -ftls-model=initial-exec
LINK_LIB = $(CC) $(CFLAGS) $(SANFLAGS) -shared -Wl,-z,relro,-z,now,-z,noexecstack $(if $(SAN),,-Wl$(comma)-z$(comma)defs) \
           -Wl,--exclude-libs,ALL -Wl,-Bsymbolic-functions $(LDFLAGS)
# Linked from the archive: libinih.so would have to be in every container. The same holds for json-c, which only the command uses, where there is an
# archive of it.
INIH ?= -l:libinih.a
JSON ?= $(call once,JSON,$(if $(filter /%,$(shell $(CC) -print-file-name=libjson-c.a)),-l:libjson-c.a,-ljson-c))

core_src := $(wildcard core/*.c)
shim_src := $(wildcard shim/*.c shim/hooks/*.c)
shim_asm = shim/dlsym_$(ARCH).S shim/thunks_$(ARCH).S
cli_src := $(wildcard cli/*.c)
# What is a program of its own, and what of the command's it has in it.
top_src := $(wildcard cli/top/*.c)
exporter_src := $(wildcard cli/exporter/*.c)
plugin_src := $(wildcard plugin/*.c)
program_src := $(wildcard cli/observe*.c) cli/say.c
sim_src := $(filter-out $(wildcard sim/nvml*.c sim/virtual*.c),$(wildcard sim/*.c))
sim_asm := $(wildcard sim/*.S)
sim_nvml_src := $(wildcard sim/nvml*.c sim/fail.c sim/shared.c sim/objects.c sim/timeline.c sim/process_id.c)
sim_virtual_src := $(wildcard sim/virtual*.c)
core_obj := $(core_src:%.c=$(BUILD)/%.o)
shim_obj = $(shim_src:%.c=$(BUILD)/%.o) $(shim_asm:%.S=$(BUILD)/%.o)
cli_obj := $(cli_src:%.c=$(BUILD)/%.o)
top_obj := $(top_src:%.c=$(BUILD)/%.o)
exporter_obj := $(exporter_src:%.c=$(BUILD)/%.o)
program_obj := $(program_src:%.c=$(BUILD)/%.o) $(BUILD)/shim/defined.o
sim_obj := $(sim_src:%.c=$(BUILD)/%.o) $(sim_asm:%.S=$(BUILD)/%.o)
sim_nvml_obj := $(sim_nvml_src:%.c=$(BUILD)/%.o)
sim_virtual_obj := $(sim_virtual_src:%.c=$(BUILD)/%.o)

lib := $(BUILD)/libsoftslice.so
command := $(BUILD)/softslice
sim := $(BUILD)/sim/libcuda.so.1
sim_nvml := $(BUILD)/sim/libnvidia-ml.so.1
sim_virtual := $(BUILD)/sim/libvirtualtime.so
top := $(BUILD)/softslice-top
exporter := $(BUILD)/softslice-exporter
plugin := $(BUILD)/softslice-device-plugin
# A cross build has none: their libraries are not fetched for it.
programs_too := $(if $(CROSS),,$(if $(top_src),$(top)) $(if $(exporter_src),$(exporter)) $(if $(plugin_src),$(plugin)))
products := $(lib) $(command) $(programs_too) $(sim) $(sim_nvml) $(sim_virtual)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.SECONDEXPANSION:

help: ## Show this list
	@cat $(MAKEFILE_LIST) | awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  %-16s %s\n", $$1, $$2}'

all: $(products) ## Build the library, the command and the simulated GPU

# What is missing is told before the first compiler error; only `make demo`, `make check` and their like install anything.
$(products): | needed-to-build
needed-to-build:
	@CC="$(firstword $(CC))" scripts/setup --list $(if $(CROSS),,build)

# ---- the library

$(lib): $(core_obj) $$(shim_obj) shim/exports_$$(ARCH).map
	$(call say,LINK,$@)
	$(Q)$(LINK_LIB) -Wl,-soname,libsoftslice.so -Wl,-z,nodelete -Wl,--version-script=shim/exports_$(ARCH).map -o $@ \
	    $(core_obj) $(shim_obj) $(INIH) -Wl,--no-as-needed -l:libdl.so.2

$(BUILD)/core/%.o $(BUILD)/shim/%.o: override COMPILE += $(LIBFLAGS)
$(BUILD)/core/ini.o: override COMPILE += $(INIH_FLAGS)
$(BUILD)/shim/%.o: override COMPILE += $(CUDA_FLAGS)
# The sanitizers' runtimes look symbols up before their shadow memory exists.
$(BUILD)/shim/dlsym.o $(BUILD)/shim/defined.o $(BUILD)/shim/resolve.o: override SANFLAGS :=

# ---- the command

LINK_PROGRAM = $(CC) $(CFLAGS) $(SANFLAGS) -pie -Wl,-z,relro,-z,now $(LDFLAGS) -o $@ $^ $(INIH)
$(command): $(cli_obj) $(core_obj) $(BUILD)/shim/defined.o
	$(call say,LINK,$@)
	$(Q)$(LINK_PROGRAM) $(JSON) -ldl
$(top): $(top_obj) $(program_obj) $(core_obj)
	$(call say,LINK,$@)
	$(Q)$(LINK_PROGRAM) $(JSON) -lncursesw -ltinfo -lm -ldl
$(exporter): $(exporter_obj) $(program_obj) $(core_obj)
	$(call say,LINK,$@)
	$(Q)$(LINK_PROGRAM) $(JSON) -lmicrohttpd -lpthread -lm -ldl
$(BUILD)/cli/%.o: override COMPILE += -fPIE -Icli $(JSON_FLAGS)

# ---- the simulated GPU

# The driver has a thread of its own, so it stays when the last handle is closed (the CUDA runtime does that when it cannot start).
LINK_SIM = $(CC) $(CFLAGS) $(SANFLAGS) -shared -Wl,-soname,$(@F) -Wl,-Bsymbolic -Wl,-z,nodelete $(LDFLAGS) -o $@ $^ -lpthread -ldl -lrt -lm
$(sim): $(sim_obj)
	$(call say,LINK,$@)
	$(Q)$(LINK_SIM)
$(sim_nvml): $(sim_nvml_obj)
	$(call say,LINK,$@)
	$(Q)$(LINK_SIM)
$(sim_virtual): $(sim_virtual_obj)
	$(call say,LINK,$@)
	$(Q)$(LINK_SIM)
$(sim_virtual_obj): override COMPILE += -ftls-model=initial-exec
# The sanitizers' runtimes ask for the time before their shadow memory exists.
$(sim_virtual_obj): override SANFLAGS :=
$(BUILD)/sim/%.o: override COMPILE += -fPIC -fvisibility=hidden -Isim $(CUDA_FLAGS)

# ---- objects

$(BUILD)/%.o: %.c | needed-to-build
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(COMPILE) -c -o $@ $<
$(BUILD)/%.o: %.S | needed-to-build
	@mkdir -p $(@D)
	$(call say,AS,$<)
	$(Q)$(CC) $(CPPFLAGS) -fPIC -MMD -MP -c -o $@ $<

# ---- installation

# Each file is written beside its place and renamed over it: a process that has the old library mapped keeps the old one.
put = mkdir -p '$(DESTDIR)$(dir $(3))' && install -m $(1) '$(2)' '$(DESTDIR)$(3).new' && mv -f '$(DESTDIR)$(3).new' '$(DESTDIR)$(3)'
man_pages := $(wildcard docs/man/*.1 docs/man/*.5)
# The demo's programs are the demo's, which is run from here.
examples := $(filter-out examples/demo/%,$(wildcard examples/*/*))
installed = $(PREFIX)/lib/softslice/libsoftslice.so $(PREFIX)/bin/softslice $(patsubst %,$(PREFIX)/libexec/softslice/%,$(notdir $(programs_too))) \
            $(PREFIX)/share/softslice/softslice.ini $(PREFIX)/share/softslice/status.schema.json $(PREFIX)/share/softslice/explain.schema.json \
            $(examples:%=$(PREFIX)/share/softslice/%) \
            $(foreach page,$(man_pages),$(PREFIX)/share/man/man$(subst .,,$(suffix $(page)))/$(notdir $(page)))

one_word = $(if $(word 2,x$(DESTDIR)$(PREFIX)x),$(error DESTDIR and PREFIX cannot have a blank: LD_PRELOAD could not name the library))

install: $(lib) $(command) $(programs_too) ## Install under PREFIX (/usr/local), below DESTDIR; running programs are not disturbed
	$(one_word)$(Q)$(call put,755,$(lib),$(PREFIX)/lib/softslice/libsoftslice.so)
	$(Q)$(call put,755,$(command),$(PREFIX)/bin/softslice)
	$(Q)$(foreach program,$(programs_too),$(call put,755,$(program),$(PREFIX)/libexec/softslice/$(notdir $(program))) &&) :
	$(Q)$(call put,644,docs/status.schema.json,$(PREFIX)/share/softslice/status.schema.json)
	$(Q)$(call put,644,docs/explain.schema.json,$(PREFIX)/share/softslice/explain.schema.json)
	$(Q)$(call put,644,examples/softslice.ini,$(PREFIX)/share/softslice/softslice.ini)
	$(Q)$(foreach example,$(examples),$(call put,$(if $(filter %.sh,$(example)),755,644),$(example),$(PREFIX)/share/softslice/$(example)) &&) :
	$(Q)$(foreach page,$(man_pages),$(call put,644,$(page),$(PREFIX)/share/man/man$(subst .,,$(suffix $(page)))/$(notdir $(page))) &&) :
	@printf '  %s\n' $(installed:%='$(DESTDIR)%')

uninstall: ## Remove what `make install` put there; configuration and state stay
	$(one_word)$(Q)rm -f $(installed:%='$(DESTDIR)%')
	$(Q)for folder in lib/softslice libexec/softslice $(patsubst %/,share/softslice/%,$(sort $(dir $(examples)))) share/softslice/examples share/softslice; do \
	    [ ! -d '$(DESTDIR)$(PREFIX)'/$$folder ] || rmdir '$(DESTDIR)$(PREFIX)'/$$folder; done

# ---- upkeep

fmt: ## Format the C sources (clang-format 14)
	clang-format-14 -i $(c_files)

docs: ## Write again what is generated: docs/hooks.md
	scripts/hooks-page >docs/hooks.md

compdb: ## Write compile_commands.json (needs bear)
	bear --output compile_commands.json -- $(MAKE) -B all test-programs

clean: ## Remove everything built and everything fetched
	rm -rf build compile_commands.json

include mk/page.mk
include mk/plugin.mk
include mk/deploy.mk
include mk/test.mk

.PHONY: help all needed-to-build install uninstall fmt docs compdb clean
# But not the systems of tests/containers, which have files of that name.
-include $(shell find $(BUILD) -path $(BUILD)/containers -prune -o -name '*.d' -type f -print 2>/dev/null)
