#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2 SOFTSIM_MEM=9G
# timeout: 120
"""What is removed, and what stays: containers that live idle and unlisted, lists that are not whole, what a killed process left; and room before the first
list, a kubelet that loses the stream."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import TMP, Kubelet, Plugin, Pods, check, grpc, started, wait_for  # noqa: E402

UNITS = "softslice.io/vram-gib"
DIRECTORY, ANOTHER = os.path.join(TMP, "kubelet"), os.path.join(TMP, "another")
SOCKET = os.path.join(TMP, "pods.sock")
CONFIG = "[device-plugin]\npods = %s\nask_pods = 50ms\nkeep = %s\n"
OTHERS = [("kube-system", "proxy", "proxy", "other.example/thing", ["0"])]
OWN = ("softslice-system", "softslice-device-plugin-x", "device-plugin", "other.example/thing", ["1"])
# As much as a container without a program of ours has of its budget: a mount, of a file in the directory or of one below it.
IDLE = 'mkdir -p "$1" && mount --bind "$0" "$1" && umount -l /proc && echo ready && exec sleep 1000'


def begin(config, options=("--proc", "/proc"), resources=(UNITS,)):
    found = Plugin(DIRECTORY, config=config, options=options)
    endpoints = kubelet.endpoints(*resources)
    return [found] + endpoints + [endpoint.list_of("devices", bool) for endpoint in endpoints]


def looks(count):
    """So many rounds that began after now have been judged."""
    before = pods.asked
    wait_for("some looks", lambda: pods.asked > before + count)


def idle(answer):
    """A container of which only its mounts are left to see, which is hidden from none."""
    process = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", IDLE, answer.host("/etc/softslice"), TMP + "/inside"],
                               stdout=subprocess.PIPE, text=True)
    started.append(process)
    check(process.stdout.readline() == "ready\n", "an idle container")
    return process


os.mkdir(DIRECTORY)
kubelet = Kubelet(DIRECTORY)
kubelet.start()
pods = Pods(SOCKET)
pods.pods = OTHERS

# Beside the rest: a kubelet that loses the stream, and one that is asked again because of it.
os.mkdir(ANOTHER)
forgets = Kubelet(ANOTHER)
forgets.start()
lost = Plugin(ANOTHER, "lost", config=CONFIG % (SOCKET, "1h"))
stream, = forgets.endpoints(UNITS)
stream.list_of("devices", bool)
stream.stream.cancel()

# Beside the rest: an ini that cannot be read, and an allocation of before. It waits, and does not spin.
waits = Plugin(ANOTHER + "-none", "waits", config="[device-plugin]\nkeep = 1\n")
waits.logged("nothing is offered until it can be read")
waits.end()
os.makedirs(waits.root + "/k8s-0badc0de")
with open(waits.root + "/k8s-0badc0de/.allocation", "w", encoding="ascii") as file:
    file.write('{"resource": "vram-gib", "gpu": "GPU-x", "limits": "", "ids": ["GPU-x::0"]}')
waits = Plugin(ANOTHER + "-none", "waits", config="[device-plugin]\nkeep = 1\n")
waits.logged("1 allocation of an earlier process")

# A container that lives without a program of ours and is in no list, as one whose pod was deleted by force, keeps its files; so it does when its devices
# are another's already.
plugin, units, devices = begin(CONFIG % (SOCKET, "300ms"))
gpu = next(iter(devices)).partition("::")[0]
ids = ["%s::%d" % (gpu, i) for i in range(8)]
if os.geteuid() or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
    print("mounts need root: not seen what keeps them")
else:
    one, = units.allocate(ids[:1])
    two, = units.allocate(ids[1:2])
    container = idle(one)
    plugin.logged(two.name + " is removed: the kubelet has no pod for it any more")
    looks(10)
    check(plugin.budgets() == {one.name}, "what is mounted stays: %s" % plugin.budgets())
    container.kill()
    container.wait()
    plugin.logged(one.name + " is removed: the kubelet has no pod for it any more")

# A kubelet that does not know its pods yet: they are not gone.
plugin.end()
plugin, units, _ = begin(CONFIG % (SOCKET, "300ms"), ("--proc", "/proc", "--pod", "softslice-system/softslice-device-plugin-x"))
one, = units.allocate(ids[:1])
plugin.logged("does not list pod softslice-system/softslice-device-plugin-x")
until = time.monotonic() + 0.5  # longer than `keep`: what must not come cannot be waited for
wait_for("looks", lambda: time.monotonic() > until)
looks(5)
check(plugin.budgets() == {one.name}, "a list that is not whole says nothing of who is missing in it")
pods.pods = OTHERS + [OWN]
plugin.logged(one.name + " is removed: the kubelet has no pod for it any more")
pods.stop()

# No list yet: what was given out counts, whether or not a process of it lives.
six, = units.allocate(ids[:6])
plugin.end(signal.SIGKILL)
plugin, units, sliced, _, slices = begin(CONFIG % (SOCKET, "300ms") + "[slice all]\nvram = 6GiB\n", resources=(UNITS, "softslice.io/all"))
one, = [one for one in slices if one.startswith(gpu)]
code, details = sliced.refuse([one])
check(code == grpc.StatusCode.FAILED_PRECONDITION and "running containers have 6144 MiB" in details, "%s: %s" % (code, details))
pods = Pods(SOCKET)
pods.pods = OTHERS
plugin.logged(six.name + " is removed: the kubelet has no pod for it any more")
check(len(sliced.allocate([one])) == 1, "the room of who has ended")
plugin.end(signal.SIGKILL)

# What was killed between two steps of making one, or of removing it, is gone without a word of warning. What is not known to be of those stays.
before = plugin.log
os.makedirs(plugin.root + "/k8s-0badc0d1/.etc/softslice")
os.mkdir(plugin.root + "/k8s-broken")
os.mkdir(plugin.root + "/k8s-0badc0d3")
os.symlink("/etc/cdi/others.json", plugin.root + "/k8s-0badc0d3/.spec")
os.mkdir(plugin.root + "/k8s-0badc0d4")
for path in ("k8s-0badc0d4/.allocation", "turns/k8s-0badc0d2.turns"):
    with open(os.path.join(plugin.root, path), "w", encoding="ascii") as file:
        file.write("[")
plugin, units, _ = begin(CONFIG % (SOCKET, "300ms"))
stays = {"k8s-broken", "k8s-0badc0d3", "k8s-0badc0d4", units.allocate(ids[7:])[0].name}
pods.pods = OTHERS + [("x", "a", "a", UNITS, ids[7:])]
plugin.logged("k8s-0badc0d1 is removed: a process that made or removed it was killed")
plugin.logged("k8s-0badc0d2 is removed: a process that made or removed it was killed")
looks(5)
wait_for("the rest: %s" % stays, lambda: plugin.budgets() == stays)
check(len(os.listdir(plugin.root + "/turns")) == 1, "entries of turns: %s" % os.listdir(plugin.root + "/turns"))
# What the admin removes is not counted on, nor made again.
gone = (stays - {"k8s-broken", "k8s-0badc0d3", "k8s-0badc0d4"}).pop()
check(subprocess.run([os.environ["TEST_COMMAND"], "cdi", "remove", "--root", plugin.root, gone], check=False).returncode == 0, "cdi remove")
pods.pods = OTHERS
plugin.logged(gone + " is removed: its directory was removed")
check(not os.path.exists("%s/%s.json" % (plugin.saved, gone)), "it is noted for after a reboot")
log = plugin.log[len(before):]
check("warning %s/k8s-0badc0d1" % plugin.root not in log and log.count("no record of an allocation") == 2, log)
plugin.end()
plugin.check_log()

# What was begun first.
stream, = forgets.endpoints(UNITS)
check(stream.list_of("devices", bool) and "does not listen to the list" in lost.log, "registered again")
lost.end()
with open("/proc/%d/stat" % waits.process.pid, encoding="ascii") as file:
    ticks = sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
check(ticks < os.sysconf("SC_CLK_TCK") / 2, "half a second of CPU time for nothing: %d ticks" % ticks)
waits.end()
print("ok")
