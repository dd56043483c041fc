#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_MEM=5G
# timeout: 300
"""A kubelet that restarts 1,000 times, of which it waits for the plugin at every second one alone: it is found in the end, and nothing has piled up."""
import os
import queue
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import TMP, Kubelet, Plugin, check, wait_for  # noqa: E402

UNITS = "softslice.io/vram-gib"
RESTARTS = 1000
DIRECTORY = os.path.join(TMP, "kubelet")


def held():
    """Files and threads of the plugin."""
    return tuple(len(os.listdir("/proc/%d/%s" % (plugin.process.pid, what))) for what in ("fd", "task"))


def memory():
    with open("/proc/%d/statm" % plugin.process.pid, encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def restart(wait):
    kubelet.stop()
    kubelet.start()
    if not wait:
        return
    try:
        name, endpoint = kubelet.registered.get(timeout=60)
    except queue.Empty:
        check(False, "not registered again:\n" + plugin.log[-2000:])
    check(name == UNITS, name)
    endpoint.close()


os.mkdir(DIRECTORY)
kubelet = Kubelet(DIRECTORY)
kubelet.start()
plugin = Plugin(DIRECTORY)
units, = kubelet.endpoints(UNITS)
one = next(iter(units.list_of("devices", lambda devices: len(devices) == 4)))
units.close()
restart(True)
files, threads = held()
before = memory()
for i in range(RESTARTS):
    restart(i % 2)
while not kubelet.registered.empty():
    kubelet.registered.get()[1].close()
restart(True)
while not kubelet.registered.empty():
    kubelet.registered.get()[1].close()
wait_for("what a registration takes to go", lambda: held() <= (files + 2, threads))
check(memory() < before + (8 << 20), "memory: %d, then %d" % (before, memory()))
kubelet.stop()
kubelet.start()
units, = kubelet.endpoints(UNITS)
check(len(units.allocate([one])) == 1 and len(units.list_of("devices", bool)) == 4, "served as on the first day")
check(plugin.end() == 0, "ends")
plugin.check_log()
print("ok")
