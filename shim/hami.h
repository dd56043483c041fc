/* SPDX-License-Identifier: Apache-2.0 */
/* Tells HAMi's monitor of this process, where HAMi's variables name the file that it reads (softslice/hami.h), and hears whether it wants HAMi's limit of
 * compute to hold. Nothing else is done where there is no such file. All keep errno. */
#ifndef SOFTSLICE_SHIM_HAMI_H
#define SOFTSLICE_SHIM_HAMI_H

#include "process.h"

/* The process has joined. */
void hami_join(struct membership *m);

/* About once a second, in the thread that looks: tells what has changed. False where there is nobody to tell. */
bool hami_tick(struct membership *m);

/* exit() has come. */
void hami_end(struct membership *m);

#endif
