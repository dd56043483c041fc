#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2 SOFTSIM_MEM=9G
# timeout: 180
"""The ini file: unreadable at first, read again by SIGHUP, policies, slices beside units, CDI answers, the node's devices; --dry-run."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import PLUGIN, TMP, Kubelet, Plugin, check, grpc, wait_for  # noqa: E402

UNITS, SMALL, BIG = "softslice.io/vram-gib", "softslice.io/small", "softslice.io/big"
DIRECTORY = os.path.join(TMP, "kubelet")
SLICES = """
[slice small]
vram = 1536MiB
compute = 12%
replicas = 3
[slice big]
vram = 50%
weight = 300
managed = resident
"""


def sized(count):
    return lambda devices: len(devices) == count


def gpu_of(one):
    return one.partition("::")[0]


def reread(config):
    """SIGHUP; it is done when the line is there, for it serves nobody meanwhile."""
    plugin.configure(config)
    before = plugin.log.count("was read again")
    plugin.process.send_signal(signal.SIGHUP)
    plugin.logged("was read again", before + 1)


os.mkdir(DIRECTORY)
kubelet = Kubelet(DIRECTORY)
kubelet.start()

# What cannot be read or understood is one line, and the plugin waits for better.
plugin = Plugin(DIRECTORY, config="[device-plugin]\nreserve = lots\n")
plugin.logged(r"plugin.ini:2: reserve is a size, as 1GiB or 512MiB, or 0; nothing is offered until it can be read")
check(plugin.process.poll() is None and not os.path.exists(DIRECTORY + "/softslice-vram-gib.sock"), "alive, offers nothing")
plugin.configure("[device-plugin]\nreserve = 3GiB\n")
units, = kubelet.endpoints(UNITS)
first = next(iter(units.list_of("9 GiB less 3, twice", sized(12))))

# SIGHUP: faulty files change nothing.
bad = [("nonsense\n", "plugin.ini:1: "), ("[device-plugin]\ncompute = 20%\n", "compute is proportional, none or weight"),
       ("[device-plugin]\nspill = perhaps\n", "spill"), ("[slice a]\ncompute = 5%\n", "slice 'a' has no vram"),
       ("[slice vram-gib]\nvram = 1GiB\n", "cannot be the name of a resource"), ("[slice a]\nvram = 0=1GiB\n", "not a size"),
       ("[slice a]\nvram = 1GiB\ncompute = 200%\n", "compute"), ("[device-plugin]\nignore_xids = 13;14\n", "ignore_xids"),
       ("[device-plugin]\nkeep = 5\n", "keep is a time"), ("[device-plugin]\ncolour = red\n", "no such key"),
       ("[slices small]\nvram = 1GiB\n", "there is no section [slices small]"), ("[device-plugins]\nreserve = 2GiB\n", "there is no section"),
       ("[slice a]\nvram = 4GiB\nreplicas = 5\n", "1 of the slices' replicas fit on no GPU")]
for config, words in bad:
    plugin.configure(config)
    before = plugin.log
    plugin.process.send_signal(signal.SIGHUP)
    wait_for("a line about: " + config, lambda: "what was read before stays" in plugin.log[len(before):])
    check(words in plugin.log[len(before):], "%s: %s" % (words, plugin.log[len(before):]))
check(len(units.allocate([first])) == 1, "goes on as it was")

# Slices, out of the same memory: the largest on the fullest GPU, and units of what is left.
reread(SLICES)
small, big = kubelet.endpoints(SMALL, BIG)
smalls, bigs = (endpoint.list_of("slices", bool) for endpoint in (small, big))
check(len(smalls) == 3 and len(bigs) == 1, "%s %s" % (smalls, bigs))
one = gpu_of(next(iter(bigs)))
listed = units.list_of("fewer units", lambda devices: len(devices) < 12)
left = {gpu: sum(gpu_of(i) == gpu for i in listed) for gpu in map(gpu_of, list(listed) + list(smalls))}
taken = {gpu: sum(gpu_of(i) == gpu for i in smalls) * 1.5 + (4 if gpu == one else 0) for gpu in left}
check(all(left[gpu] == int(8 - taken[gpu]) for gpu in left), "units %s beside slices %s" % (left, taken))
answer, = big.allocate(list(bigs))
check("weight = 300\n" in answer.ini and "managed = resident\n" in answer.ini and "vram = 4 GiB\n" in answer.ini and
      "\ncompute" not in answer.ini, answer.ini)
name = sorted(smalls)[0]
answer, = small.allocate([name])
check("[gpu %s]\nvram = 1610612736\ncompute = 12%%\n" % gpu_of(name) in answer.ini, answer.ini)
code, details = small.refuse(sorted(smalls)[:2])
check(code == grpc.StatusCode.FAILED_PRECONDITION and "one slice" in details, "two slices: %s" % details)
check(small.refuse([name.replace("small", "big")])[0] == grpc.StatusCode.NOT_FOUND, "another resource's id")

# The slices go: what runs in them is not handed out again while it lives.
reread("[device-plugin]\ncompute = weight\nmode = share\nspill = host\nslices = spread\n[slice small]\nvram = 1GiB\nreplicas = 2\n")
smalls = small.list_of("small ones", sized(2))
check(len({gpu_of(i) for i in smalls}) == 2, "slices that are spread")
check(not os.path.exists(DIRECTORY + "/softslice-big.sock"), "the socket of a slice that is gone")
answer, = units.allocate([one + "::3", one + "::4"])
for line in ("mode = share", "spill = host", "weight = 2500", "vram = 2 GiB"):
    check(line + "\n" in answer.ini, "%s: %s" % (line, answer.ini))
check("compute" not in answer.ini, answer.ini)

# CDI names instead of mounts, and of the driver's.
reread("[device-plugin]\nanswer = cdi\ndriver = cdi\ncompute = none\ncdi_dir = %s/cdi\n" % TMP)
order = list(dict.fromkeys(map(gpu_of, units.list_of("all units", sized(16)))))
check(kubelet.registered.empty(), "what stays on offer is not registered again")
answer, = units.allocate([one + "::5"])
check((answer.envs, answer.mounts, answer.devices) == ({}, [], []), "CDI names alone")
check(answer.cdi[0] == "nvidia.com/gpu=" + one and answer.cdi[1].startswith("softslice.io/slice=k8s-"), str(answer.cdi))
with open(TMP + "/cdi/softslice.io-kubernetes.json", encoding="ascii") as file:
    spec = json.load(file)
device, = spec["devices"]
name = device["name"]
check(spec["kind"] == "softslice.io/slice" and answer.cdi[1].endswith("=" + name), "the spec has it")
check([m["containerPath"] for m in device["containerEdits"]["mounts"]][1:3] == ["/etc/ld.so.preload", "/etc/softslice"], "and its mounts")
with open("%s/%s/.etc/softslice/softslice.ini" % (plugin.root, name), encoding="ascii") as file:
    check("compute" not in file.read(), "compute = none")

# The node's device files, where the node says they are.
os.makedirs(TMP + "/dev/nvidia-caps")
for node in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
    with open(TMP + "/dev/" + node, "w", encoding="ascii"):
        pass
reread("[device-plugin]\ndev = %s/dev\n" % TMP)
other = order[1 - order.index(one)]
answer, = units.allocate([other + "::6"])
check([d for d, _, _ in answer.devices] == ["/dev/nvidia%d" % order.index(other), "/dev/nvidiactl", "/dev/nvidia-uvm"], str(answer.devices))
check(all(here == there and how == "rw" for here, there, how in answer.devices), str(answer.devices))

# A library that is gone is the next container's error, not its loss.
check(plugin.end() == 0, "ends")
plugin.check_log()
gone = Plugin(DIRECTORY, "gone", options=["--library", TMP + "/nothing.so"])
units, = kubelet.endpoints(UNITS)
units.list_of("units", bool)
code, details = units.refuse([one + "::0"])
check(code == grpc.StatusCode.FAILED_PRECONDITION and "nothing.so" in details and not gone.budgets(), "no library: %s" % details)
gone.end()

# What the options and --dry-run say.
shown = json.loads(subprocess.run([PLUGIN, "--dry-run", "--units", "2", "--config", plugin.config], check=True,
                                  stdout=subprocess.PIPE).stdout)
check(shown["resources"] == [{"name": UNITS, "devices": 16}] and "vram = 2 GiB" in shown["allocate"]["softslice.ini"], str(shown))
for words, status in ((["--units", "2"], 125), (["--nonsense"], 125), (["here"], 125), (["--config", ""], 125), (["--version"], 0),
                      (["--help"], 0), (["--dry-run", "--config", "/nowhere"], 1), (["--dry-run", "--units", "9"], 1)):
    ended = subprocess.run([PLUGIN] + words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    check(ended.returncode == status and bool(ended.stderr) == bool(status), "%s: %s" % (words, ended))
print("ok")
