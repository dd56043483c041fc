# SPDX-License-Identifier: Apache-2.0
"""What the tests of what is shown share: tenants that hold what they were told to, and the simulated GPUs' own books, read without softslice."""
import contextlib
import ctypes
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
from steal import stolen, taken_since  # noqa: E402

COMMAND, SIM = os.environ["TEST_COMMAND"], os.environ["TEST_SIM"]
TIMELINE = os.path.join(os.environ["TEST_TMP"], "timeline")
MIB, GIB = 1 << 20, 1 << 30


def two_gpus():
    """For all programs that are started from now on."""
    os.environ.update(SOFTSIM_GPUS="2", SOFTSIM_MEM=str(8 * GIB), SOFTSIM_CONTEXT_BYTES=str(200 * MIB), SOFTSIM_TIMELINE=TIMELINE, SOFTSLICE_LOG="off")


def check(holds, *what):
    if not holds:
        sys.exit("FAILED: " + " ".join(map(str, what)))


STOLEN = stolen()


@contextlib.contextmanager
def holding(options, *words, before=(), environment=None):
    """A tenant's program that has done what holder.py was told. Without options it is started without the command."""
    run = [COMMAND, "run", *options, "--"] if options else []
    program = subprocess.Popen([*run, *before, sys.executable, os.path.join(HERE, "holder.py"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env={**os.environ, **(environment or {})})
    said = program.stdout.readline()
    check(said == "ready\n", options, "said", repr(said))
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.send_signal(signal.SIGCONT)
        program.stdin.close()
        check(program.wait(60) in (0, -signal.SIGKILL), options, "ended with", program.returncode)


class Process(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gpu_instance", ctypes.c_uint), ("compute_instance", ctypes.c_uint)]


class Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Books:
    """What the simulated GPUs say of themselves, without softslice: bytes by GPU and process, GPU time by GPU and process."""

    def __init__(self):
        nvml = ctypes.CDLL(os.path.join(SIM, "libnvidia-ml.so.1"))
        assert nvml.nvmlInit_v2() == 0
        self.uuid, self.used, self.total, self.held = [], [], [], []
        for gpu in range(2):
            device, uuid, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), Memory()
            count, processes = ctypes.c_uint(64), (Process * 64)()
            assert nvml.nvmlDeviceGetHandleByIndex_v2(gpu, ctypes.byref(device)) == 0
            assert nvml.nvmlDeviceGetUUID(device, uuid, 96) == 0
            assert nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
            assert nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, ctypes.byref(count), processes) == 0
            self.uuid.append(uuid.value.decode())
            self.used.append(memory.used)
            self.total.append(memory.total)
            self.held.append({processes[i].pid: processes[i].used for i in range(count.value)})

    @staticmethod
    def busy(gpu, pid):
        total = 0
        with open(TIMELINE, encoding="ascii") as lines:
            for line in lines:
                its_gpu, its_pid, begin, end = map(int, line.split())
                total += end - begin if (its_gpu, its_pid) == (gpu, pid) else 0
        return total

    def check_busy(self, gpu, pid, told):
        """Once the program has ended: its last stretches are written then. Marks around launches are not free, and the last one may be due; that it was
        reached is seen later by what the host of a virtual machine took from the processors meanwhile."""
        had, late = self.busy(gpu, pid), 1e9 * taken_since(STOLEN)
        check(had > 2e7 and -had / 10 - 5e6 <= told - had <= had / 10 + 5e6 + late, "busy on GPU", gpu, "told", told, "had", had, "late", late)
