# SPDX-License-Identifier: Apache-2.0
# What the images of deploy/images have in them besides the project's own products. Included by the Makefile.

installer := $(BUILD)/install-library

# Alone in its image: everything is linked in.
$(installer): deploy/images/install_library.c | needed-to-build
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(COMPILE) -MF $@.d -o $@ $< $(if $(SAN),,-static) $(LDFLAGS)

images: ## Build the images of deploy/images with podman, and start what is in them
	@scripts/setup containers
	@scripts/images || [ $$? = 77 ]
.PHONY: images
