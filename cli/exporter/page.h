/* SPDX-License-Identifier: Apache-2.0 */
/* The page that the exporter serves at `/`: page.html, embedded at build time by scripts/embed-page. */
#ifndef SOFTSLICE_CLI_EXPORTER_PAGE_H
#define SOFTSLICE_CLI_EXPORTER_PAGE_H

/* UTF-8; the size leaves out the 0 that follows. */
extern const unsigned char page_html[];
extern const unsigned page_html_size;

/* The Content-Security-Policy that it is to be served with: the hashes of its own style and script, and requests to its own server alone. */
extern const char page_policy[];

#endif
