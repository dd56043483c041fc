# SPDX-License-Identifier: Apache-2.0
"""The device plugin under the kubelet's own device manager."""
import os
import re
import shutil
import signal
import stat

from parts import KUBELET, RESOURCE, STATE, Page, Refused, expect, gpu_of, wait_for

SOCKET = KUBELET + "/device-plugins/softslice-vram-gib.sock"


def units(count):
    return "%s=%d" % (RESOURCE, count)


def test_allocate(place):
    """A container gets the mounts that the table in docs/kubernetes.md has, and files that say what it asked for."""
    place.plugin()
    manager = place.manager()
    expect(manager.wait_for(True) == 30, "two GPUs of 16 GiB have %d units, not 15 each" % manager.allocatable())
    given = manager.allocate("pod", "main", units(2))
    said = Page(place.library).mounts_of(given.name)
    expect(given.mounts == said, "the mounts are\n%s\nand the page has\n%s" % (given.mounts, said))
    for inside, (host, read_only) in given.mounts.items():
        mode = os.stat(host).st_mode
        expect(os.stat(host).st_uid == 0 and bool(mode & stat.S_IWOTH) == (not read_only), "%s has mode %o" % (host, mode))
        expect(inside != "/etc/ld.so.preload" or open(host, encoding="ascii").read().strip() == "/usr/local/lib/softslice/libsoftslice.so", inside)
    with open(STATE + "/%s/.etc/softslice/softslice.ini" % given.name, encoding="utf-8") as text:
        expect("2GiB" in text.read().replace(" ", ""), "the limits do not say 2 GiB")


def test_too_many(place):
    """More than there is: the pod is not admitted, and what there is can be had afterwards, to the last unit."""
    place.plugin(SOFTSIM_GPUS="1")
    manager = place.manager()
    there = manager.wait_for(True)
    expect(8 <= there <= 16, "%d units of a GPU with 16 GiB" % there)
    for asked in (there + 1, 100000):
        said = manager.refusal("much", "c", units(asked))
        expect("Requested: %d, Available: %d" % (asked, there) in said, "%d units: %s" % (asked, said))
    manager.allocate("all", "c", units(there))
    expect(len(manager.devices("all", "c")) == there, "not all units")
    said = manager.refusal("one-more", "c", units(1))
    expect("Available: 0" in said, said)
    manager.do("forget", "all")
    manager.allocate("again", "c", units(there))


def test_two_gpus(place):
    """Each container is on one GPU, and each GPU's units are used up first; a request that fits neither GPU fails and says so, and takes nothing."""
    place.plugin()
    manager = place.manager()
    of_each = manager.wait_for(True) // 2
    names = set()
    for pod in range(2):
        names.add(manager.allocate("big%d" % pod, "c", units(of_each - 4)).name)
    gpus = [gpu_of(manager.devices("big%d" % pod, "c")) for pod in range(2)]
    expect(all(len(gpu) == 1 for gpu in gpus) and gpus[0] != gpus[1], "two containers, each of most of a GPU, have %s" % gpus)
    before = sorted(os.listdir(STATE))
    for attempt in range(3):
        said = manager.refusal("between", "c%d" % attempt, units(6))
        expect("GPU" in said and "rpc error" in said, "8 units of two GPUs: " + said)
    expect(sorted(os.listdir(STATE)) == before, "refusals left files: %s, not %s" % (sorted(os.listdir(STATE)), before))
    for pod in range(4):
        names.add(manager.allocate("small%d" % pod, "c", units(2)).name)
        expect(len(gpu_of(manager.devices("small%d" % pod, "c"))) == 1, "ids of two GPUs")
    expect(len(names) == 6, "six containers have the budgets %s" % names)
    expect("Available: 0" in manager.refusal("none", "c", units(1)), "a unit too many")


def test_two_containers(place):
    """Containers of one pod have budgets of their own."""
    place.plugin()
    manager = place.manager()
    manager.wait_for(True)
    first, second = manager.allocate("pod", "a", units(1)), manager.allocate("pod", "b", units(2))
    expect(first.name != second.name, "one budget for both")
    for given, size in ((first, "1GiB"), (second, "2GiB")):
        with open(given.mounts["/etc/softslice"][0] + "/softslice.ini", encoding="utf-8") as text:
            expect(size in text.read().replace(" ", ""), "the limits do not say " + size)


def test_manager_restart(place):
    """The kubelet's restarts, which delete all sockets: the plugin is back each time, and what is allocated stays so."""
    place.plugin()
    manager = place.manager()
    there = manager.wait_for(True)
    given = manager.allocate("stays", "c", units(3))
    ids = manager.devices("stays", "c")
    for _ in range(5):
        manager.do("restart")
        manager.wait_for(there)
        expect(manager.devices("stays", "c") == ids, "the container has other units now")
        expect(manager.options("stays", "c").mounts == given.mounts, "the container has other mounts now")
    expect("Available: %d" % (there - 3) in manager.refusal("much", "c", units(there)), "after restarts the units in use are free")
    manager.allocate("later", "c", units(3))


def test_manager_away(place):
    """The plugin is there before the kubelet, and waits while it is gone."""
    plugin = place.plugin()
    manager = place.manager()
    there = manager.wait_for(True)
    for name in (None, SOCKET, KUBELET + "/device-plugins/kubelet.sock"):
        manager.do("stop")
        if name and os.path.exists(name):
            os.unlink(name)
        expect(plugin.process.poll() is None, "the plugin has ended")
        manager.do("start")
        manager.wait_for(there)
    manager.allocate("pod", "c", units(1))


def test_socket_deleted(place):
    """Its own socket deleted, and nothing else: it makes another and registers again."""
    place.plugin()
    manager = place.manager()
    there = manager.wait_for(True)
    for count in range(3):
        before = os.stat(SOCKET).st_ino, os.stat(SOCKET).st_ctime_ns
        os.unlink(SOCKET)
        wait_for("another socket", lambda: os.path.exists(SOCKET) and (os.stat(SOCKET).st_ino, os.stat(SOCKET).st_ctime_ns) != before)
        manager.wait_for(there)
        wait_for("an allocation", lambda: admitted(manager, "pod%d" % count))


def admitted(manager, pod):
    """What a container gets; nothing where it is refused: at first the manager still has the connection of before, or no units."""
    try:
        return manager.allocate(pod, "c", units(1))
    except Refused:
        return None


def test_plugin_restart(place):
    """The plugin's end, with and without its consent: nothing can be had; its next start has the same units, and who runs keeps what it has."""
    plugin = place.plugin()
    manager = place.manager()
    there = manager.wait_for(True)
    given = manager.allocate("stays", "c", units(3))
    ids = manager.devices("stays", "c")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        status = plugin.end(number)
        expect(status == 0 or number == signal.SIGKILL, "after signal %d the exit status is %d" % (number, status))
        manager.wait_for(0)
        expect("Available: 0" in manager.refusal("while", "c", units(1)), "admitted without a plugin")
        plugin = place.plugin()
        manager.wait_for(there)
        expect(manager.options("stays", "c").mounts == given.mounts, "the container has other mounts now")
        for inside, (host, _) in given.mounts.items():
            expect(os.path.exists(host), "%s is gone: %s" % (inside, host))
    other = manager.allocate("later", "c", units(3))
    expect(other.name != given.name and not set(ids) & set(manager.devices("later", "c")), "two containers with one budget")


def test_reboot(place):
    """After a reboot /run is empty. The kubelet starts the containers of before with the mounts of before, and their files are there again."""
    plugin = place.plugin()
    manager = place.manager()
    there = manager.wait_for(True)
    given = manager.allocate("stays", "c", units(3))
    with open(given.mounts["/etc/softslice"][0] + "/softslice.ini", encoding="utf-8") as text:
        limits = text.read()
    plugin.end()
    manager.do("stop")
    shutil.rmtree(STATE)
    place.plugin()
    manager.do("start")
    manager.wait_for(there)
    again = manager.options("stays", "c")
    expect(again.mounts == given.mounts, "the container has other mounts now")
    for inside, (host, _) in again.mounts.items():
        expect(os.path.exists(host), "%s is gone: %s" % (inside, host))
    with open(again.mounts["/etc/softslice"][0] + "/softslice.ini", encoding="utf-8") as text:
        expect(text.read() == limits, "the limits are not what they were")


def test_device_nodes(place):
    """A container gets the nodes of its own GPU and the driver's, and the GPU's name for the toolkit."""
    for minor in range(2):
        os.mknod("/dev/nvidia%d" % minor, 0o20666, os.makedev(195, minor))
    for name in ("nvidiactl", "nvidia-uvm"):
        os.mknod("/dev/" + name, 0o20666, os.makedev(195, 255))
    try:
        place.plugin()
        manager = place.manager()
        half, seen, page = manager.wait_for(True) // 2, set(), Page(place.library)
        for pod in ("first", "second"):
            given = manager.allocate(pod, "c", units(half))
            own, = gpu_of(manager.devices(pod, "c"))
            expect(set(given.environment) == page.environment, "the variables are %s; the page has %s" % (given.environment, page.environment))
            expect({re.sub(r"\d+$", "N", path) for path in given.devices} <= page.nodes, "the nodes are %s; the page has %s" % (given.devices, page.nodes))
            expect(given.environment == {"NVIDIA_VISIBLE_DEVICES": own}, "the variables are %s, the GPU is %s" % (given.environment, own))
            expect(set(given.devices.values()) == {(path, "rw") for path in given.devices}, "nodes under other names: %s" % given.devices)
            others = set(given.devices) - {"/dev/nvidiactl", "/dev/nvidia-uvm"}
            expect(len(given.devices) == 3 and len(others) == 1, "the nodes are %s" % given.devices)
            seen |= others
        expect(seen == {"/dev/nvidia0", "/dev/nvidia1"}, "the GPUs' nodes are %s" % seen)
    finally:
        for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
            os.unlink("/dev/" + name)


def test_slices(place):
    """Named slices are resources of their own, with the limits of their section; they come out of the units."""
    place.plugin()
    manager = place.manager()
    there = manager.wait_for(True)
    place.device_plugin.end()
    plugin = place.plugin("[slice small]\nvram = 4GiB\ncompute = 12%\nreplicas = 3\n")
    manager.wait_for(3, "softslice.io/small")
    manager.wait_for(there - 12)
    names = set()
    for pod in range(3):
        given = manager.allocate("pod%d" % pod, "c", "softslice.io/small=1")
        names.add(given.name)
        with open(given.mounts["/etc/softslice"][0] + "/softslice.ini", encoding="utf-8") as text:
            limits = text.read().replace(" ", "")
        expect("vram=4GiB" in limits and "compute=12%" in limits, "the limits of a slice are\n" + limits)
    expect(len(names) == 3, "three slices with the budgets %s" % names)
    expect("Available: 0" in manager.refusal("more", "c", "softslice.io/small=1"), "a fourth one")
    manager.allocate("units", "c", units(2))
    # Its section gone: the resource has nothing more to give, and the units are back.
    with open(place.path("softslice.ini"), "w", encoding="ascii") as text:
        text.write("")
    plugin.process.send_signal(signal.SIGHUP)
    manager.wait_for(0, "softslice.io/small")
    manager.wait_for(there)


def test_names(place):
    """A container's files come to know its pod, by the kubelet's PodResources service; what an ended pod had is removed."""
    place.plugin("[device-plugin]\nask_pods = 100ms\nkeep = 100ms\n")
    manager = place.manager()
    manager.wait_for(True)
    folders = {}
    for container in ("worker", "helper"):
        folders[container] = manager.allocate("training", container, units(2)).mounts["/run/softslice"][0]

    def labels(container):
        try:
            with open(folders[container] + "/labels.ini", encoding="utf-8") as text:
                return dict(line.replace(" ", "").strip().split("=", 1) for line in text if "=" in line)
        except FileNotFoundError:
            return {}
    for container in folders:
        wait_for(lambda name=container: "the pod's name; there is %s" % labels(name), lambda name=container:
                 labels(name) == {"pod": "training", "namespace": "tests", "container": name})
    manager.do("forget", "training")
    wait_for("the end of its files", lambda: not any(os.path.exists(folder) for folder in folders.values()))


def test_unhealthy(place):
    """What is on a GPU that has failed cannot be had, and can again when it is back."""
    events = place.path("events")

    def happens(text):
        with open(events + ".part", "w", encoding="ascii") as part:
            part.write(text)
        os.rename(events + ".part", events)
    happens("")
    place.plugin("[device-plugin]\nask_gpus = 100ms\n", SOFTSIM_NVML_EVENTS=events)
    manager = place.manager()
    there = manager.wait_for(True)
    happens("xid 0 79\n")  # it has fallen off the bus
    manager.wait_for(there // 2)
    expect(manager.do("capacity")["capacity"][RESOURCE] == there, "the failed GPU's units are not part of the node any more")
    said = manager.refusal("much", "c", units(there // 2 + 1))
    expect("Available: %d" % (there // 2) in said, "units of a failed GPU: " + said)
    manager.allocate("well", "c", units(there // 2))
    happens("xid 0 79\nlost 1\n")
    manager.wait_for(0)
    happens("xid 0 79\nlost 0\n")
    manager.wait_for(there // 2)
    wait_for("both to have been lost", lambda: len(set(re.findall(r"(GPU-\S+) is unhealthy: NVML", place.device_plugin.said()))) == 2)
    happens("xid 0 79\n")  # back after a reset
    manager.wait_for(there)
    manager.allocate("repaired", "c", units(there // 2))
    expect(gpu_of(manager.devices("well", "c")) != gpu_of(manager.devices("repaired", "c")), "both on one GPU")


def test_no_gpu(place):
    """Without a driver: said, nothing to be had, and no end of the plugin."""
    plugin = place.plugin(SOFTSIM_NVML="absent")
    manager = place.manager()
    wait_for("a line of the plugin's", lambda: "no GPU" in plugin.said())
    wait_for("the registration", lambda: "softslice-vram-gib" in " ".join(os.listdir(KUBELET + "/device-plugins")) and RESOURCE in
             manager.do("capacity")["allocatable"])
    expect("Available: 0" in manager.refusal("pod", "c", units(1)), "units without a GPU")
    expect(plugin.process.poll() is None, "the plugin has ended")
