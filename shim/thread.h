/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of our own in somebody else's process: each exists once at most, and asks the driver nothing once exit() has come to us. */
#ifndef SOFTSLICE_SHIM_THREAD_H
#define SOFTSLICE_SHIM_THREAD_H

#include <stdbool.h>
#include <stdint.h>

/* In memory that a fork wipes: all zeros is "there is none". */
struct thread {
    uint32_t state;
    uint32_t word; /* a futex: changes when it is to look */
    uint32_t busy; /* it may be asking the driver */
};

/* Have the thread. Detached, with all signals blocked but those of its own faults. Where none can be made there is none, and it is not tried again.
 * Not linked against libpthread: its functions are looked up when they are needed. Keeps errno. */
void thread_ensure(struct thread *thread, void *(*run)(void *), void *argument);

/* Make it look now. False where there is none. Keeps errno. */
bool thread_wake(struct thread *thread);

/* In the thread: before and after it works. False: it must end now. */
bool thread_begins(struct thread *thread);
void thread_ends(struct thread *thread);

/* In the thread, which has nothing to do: it may be over. True: return from it, unless thread_stays() says that it was wanted meanwhile. */
void thread_leaves(struct thread *thread);
bool thread_stays(struct thread *thread);

/* What is to be done at exit(), when none of the threads works any more. One for all; not where a thread hangs. */
void thread_at_exit(void (*finish)(void));

/* Whether the process is on its way out: the driver and NVML are not to be asked any more. */
bool thread_over(void);

#endif
