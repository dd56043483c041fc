# SPDX-License-Identifier: Apache-2.0
# The Kubernetes device plugin. protoc-c writes the C of its messages into the build directory. Included by the Makefile.

# nghttp2 and protobuf-c from their archives where there are some: the program then runs in any image with a C library.
archive_or = $(if $(filter /%,$(shell $(CC) -print-file-name=lib$(1).a)),-l:lib$(1).a,-l$(1))
NGHTTP2 ?= $(call once,NGHTTP2,$(call archive_or,nghttp2))
PROTOBUF_C ?= $(call once,PROTOBUF_C,$(call archive_or,protobuf-c))

plugin_obj := $(plugin_src:%.c=$(BUILD)/%.o)
plugin_messages := $(patsubst %.proto,$(BUILD)/%.pb-c,$(wildcard plugin/*.proto))
# What it has in it of the command's.
plugin_cli_obj := $(patsubst %,$(BUILD)/cli/%.o,cdi_files cdi_host cdi_mounts cdi_root cdi_slices cdi_spec library preload) $(program_obj)

$(plugin): $(plugin_obj) $(plugin_messages:%=%.o) $(plugin_cli_obj) $(core_obj)
	$(call say,LINK,$@)
	$(Q)$(LINK_PROGRAM) $(JSON) $(NGHTTP2) $(PROTOBUF_C) -lm -ldl

$(BUILD)/plugin/%.pb-c.c $(BUILD)/plugin/%.pb-c.h: plugin/%.proto | needed-to-build
	@mkdir -p $(@D)
	$(call say,PROTO,$<)
	$(Q)protoc-c --proto_path=plugin --c_out=$(BUILD)/plugin $<
$(BUILD)/plugin/%.pb-c.o: $(BUILD)/plugin/%.pb-c.c
	$(call say,CC,$<)
	$(Q)$(COMPILE) -c -o $@ $<
$(plugin_obj): | $(plugin_messages:%=%.h)
$(BUILD)/plugin/%.o: override COMPILE += -fPIE -Icli -Iplugin -I$(BUILD)/plugin

# ---- its tests, of which some talk to the gRPC transport alone

rpc_obj := $(filter $(BUILD)/plugin/rpc%,$(plugin_obj))
plugin_test_programs := $(patsubst tests/plugin/%.c,$(BUILD)/tests/plugin/%,$(wildcard tests/plugin/*.c))
plugin_tests = $(call scripts_in,tests/plugin)
plugin-test-programs: $(plugin_test_programs)
.PHONY: plugin-test-programs
$(BUILD)/tests/plugin/%: tests/plugin/%.c $(rpc_obj)
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(COMPILE) -MF $@.d -Iplugin -o $@ $< $(rpc_obj) $(NGHTTP2)
$(BUILD)/fuzz/fuzz_rpc: $(filter plugin/rpc%,$(plugin_src))
$(BUILD)/fuzz/fuzz_rpc: fuzz_libraries = $(NGHTTP2)
$(BUILD)/tests/unit/test_plugin_offer: $(BUILD)/plugin/offer.o $(BUILD)/plugin/mig.o
$(BUILD)/tests/unit/test_plugin_prefer: $(BUILD)/plugin/prefer.o
