# SPDX-License-Identifier: Apache-2.0
# How the programs are built that run with the library preloaded, and the libraries that some of them are run between. Included by the Makefile.

preload_libs := $(patsubst tests/preload/lib/%.c,$(BUILD)/tests/preload/lib/%.so,$(wildcard tests/preload/lib/*.c))
preload_tests := $(patsubst tests/preload/%.c,$(BUILD)/tests/preload/%,$(wildcard tests/preload/*.c)) $(BUILD)/tests/preload/types
snippets := $(patsubst tests/snippets/%.c,$(BUILD)/tests/snippets/%,$(wildcard tests/snippets/*.c))
other_programs := $(patsubst tests/programs/%.c,$(BUILD)/tests/programs/%,$(wildcard tests/programs/*.c))
client_libs := $(patsubst tests/clients/lib/%.c,$(BUILD)/tests/clients/lib/%.so,$(wildcard tests/clients/lib/*.c))
client_tests := $(patsubst tests/clients/%.c,$(BUILD)/tests/clients/%,$(wildcard tests/clients/*.c))

# --as-needed: a program that names no function of the driver must start without it. Functions that this driver lacks may
# be named: the library exports them.
$(BUILD)/tests/preload/%: tests/preload/%.c $(sim)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Itests -isystem $(CUDA_INCLUDE) -o $@ $< $(preload_objects) -rdynamic -Wl,--unresolved-symbols=ignore-in-object-files -Wl,--as-needed -L$(BUILD)/sim -l:libcuda.so.1 -lpthread -ldl
# These read or write the ledger themselves.
ledger_users := $(addprefix $(BUILD)/tests/preload/,spill set_storm model explain hami_09_used_above_limit) $(filter $(BUILD)/tests/preload/gate_%,$(preload_tests))
$(ledger_users): $(core_obj)
$(ledger_users): override COMPILE += -Iinclude
$(ledger_users): preload_objects := $(core_obj) $(INIH)
$(BUILD)/tests/snippets/% $(BUILD)/tests/programs/%: override COMPILE += -Itests -isystem $(CUDA_INCLUDE)
$(BUILD)/tests/snippets/%: tests/snippets/%.c $(sim) $(sim_nvml)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -O0 -MF $@.d -o $@ $< -Wl,--unresolved-symbols=ignore-in-object-files -L$(BUILD)/sim -l:libcuda.so.1 -Wl,--as-needed -l:libnvidia-ml.so.1 -ldl
$(BUILD)/tests/programs/%: tests/programs/%.c $(sim)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -o $@ $< $(program_objects) -L$(BUILD)/sim -Wl,--as-needed -l:libcuda.so.1 -lpthread -ldl
$(BUILD)/tests/programs/tenants: $(core_obj)
$(BUILD)/tests/programs/tenants: program_objects := $(core_obj) $(INIH)
$(BUILD)/tests/preload/types: tests/preload/types.cpp shim/hooks.def
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(CXX) -std=c++17 $(CXXFLAGS) -Wall -Wextra -isystem $(CUDA_INCLUDE) -o $@ $<
$(BUILD)/tests/preload/lib/%.so $(BUILD)/tests/clients/lib/%.so: override COMPILE += -fPIC
$(BUILD)/tests/preload/lib/%.so: tests/preload/lib/%.c $(sim)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Itests -isystem $(CUDA_INCLUDE) -shared -o $@ $< -Wl,--as-needed -L$(BUILD)/sim -l:libcuda.so.1 -lpthread -ldl
$(BUILD)/tests/clients/lib/%.so: tests/clients/lib/%.c
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Itests -isystem $(CUDA_INCLUDE) -shared -o $@ $< -ldl
$(BUILD)/tests/clients/%: tests/clients/%.c
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Itests -isystem $(CUDA_INCLUDE) -o $@ $< -lpthread -ldl
