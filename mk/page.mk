# SPDX-License-Identifier: Apache-2.0
# The page that the exporter serves, as an object of it.

page_obj := $(BUILD)/cli/exporter/page_html.o

$(page_obj:.o=.c): cli/exporter/page.html scripts/embed-page
	@mkdir -p $(@D)
	$(call say,PAGE,$@)
	$(Q)scripts/embed-page $< >$@
$(page_obj): $(page_obj:.o=.c)
	$(call say,CC,$<)
	$(Q)$(COMPILE) -Icli/exporter -c -o $@ $<
$(exporter): $(page_obj)
