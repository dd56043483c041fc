# SPDX-License-Identifier: Apache-2.0
# The whole build. `make help` lists the targets, V=1 shows the commands, SAN=address,undefined or SAN=thread builds with sanitizers.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
CFLAGS ?= -O2 -g
ARCH ?= $(shell $(CC) -dumpmachine | cut -d- -f1)
SAN ?=
BUILD ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
PYTHON ?= python3
comma := ,
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' '$(1)' '$(2)';)

CUDA_INCLUDE ?= $(shell scripts/cuda-include)
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wpointer-arith $(if $(CI),-Werror)
HARDEN := $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong $(if $(filter x86_64,$(ARCH)),-fcf-protection) \
          $(if $(filter aarch64,$(ARCH)),-mbranch-protection=standard)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
override CPPFLAGS += -D_GNU_SOURCE -Iinclude -DSOFTSLICE_VERSION='"$(VERSION)"'
COMPILE = $(CC) -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(WARN) $(HARDEN) $(SANFLAGS) -MMD -MP
LIBFLAGS := -fPIC -fvisibility=hidden -fno-semantic-interposition -ftls-model=initial-exec
LINK_LIB = $(CC) $(CFLAGS) $(SANFLAGS) -shared -Wl,-z,relro,-z,now,-z,noexecstack $(if $(SAN),,-Wl$(comma)-z$(comma)defs) \
           -Wl,--exclude-libs,ALL -Wl,-Bsymbolic-functions $(LDFLAGS)
INIH ?= -l:libinih.a

core_src := $(wildcard core/*.c)
shim_src := $(wildcard shim/*.c shim/hooks/*.c)
shim_asm := shim/dlsym_$(ARCH).S shim/thunks_$(ARCH).S
cli_src := $(wildcard cli/*.c)
sim_src := $(filter-out $(wildcard sim/nvml*.c),$(wildcard sim/*.c))
sim_asm := $(wildcard sim/*.S)
sim_nvml_src := $(wildcard sim/nvml*.c sim/shared.c sim/timeline.c)
core_obj := $(core_src:%.c=$(BUILD)/%.o)
shim_obj := $(shim_src:%.c=$(BUILD)/%.o) $(shim_asm:%.S=$(BUILD)/%.o)
cli_obj := $(cli_src:%.c=$(BUILD)/%.o)
sim_obj := $(sim_src:%.c=$(BUILD)/%.o) $(sim_asm:%.S=$(BUILD)/%.o)
sim_nvml_obj := $(sim_nvml_src:%.c=$(BUILD)/%.o)

unit_tests := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
sim_unit_tests := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/sim_*.c))
ledger_tests := $(patsubst tests/ledger/%.c,$(BUILD)/tests/ledger/%,$(wildcard tests/ledger/*.c))
bench_programs := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))
fuzzers := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

lib := $(BUILD)/libsoftslice.so
sim := $(BUILD)/sim/libcuda.so.1
sim_nvml := $(BUILD)/sim/libnvidia-ml.so.1

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

help: ## Show this list
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: $(lib) $(BUILD)/softslice $(sim) $(sim_nvml) ## Build the library, the command and the simulated GPU

# ---- the library

$(lib): $(core_obj) $(shim_obj) shim/exports_$(ARCH).map
	$(call say,LINK,$@)
	$(Q)$(LINK_LIB) -Wl,-soname,libsoftslice.so -Wl,-z,nodelete -Wl,--version-script=shim/exports_$(ARCH).map -o $@ \
	    $(core_obj) $(shim_obj) $(INIH) -Wl,--no-as-needed -l:libdl.so.2

$(BUILD)/core/%.o $(BUILD)/shim/%.o: override COMPILE += $(LIBFLAGS)
$(BUILD)/shim/%.o: override COMPILE += -isystem $(CUDA_INCLUDE)
# The sanitizers' runtimes call dlsym before their shadow memory exists.
$(BUILD)/shim/dlsym.o $(BUILD)/shim/resolve.o $(BUILD)/shim/real.o: SANFLAGS :=

# ---- the command

$(BUILD)/softslice: $(cli_obj) $(core_obj)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) -pie -Wl,-z,relro,-z,now $(LDFLAGS) -o $@ $^ $(INIH) -ldl
$(BUILD)/cli/%.o: override COMPILE += -fPIE

# ---- the simulated GPU

$(sim): $(sim_obj)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) -shared -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic -o $@ $^ -lpthread -ldl -lrt -lm
$(sim_nvml): $(sim_nvml_obj)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) -shared -Wl,-soname,libnvidia-ml.so.1 -Wl,-Bsymbolic -o $@ $^ -lpthread -ldl -lrt -lm
$(BUILD)/sim/%.o: override COMPILE += -fPIC -fvisibility=hidden -Isim -isystem $(CUDA_INCLUDE)

# ---- objects

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(COMPILE) -c -o $@ $<
$(BUILD)/%.o: %.S
	@mkdir -p $(@D)
	$(call say,AS,$<)
	$(Q)$(CC) $(CPPFLAGS) -fPIC -MMD -MP -c -o $@ $<

# ---- tests

$(BUILD)/tests/unit/test_%: tests/unit/test_%.c $(core_obj)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Icore -o $@ $< $(core_obj) $(INIH) -lcriterion -lpthread -ldl
$(BUILD)/tests/unit/sim_%: tests/unit/sim_%.c $(sim) $(sim_nvml)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -isystem $(CUDA_INCLUDE) -o $@ $< -L$(BUILD)/sim -l:libcuda.so.1 -Wl,-rpath,$(abspath $(BUILD)/sim) -lcriterion -lpthread -ldl
$(BUILD)/tests/ledger/%: tests/ledger/%.c $(core_obj)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Icore -Itests -o $@ $< $(core_obj) $(INIH) -lpthread -ldl
include tests/preload/rules.mk
$(BUILD)/fuzz/%: tests/fuzz/%.c $(core_src)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang -std=gnu11 $(CPPFLAGS) -O1 -g -fsanitize=fuzzer,address,undefined -Icore -o $@ $< $(core_src) $(INIH) -ldl

# ---- benchmarks

null_src := $(wildcard bench/null_driver/*.c)
$(BUILD)/bench/libcuda.so.1: $(null_src)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(COMPILE) -MF $@.d -fPIC -isystem $(CUDA_INCLUDE) -shared -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic -o $@ $^
$(BUILD)/bench/%: bench/%.c $(core_obj) $(BUILD)/bench/libcuda.so.1
	@mkdir -p $(@D)
	$(call say,BENCH,$@)
	$(Q)$(COMPILE) -MF $@.d -Icore -isystem $(CUDA_INCLUDE) -o $@ $< $(core_obj) $(INIH) -lpthread -ldl

clean: ## Remove everything built (the fetched headers and Python packages too)
	rm -rf build compile_commands.json

.PHONY: help all clean
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
