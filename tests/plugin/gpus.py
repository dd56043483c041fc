#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2 SOFTSIM_MEM=5G SOFTSIM_NVML_EVENTS=$TMP/events SOFTSIM_BLOCK=nvmlDeviceGetCount_v2:$TMP/block
# timeout: 120
"""Health: XIDs, GPUs that are lost and come back, an NVML that hangs, that is not there, that comes later."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import TMP, Kubelet, Plugin, check, grpc, wait_for  # noqa: E402

UNITS = "softslice.io/vram-gib"
DIRECTORY = os.path.join(TMP, "kubelet")
EVENTS = os.path.join(TMP, "events")
CONFIG = "[device-plugin]\nask_gpus = 200ms\n"


def say(text):
    with open(EVENTS + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.rename(EVENTS + ".new", EVENTS)


def unhealthy(devices):
    return {one.partition("::")[0] for one, health in devices.items() if health != "Healthy"}


def is_unhealthy(*gpus):
    return lambda devices: len(devices) == 8 and unhealthy(devices) == set(gpus)


os.mkdir(DIRECTORY)
say("xid 0 79\n")
kubelet = Kubelet(DIRECTORY)
kubelet.start()
plugin = Plugin(DIRECTORY, config=CONFIG)
units, = kubelet.endpoints(UNITS)
first, second = dict.fromkeys(one.partition("::")[0] for one in units.list_of("healthy", is_unhealthy()))

# One that an application caused, then a real one, of the second GPU.
say("xid 0 79\nxid 1 31\nxid 1 79\n")
units.list_of("XID 79", is_unhealthy(second))
plugin.logged(second + ": XID 31, which an application causes")
plugin.logged(second + " is unhealthy: XID 79")
code, details = units.refuse([second + "::0"])
check(code == grpc.StatusCode.FAILED_PRECONDITION and "XID 79" in details, "not given out: %s" % details)
check(len(units.allocate([first + "::0"])) == 1, "the other one is")

# Lost, and back: what was before is over. The devices stay listed meanwhile.
say("xid 0 79\nxid 1 31\nxid 1 79\nlost 0\n")
units.list_of("a lost GPU beside", is_unhealthy(first, second))
say("xid 0 79\nxid 1 31\nxid 1 79\nlost 1\n")
units.list_of("the first is back", is_unhealthy(second))
say("xid 0 79\nxid 1 31\nxid 1 79\n")
units.list_of("the second is back, and well", is_unhealthy())
plugin.logged(second + " is healthy again")

# NVML hangs: the kubelet is served all the same.
with open(os.path.join(TMP, "block"), "w", encoding="ascii"):
    pass
wait_for("a call that hangs", lambda: os.path.getsize(os.path.join(TMP, "block")))
check(len(units.allocate([first + "::1"])) == 1, "allocates while NVML hangs")
check(plugin.end() == 0, "ends while NVML hangs")
os.unlink(os.path.join(TMP, "block"))
plugin.check_log()

# No NVML at all: registered, with nothing to give, and alive.
plugin = Plugin(DIRECTORY, "without", CONFIG, {"LD_LIBRARY_PATH": ""})
units, = kubelet.endpoints(UNITS)
units.list_of("no device", lambda devices: devices == {})
plugin.logged("no GPU: libnvidia-ml.so.1 cannot be loaded")
check(plugin.process.poll() is None, "alive")
plugin.end()
plugin.check_log()

# No driver at first, then there is one.
plugin = Plugin(DIRECTORY, "later", CONFIG, {"SOFTSIM_FAIL": "nvmlInit_v2:1:9,nvmlInit_v2:2:9"})
units, = kubelet.endpoints(UNITS)
plugin.logged("no GPU: Driver Not Loaded")
units.list_of("later", is_unhealthy())
plugin.end()

# One whose memory cannot be asked is lost, too.
plugin = Plugin(DIRECTORY, "broken", CONFIG, {"SOFTSIM_FAIL": "nvmlDeviceGetMemoryInfo_v2:5+:15,nvmlDeviceGetMemoryInfo:1+:15"})
units, = kubelet.endpoints(UNITS)
units.list_of("first well", is_unhealthy())
units.list_of("then lost", is_unhealthy(first, second))
plugin.logged("is unhealthy: NVML says: GPU is lost")
plugin.end()

# Instances of a GPU in MIG mode are devices of their own, and it is none; an XID can be one instance's.
plugin = Plugin(DIRECTORY, "mig", CONFIG, {"SOFTSIM_NVML_MIG": "1:2"})
units, = kubelet.endpoints(UNITS)
devices = units.list_of("4 + 1 + 1 units", lambda devices: len(devices) == 6)
instances = sorted({one.partition("::")[0] for one in devices if one.startswith("MIG-")})
check(len(instances) == 2 and second not in {one.partition("::")[0] for one in devices}, str(devices))
answer, = units.allocate([instances[0] + "::0"])
check(answer.envs == {"NVIDIA_VISIBLE_DEVICES": instances[0]} and "[gpu %s]\nvram = 1 GiB\ncompute = 100.00%%\n" % instances[0] in answer.ini,
      answer.ini)
check(units.refuse([one + "::0" for one in instances])[0] == grpc.StatusCode.FAILED_PRECONDITION, "two instances")
say("xid 0 79\nxid 1 31\nxid 1 79\nxid 1/4 94\n")
units.list_of("one instance", lambda devices: unhealthy(devices) == {instances[1]})
plugin.end()
print("ok")
