/* SPDX-License-Identifier: Apache-2.0 */
/* How long a launch may wait: for work that itself waits for the program, once and not each time; behind kernels that are longer than the tenant's share
 * of any window, max_stall; by an account that somebody scribbled on, not longer either; and a share that is changed meanwhile holds at once. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- signalled
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- long
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- threads
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- scribbled
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- refused
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_FAIL=cuEventCreate:1:2,cuEventCreate:5:2,cuEventRecord:2:2,cuEventRecord:9:999,cuEventQuery:3:999,cuEventQuery:40:999,cuEventElapsedTime:3:999,cuStreamGetCtx:1:999 -- failures
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_helper.h"

#define MAX_STALL (2 * S)
#define SLACK     (20 * MS)

static uint64_t now(void)
{
    return v_clock(CLOCK_MONOTONIC);
}

/* A stream waits for a word that the host writes after its launches. */
static void signalled(void)
{
    CUstream stream = gate_stream(), other = gate_stream();
    CUdeviceptr word;
    char name[32];
    uint64_t begun, took;

    t_cuda(cuMemAlloc(&word, 4));
    t_cuda(cuMemsetD32(word, 0, 1));
    t_cuda(cuStreamWaitValue32(stream, word, 1, CU_STREAM_WAIT_VALUE_EQ));
    begun = now();
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "k%d__100us", i);
        gate_launch(gate_kernel(name), stream);
    }
    took = now() - begun;
    t_check(took < MAX_STALL + 50 * SLACK, "200 launches behind a wait took %.3f s", (double)took / 1e9);
    t_cuda(cuStreamWriteValue32(other, word, 1, CU_STREAM_WRITE_VALUE_DEFAULT));
    t_cuda(cuStreamSynchronize(stream));
}

static void long_ones(void)
{
    CUstream stream = gate_stream();
    CUfunction kernel = gate_kernel("k__500ms");
    uint64_t forgiven = 0, begun = now();

    for (int i = 0; i < 10; i++) {
        uint64_t took = gate_launch(kernel, stream);

        t_check(took <= MAX_STALL + SLACK, "a launch waited %.3f s", (double)took / 1e9);
        if (i == 5)
            forgiven = gate_account(0).forgiven;
    }
    t_check(forgiven > 500 * MS, "forgiven: %.3f s", (double)forgiven / 1e9);
    t_check(gate_account(0).forgiven > forgiven, "what is forgiven does not grow");
    gate_percent(10 * 500 * MS, now() - begun, 25, 4); /* of each 2 s, 0.5; the first is not waited for */
}

/* The file is the tenant's own: any of its processes may write there. */
static struct share_account *account(void)
{
    static struct ledger ledger;
    int directory = open(getenv("SOFTSLICE_STATE_DIR"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (!ledger.path[0])
        t_check(ledger_attach(&ledger, directory, "gate") == 0, "%s", ledger.error);
    close(directory);
    t_check(ledger_account(&ledger, 0), "no account");
    return ledger_account(&ledger, 0);
}

static void scribbled(void)
{
    static const uint64_t absurd[] = {UINT64_MAX, UINT64_MAX / 2, UINT64_C(1) << 62, 0, 1};
    CUstream stream = gate_stream();
    CUfunction kernel = gate_kernel("k__1ms");

    gate_launch(kernel, stream);
    for (size_t i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
        for (size_t word = 0; word < sizeof(struct share_account) / 8; word++) {
            t_cuda(cuStreamSynchronize(stream));
            __atomic_store_n((uint64_t *)account() + word, absurd[i], __ATOMIC_SEQ_CST);
            for (int n = 0; n < 4; n++) {
                uint64_t took = gate_launch(kernel, stream);
                t_check(took <= MAX_STALL + SLACK, "word %zu is %#llx: a launch waited %.3f s", word, (unsigned long long)absurd[i],
                        (double)took / 1e9);
            }
        }
    }
    t_cuda(cuStreamSynchronize(stream));
    memset(account(), 0, sizeof(struct share_account));
    uint64_t begun = now();
    for (int i = 0; i < 1000; i++)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    gate_percent(1000 * MS, now() - begun, 30, 2);
}

static uint64_t work(CUfunction kernel, CUstream stream, uint64_t until)
{
    uint64_t launches = 0;

    for (; now() < until; launches++)
        gate_launch(kernel, stream);
    return launches;
}

static void changed(void)
{
    struct ledger_change change = {.compute = true};
    static struct ledger_view before;
    CUstream stream = gate_stream();
    CUfunction kernel = gate_kernel("k__1ms");
    static const unsigned shares[] = {50, 20, 80, 5, 60};
    int directory = open(getenv("SOFTSLICE_STATE_DIR"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    gate_percent(work(kernel, stream, now() + 2 * S) * MS, 2 * S, 10, 2);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        change.share = shares[i] * 100;
        t_equal(ledger_change(directory, "gate", NULL, &change, &before), 1);
        work(kernel, stream, now() + 200 * MS);
        gate_percent(work(kernel, stream, now() + S) * MS, S, shares[i], 2);
    }
    close(directory);
}

/* What the driver refuses costs nothing, and holds up nobody. */
static void refused(void)
{
    CUstream stream = gate_stream();
    CUfunction kernel = gate_kernel("k__1ms");
    uint64_t begun, busy;

    for (int i = 0; i < 1000; i++) {
        t_result(cuLaunchKernel(kernel, 0, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
        t_result(cuLaunchKernel((CUfunction)&begun, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), CUDA_ERROR_INVALID_HANDLE);
        t_result(cuLaunchKernelEx(NULL, kernel, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    }
    begun = now();
    for (int i = 0; i < 200; i++) {
        gate_launch(kernel, stream);
        t_result(cuLaunchKernel(kernel, 0, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    }
    t_cuda(cuStreamSynchronize(stream));
    gate_percent(200 * MS, now() - begun, 52, 3); /* with what is free at first */
    busy = gate_account(0).busy;
    t_check(busy >= 199 * MS && busy <= 205 * MS, "charged %.3f ms for 200", (double)busy / 1e6);
}

/* Of our own questions: the program sees none of it, and the share holds. */
static void failures(void)
{
    CUstream stream = gate_stream();
    CUfunction kernel = gate_kernel("k__1ms");
    uint64_t begun = now();

    for (int i = 0; i < 1000; i++)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    gate_percent(1000 * MS, now() - begun, 50, 3);
}

/* Long kernels of several threads: what one has in flight is no reason for another to wait any longer. */
static void launch_long(void *argument)
{
    CUstream stream[3] = {gate_stream(), gate_stream(), gate_stream()};

    for (int i = 0; i < 6; i++) {
        uint64_t took = gate_launch(argument, stream[i % 3]);

        t_check(took <= MAX_STALL + SLACK, "a launch took %.1f ms", (double)took / 1e6);
    }
    for (int i = 0; i < 3; i++)
        t_cuda(cuStreamSynchronize(stream[i]));
}

static void threads(void)
{
    CUfunction kernel = gate_kernel("k__500ms");
    struct gate_thread thread[4];
    CUcontext context;

    t_cuda(cuCtxGetCurrent(&context));
    for (int i = 0; i < 4; i++)
        gate_start(&thread[i], context, launch_long, kernel);
    for (int i = 0; i < 4; i++)
        gate_join(&thread[i]);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } part[] = {{"signalled", signalled}, {"long", long_ones},  {"threads", threads},  {"scribbled", scribbled},
                {"changed", changed},     {"refused", refused}, {"failures", failures}};

    t_context(0);
    for (size_t i = 0; argc > 1 && i < sizeof(part) / sizeof(part[0]); i++)
        if (strcmp(argv[1], part[i].name) == 0)
            part[i].run();
    return 0;
}
