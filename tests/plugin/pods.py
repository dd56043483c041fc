#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2 SOFTSIM_MEM=9G
# timeout: 180
"""Whose an allocation is, and its end: labels, pods that go, devices that are given out again, what a killed pod and plugin leave."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import TMP, Kubelet, Plugin, Pods, check, grpc, started, wait_for  # noqa: E402

UNITS = "softslice.io/vram-gib"
DIRECTORY = os.path.join(TMP, "kubelet")
SOCKET = os.path.join(TMP, "pods.sock")
# A clock that can be set, for the plugin alone.
CLOCK = """
#include <stdio.h>
#include <time.h>
time_t time(time_t *result)
{
    struct timespec now;
    FILE *file = fopen("%s/hours", "re");
    int hours = 0;

    if (file && fscanf(file, "%%d", &hours) != 1)
        hours = 0;
    if (file)
        fclose(file);
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += hours * 3600;
    return result ? *result = now.tv_sec : now.tv_sec;
}
""" % TMP
CONFIG = "[device-plugin]\npods = %s\nask_pods = 100ms\nkeep = %s\n"


def record(name):
    return "%s/%s/.allocation" % (plugin.root, name)


def age(name, seconds):
    """As if it had been given out so much earlier."""
    with open(record(name), encoding="ascii") as file:
        content = json.load(file)
    content["made"] -= seconds
    with open(record(name), "w", encoding="ascii") as file:
        json.dump(content, file)


def settable_clock():
    """Where there is no compiler for what runs here, the clock stays as it is."""
    if not shutil.which("gcc") or os.environ.get("TEST_EMULATED"):
        return {}
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", TMP + "/clock.so", "-x", "c", "-"], input=CLOCK, text=True, check=True)
    return {"LD_PRELOAD": TMP + "/clock.so", "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


def begin(keep):
    found = Plugin(DIRECTORY, config=CONFIG % (SOCKET, keep), options=("--proc", "/proc"))
    endpoint, = kubelet.endpoints(UNITS)
    endpoint.list_of("devices", bool)
    return found, endpoint


os.mkdir(DIRECTORY)
kubelet = Kubelet(DIRECTORY)
kubelet.start()
plugin = Plugin(DIRECTORY, config=CONFIG % (SOCKET, "300ms"), env=settable_clock())
units, = kubelet.endpoints(UNITS)
gpu, other = dict.fromkeys(one.partition("::")[0] for one in units.list_of("devices", bool))
ids = ["%s::%d" % (gpu, i) for i in range(8)]

# No PodResources: said once, and nothing is removed.
init, = units.allocate(ids[:1])
main, = units.allocate(ids[:3])
plugin.logged(r"Z info the kubelet.s pods cannot be asked for yet .*: UNAVAILABLE")
plugin.logged(r"Z warning the kubelet.s pods cannot be asked for .*: UNAVAILABLE")
check(plugin.budgets() == {init.name, main.name}, "an init container's files stay: the kubelet allocates for the whole pod before any runs")

# Names, and what the tools show of them.
pods = Pods(SOCKET)
pods.pods = [("team-a", "llm-0", "server", UNITS, ids[:3])]
plugin.logged(main.name + " is container server of pod team-a/llm-0")
with open(plugin.root + "/%s/labels.ini" % main.name, encoding="ascii") as file:
    check(file.read() == "[labels]\npod = llm-0\nnamespace = team-a\ncontainer = server\n", "labels.ini")
asked = pods.asked
wait_for("some looks", lambda: pods.asked > asked + 10)
check(plugin.budgets() == {init.name, main.name}, "both stay while the pod is listed")

# A pod that is gone is removed; one that was never listed, too.
second, = units.allocate([other + "::0"])
pods.pods = []
plugin.logged("is removed: the kubelet has no pod for it any more", 3)
wait_for("no directory", lambda: plugin.budgets() == set())
check(os.listdir(plugin.root + "/turns") == [] and os.listdir(plugin.saved) == [], "no entry of turns, nothing saved")

# The clock is set while a pod is admitted: what its init container has is not taken for another pod's that was before it.
init, = units.allocate(ids[:1])
with open(TMP + "/hours", "w", encoding="ascii") as file:
    file.write("2")
main, = units.allocate(ids[:3])
pods.pods = [("team-a", "llm-1", "server", UNITS, ids[:3])]
plugin.logged(main.name + " is container server of pod team-a/llm-1")
asked = pods.asked
wait_for("some looks", lambda: pods.asked > asked + 10)
check(plugin.budgets() == {init.name, main.name}, "both stay, though the clock was set")
pods.pods = []
wait_for("no directory", lambda: plugin.budgets() == set())

# Whoever lives is not removed, whatever the kubelet says.
alive, = units.allocate(ids[:1])
env = {**os.environ, "LD_PRELOAD": os.environ["TEST_LIB"], "SOFTSLICE_STATE_DIR": "%s/%s" % (plugin.root, alive.name),
       "SOFTSLICE_TENANT": alive.name, "SOFTSLICE_VRAM": "2GiB"}
taker = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli", "taker.py"), "64"], env=env,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
started.append(taker)
check(int(taker.stdout.readline()) == 64, "holds memory")
asked, until = pods.asked, time.monotonic() + 1
wait_for("some looks", lambda: pods.asked > asked + 10 and time.monotonic() > until)
check(plugin.budgets() == {alive.name}, "a container that lives stays")
taker.kill()
taker.wait()
wait_for("its end", lambda: plugin.budgets() == set())
check(plugin.end() == 0, "ends")
plugin.check_log()
pods.stop()

# What a killed pod and plugin left: removed once its devices are given out again and nothing has it mounted, if the kubelet cannot be asked.
plugin, units = begin("1h")
first, = units.allocate(ids[:2])
beside, = units.allocate(ids[4:5])
plugin.end()
age(first.name, 3600)
age(beside.name, 3600)
os.mkdir(plugin.root + "/k8s-broken")
plugin, units = begin("1h")
plugin.logged("k8s-broken: no record of an allocation in it")
again, = units.allocate(ids[1:3])
plugin.logged(first.name + " is removed: its devices are given to another container")
check(plugin.budgets() == {again.name, beside.name, "k8s-broken"}, "the old one is gone, the one beside stays: %s" % plugin.budgets())

# The configuration changed while containers run: memory is not given out twice, and what an init container had and the one after it has counts once.
units.allocate(ids[5:6])
units.allocate(ids[5:8])
pods = Pods(SOCKET)
pods.pods = [("x", "a", "a", UNITS, ids[1:3]), ("x", "b", "b", UNITS, ids[4:5]), ("x", "c", "c", UNITS, ids[5:8])]
plugin.logged(again.name + " is container a of pod x/a")
plugin.end()
plugin = Plugin(DIRECTORY, config="[device-plugin]\nslices = pack\npods = %s\nask_pods = 100ms\n[slice all]\nvram = 6GiB\n" % SOCKET)
units, sliced = kubelet.endpoints(UNITS, "softslice.io/all")
one, = sliced.list_of("a slice", bool)
check(one.startswith(gpu), "the slice is on the first GPU")
code, details = sliced.refuse([one])
check(code == grpc.StatusCode.FAILED_PRECONDITION and "running containers have 6144 MiB" in details, "%s: %s" % (code, details))
pods.pods = [("x", "b", "b", UNITS, ids[4:5])]
asked = pods.asked
wait_for("looks at who has ended", lambda: pods.asked > asked + 4)
check(len(sliced.allocate([one])) == 1, "what is left is enough")
plugin.end()
pods.stop()


# Nor does the kubelet's giving a device to another pod, of which it cannot tell us, hide what that one has: by an earlier record that has a device
# of the request, or by one of the time when the device was smaller.
def sized(slice_size, reserve):
    return "[device-plugin]\nreserve = %s\npods = %s/nowhere\nask_pods = 100ms\n[slice one]\nvram = %s\nreplicas = 2\n" % (reserve, TMP, slice_size)


def reread(config):
    plugin.configure(config)
    before = plugin.log.count("was read again")
    plugin.process.send_signal(signal.SIGHUP)
    plugin.logged("was read again", before + 1)


plugin = Plugin(DIRECTORY, "again", config=sized("512MiB", "1GiB"))
units, sliced = kubelet.endpoints(UNITS, "softslice.io/one")
slices = sorted(sliced.list_of("two slices", lambda devices: len(devices) == 2))
gpu = slices[0].partition("::")[0]
ids = ["%s::%d" % (gpu, i) for i in range(8)]
units.allocate([ids[0], ids[5]])
units.allocate([ids[5]])
sliced.allocate(slices[:1])
reread(sized("1GiB", "5GiB"))
sliced.allocate(slices[:1])
reread(sized("512MiB", "7GiB"))
code, details = units.refuse([ids[0]])
check(code == grpc.StatusCode.FAILED_PRECONDITION and "2048 MiB to hand out, of which running containers have 2048 MiB" in details, "%s %s" % (code, details))
plugin.end()
print("ok")
