/* SPDX-License-Identifier: Apache-2.0 */
/* A tenant's ledger is of an older layout, which has no accounts: a member that joins keeps to its own share, and neither its pauses nor its end are harmed. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=gate
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// unsanitized: it is about shares of real time
#include <sys/mman.h>
#include <sys/stat.h>

#include "../../core/ledger_layout.h"
#include "gate_helper.h"

static void make_older(void)
{
    char path[4096];
    struct stat st;

    snprintf(path, sizeof(path), "%s/gate/ledger", getenv("SOFTSLICE_STATE_DIR"));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    t_check(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", path, strerror(errno));
    struct ledger_header *header = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    t_check(header != MAP_FAILED, "%s: %s", path, strerror(errno));
    header->compute_offset = header->compute_stride = header->busy_offset = header->busy_stride = 0;
    header->event_offset = header->event_stride = header->event_count = 0;
    uint64_t check = ledger_checksum(header, header->constant_size - 8);
    memcpy((char *)header + header->constant_size - 8, &check, 8);
    close(fd);
}

static void member(void)
{
    uint64_t begun, work = 0;

    t_context(0);
    CUfunction kernel = gate_kernel("k__5ms");
    CUstream stream = gate_stream();
    begun = v_clock(CLOCK_MONOTONIC);
    for (; work < 200 * MS; work += 5 * MS) {
        gate_launch(kernel, stream);
        t_cuda(cuStreamSynchronize(stream));
        if (work % (50 * MS) == 0)
            usleep(50000); /* idle, as far as anybody knows */
    }
    uint64_t took = v_clock(CLOCK_MONOTONIC) - begun;
    t_check(took > work * 3, "%.0f ms of work under 20 %% in %.0f ms", (double)work / 1e6, (double)took / 1e6);
    gate_launch(kernel, stream); /* it ends with work */
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        member();
        return 0;
    }
    t_cuda(cuInit(0));
    t_context(0);
    make_older();
    setenv("SOFTSLICE_COMPUTE", "20%", 1);
    t_join(t_again("member"));
    (void)argv;
    return 0;
}
