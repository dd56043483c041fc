/* SPDX-License-Identifier: Apache-2.0 */
/* What `softslice doctor` and its probe, a copy of it that has the library preloaded, say to each other.
 *
 * The probe writes lines "WORD text" to the doctor's pipe: the words of `enum finding`, and
 *   section TITLE                     what follows is about this
 *   row SYMBOL LINKED DLSYM GETPROC   one entry point and what a program gets by each road
 *   device ORDINAL UUID BYTES         a GPU: 32 hex digits, bytes of memory
 *   native ORDINAL BYTES PATH         the driver's own limit for a GPU and the control group PATH
 * Any other line is something that the loader, the library or the driver said. */
#ifndef SOFTSLICE_CLI_DOCTOR_H
#define SOFTSLICE_CLI_DOCTOR_H

enum finding { FINDING_OK, FINDING_NOTE, FINDING_PROBLEM, FINDINGS };

#define DOCTOR_WORDS                                                                                                               \
    {                                                                                                                              \
        [FINDING_OK] = "ok", [FINDING_NOTE] = "note", [FINDING_PROBLEM] = "problem"                                                \
    }
#define DOCTOR_SECTION "section"
#define DOCTOR_ROW     "row"
#define DOCTOR_DEVICE  "device"
#define DOCTOR_NATIVE  "native"
#define DOCTOR_PROBE   "--probe" /* doctor's argument that makes it the probe; the library's path follows */

/* The probe: look at the driver through `library`, which is preloaded. Returns 0 if it came to its end. */
int doctor_probe(const char *library);

/* native.c: tell of the limits on device memory in this process's control group and those above it (the kernel's dmem controller). */
typedef void native_tell(void *context, const char *text);
void doctor_dmem(native_tell *tell, void *context);

/* uncharged.c: tell of processes on the GPUs that no budget is charged for. Nothing is told where there are none. */
typedef void doctor_found(void *context, const char *text);
void doctor_uncharged(doctor_found *found, void *context);

#endif
