# SPDX-License-Identifier: Apache-2.0
# Tests, benchmarks, the demo and the checkers. Every test runs through tests/run, which counts; a target that needs something
# installed has scripts/setup bring it first and then calls make again.

AGAIN = $(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS)) --no-print-directory
RUN = tests/run --build $(BUILD) --jobs $(JOBS)

programs = $(patsubst $(1)/%,$(BUILD)/$(1)/%,$(basename $(wildcard $(1)/*.c $(1)/*.cpp)))
unit_tests := $(filter $(BUILD)/tests/unit/test_%,$(call programs,tests/unit))
ledger_tests := $(call programs,tests/ledger)
sim_tests := $(call programs,tests/sim)
share_programs := $(call programs,tests/share)
include tests/preload/rules.mk
# A script is a test where it is executable; the rest are parts of others.
scripts_in = $(shell find $(1) -type f -perm -u+x 2>/dev/null | LC_ALL=C sort)
script_tests = $(call scripts_in,tests/preload tests/cli tests/clients tests/sim tests/plugin tests/deploy) tests/share/quick.py tests/share/faults.py
static_checks := $(sort $(wildcard scripts/check-*))
test_programs := $(unit_tests) $(ledger_tests) $(sim_tests) $(preload_tests) $(client_tests)

demo: ## Two tenants on one GPU (simulated where no idle one is there), with and without softslice
	@scripts/setup build
	@$(AGAIN) all $(BUILD)/tests/share/load
	@scripts/demo

check: ## All tests on the simulated GPU, and the static checks; installs what they need
	@scripts/setup check
	@$(AGAIN) all test-programs
	@echo '  CHECK  units, ledger, simulated GPU, preloaded programs, command, clients, static checks'
	@$(RUN) $(static_checks) $(test_programs) $(snippets) $(script_tests)

check-bars: ## The design's long runs: 10,000 kills of a ledger's members, 10 s of racing for a budget, 1,000,000 random operations
	@scripts/setup build
	@$(AGAIN) all $(bar_programs)
	@LEDGER_KILLS=10000 RACE_SECONDS=10 LEDGER_RACE_SECONDS=10 MODEL_OPERATIONS=1000000 $(RUN) $(bar_programs)
bar_programs = $(addprefix $(BUILD)/tests/,preload/model preload/race preload/pool_race ledger/kill_random ledger/race)

check-share: ## The bars of the compute share, in virtual time (SHARE_ARGS=... for the runner: --wall, names of scenarios)
	@scripts/setup build
	@$(AGAIN) all $(share_programs)
	@tests/share/run --build $(BUILD) $(SHARE_ARGS) $(on_skip)

test-programs: $(test_programs) $(preload_libs) $(client_libs) $(snippets) $(other_programs) $(share_programs) $(plugin_test_programs) $(installer)

check-containers: ## podman and runc with the specs of `softslice cdi`, on the simulated GPU (CONTAINERS=name ... for some)
	@scripts/setup containers
	@$(AGAIN) all $(container_programs)
	@tests/containers/run --build $(BUILD) $(CONTAINERS)
container_programs = $(BUILD)/tests/programs/taker $(BUILD)/tests/share/load

check-k8s: ## The device plugin under a real kubelet, and pods with containerd, on the simulated GPU (K8S=name ... for some); minutes the first time
	@scripts/setup k8s
	@$(AGAIN) all $(k8s_programs)
	@tests/k8s/run --build $(BUILD) $(K8S)
k8s_programs = $(BUILD)/tests/programs/taker $(BUILD)/tests/k8s/pause
$(BUILD)/tests/k8s/pause: tests/k8s/pause.c
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(CC) -std=gnu11 -O2 $(WARN) -static -o $@ $<

# ---- how the test programs are built

$(BUILD)/tests/unit/%: tests/unit/%.c $(core_obj)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Icore -Icli -Itests $(INIH_FLAGS) -o $@ $< $(filter-out $(own_copy),$(filter %.o,$^)) $(INIH) -lcriterion -lpthread -ldl
# A test that looks inside a chapter includes its source: the object of that chapter is left out.
$(BUILD)/tests/unit/test_records_spread: own_copy = $(BUILD)/core/records.o
$(BUILD)/tests/unit/test_top: $(BUILD)/cli/top/model.o $(BUILD)/cli/top/text.o
$(BUILD)/tests/ledger/%: tests/ledger/%.c $(core_obj)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Icore -Itests -o $@ $< $(core_obj) $(INIH) -lpthread -ldl
$(BUILD)/tests/sim/%: tests/sim/%.c $(sim) $(sim_nvml) $(sim_virtual)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Itests $(CUDA_FLAGS) -o $@ $< -L$(BUILD)/sim -l:libcuda.so.1 -lpthread -ldl

# These run on a real GPU as well: the driver is the one that is found.
$(BUILD)/tests/share/%: tests/share/%.c $(sim)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Icore $(CUDA_FLAGS) -o $@ $< $(share_objects) -L$(BUILD)/sim -Wl,--as-needed -l:libcuda.so.1 -lpthread -ldl
$(BUILD)/tests/share/account: $(core_obj)
$(BUILD)/tests/share/account: share_objects := $(core_obj) $(INIH)

# ---- sanitizers

san_runtime = $(shell $(CC) -print-file-name=lib$(if $(filter thread,$(SAN)),tsan,asan).so)
# Criterion cannot start under ThreadSanitizer.
san_tests = $(if $(filter thread,$(SAN)),,$(unit_tests) $(filter tests/plugin/rpc_%,$(plugin_tests))) $(ledger_tests) $(preload_tests)
check-asan: ## The tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/setup check
	@$(AGAIN) SAN=address,undefined check-sanitized
check-tsan: ## The tests under ThreadSanitizer
	@scripts/setup check
	@$(AGAIN) SAN=thread check-sanitized
check-sanitized: $(lib) $(sim) $(sim_nvml) $(sim_virtual) $(san_tests) $(preload_libs) $(plugin_test_programs)
	@$(RUN) --slow 4 --runtime $(san_runtime) $(san_tests)

# ---- aarch64

check-aarch64: ## Cross build for aarch64, and its tests in an emulator
	@scripts/setup aarch64
	@scripts/libraries-aarch64
	@$(AGAIN) CROSS=aarch64 CC=aarch64-linux-gnu-gcc BUILD=build/aarch64 INIH=build/aarch64/inih/libinih.a \
	    INIH_FLAGS='-isystem build/aarch64/inih' JSON=build/aarch64/inih/libjson-c.a JSON_FLAGS='-isystem build/aarch64/inih' CUDA_INCLUDE='$(CUDA_INCLUDE)' check-emulated
emulated_tests = $(ledger_tests) $(filter-out %/types,$(preload_tests))
check-emulated: $(products) $(emulated_tests) $(preload_libs)
	@$(RUN) --slow 4 --wrap 'qemu-aarch64-static -L /usr/aarch64-linux-gnu' $(emulated_tests)

# ---- can the tests fail?

check-mutations: ## Break each accounting rule in a copy of the tree; a test has to notice (MUTATIONS=name ... for some)
	@scripts/setup check
	@scripts/mutations --jobs $(JOBS) $(MUTATIONS)

# ---- fuzzing

fuzzers := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 60
fuzz: ## Fuzz the parsers, FUZZ_SECONDS each (60)
	@scripts/setup lint
	@$(AGAIN) run-fuzzers
run-fuzzers: $(fuzzers)
	@set -e; for fuzzer in $(fuzzers); do mkdir -p $(BUILD)/corpus/$${fuzzer##*/}; \
	    $$fuzzer -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/corpus/ $(BUILD)/corpus/$${fuzzer##*/}; done
$(BUILD)/fuzz/%: tests/fuzz/%.c $(core_src)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang -std=gnu11 $(CPPFLAGS) -O1 -g -fsanitize=fuzzer,address,undefined -Icore -o $@ $(filter %.c,$^) $(INIH) $(fuzz_libraries) -ldl

# ---- benchmarks

bench_programs := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))
bench: ## What softslice costs, over a driver that does nothing (BENCH_ARGS=... for the runner; --docs writes the tables, the shares' too)
	@scripts/setup build
	@$(AGAIN) all $(bench_programs) $(share_programs)
	@bench/run $(BENCH_ARGS)
	@$(if $(filter --docs,$(BENCH_ARGS)),tests/share/run --build $(BUILD) --docs)
$(BUILD)/bench/libcuda.so.1: $(wildcard bench/null_driver/*.c)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(COMPILE) -MF $@.d -fPIC $(CUDA_FLAGS) -shared -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic -o $@ $(filter %.c,$^)
$(BUILD)/bench/%: bench/%.c $(core_obj) $(BUILD)/bench/libcuda.so.1
	@mkdir -p $(@D)
	$(call say,BENCH,$@)
	$(Q)$(COMPILE) -MF $@.d -Icore $(CUDA_FLAGS) -o $@ $< $(bench_objects) $(core_obj) $(INIH) $(bench_libraries) -lpthread -ldl
$(BUILD)/bench/observe: $(program_obj)
$(BUILD)/bench/observe: bench_objects = $(program_obj)
$(BUILD)/bench/observe: bench_libraries = $(JSON)

# ---- real hardware: with what is built already where nothing can be built

# Each script prints what it skipped and why; 77 says that it could run nothing.
on_skip = || [ $$? = 77 ]
check-gpu: ## Behaviour and frameworks on a real GPU; each check without one is skipped
	@$(on_gpu)
	@tests/gpu/check.sh $(GPU_ARGS) $(on_skip)
bench-gpu: ## Cost on a real GPU, what frameworks hold against their budget, and the compute share, into docs/measurements
	@$(on_gpu)
	@tests/gpu/bench.sh $(GPU_ARGS) $(on_skip)
	@python3 tests/gpu/excess.py $(on_skip)
	@python3 tests/gpu/share.py $(on_skip)
probe-gpu: ## What this machine's driver does where we have only assumed, into build/gpu/out
	@tests/gpu/probe.sh $(GPU_ARGS) $(on_skip)
on_gpu = if scripts/setup --list build 2>/dev/null; then $(AGAIN) all $(share_programs); \
    elif [ -e $(lib) ] && [ -e $(command) ]; then echo '  using build/ as it is: it cannot be built again here'; \
    else scripts/setup --list build; fi

# ---- lint

c_files = $(sort $(wildcard $(foreach dir,include/softslice core shim shim/hooks cli cli/top cli/exporter plugin sim bench bench/null_driver tests tests/unit tests/ledger \
          tests/sim tests/preload tests/preload/lib tests/fuzz tests/gpu tests/plugin tests/share deploy/images,$(dir)/*.c $(dir)/*.h)))
lint: ## Formatting, both compilers without warnings, cppcheck, shellcheck, spelling, man pages
	@scripts/setup lint
	@scripts/lint $(c_files)

.PHONY: probe-gpu demo check check-bars check-share check-containers check-k8s test-programs check-asan check-tsan check-sanitized check-aarch64 check-emulated check-mutations check-gpu bench bench-gpu fuzz run-fuzzers lint
