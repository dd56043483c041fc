# SPDX-License-Identifier: Apache-2.0
"""From a pod's manifest to a container that is held to its budget: a whole kubelet, without an API server, and containerd."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import image
from node import ADDRESS, ROOT
from parts import KUBELET, LOGS, RESOURCE, STATE, Failed, Skipped, expect, wait_for

CHECKPOINT = KUBELET + "/device-plugins/kubelet_internal_checkpoint"
PROGRAMS = ("sh", "env", "sleep", "cat")
CONTAINERD = """version = 2
root = "{0}/root"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
address = "{0}/socket"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{0}/cni"
conf_dir = "{0}/cni"
"""


class Node:
    """containerd and the kubelet."""

    def __init__(self, place):
        for program in ("containerd", "ctr", "runc"):
            if not shutil.which(program):
                raise Skipped("no %s" % program)
        self.place, self.restarts = place, 0
        self.containerd, self.manifests = place.path("containerd"), place.path("manifests")
        os.makedirs(self.containerd + "/cni")
        os.mkdir(self.manifests)
        with open(self.containerd + "/config.toml", "w", encoding="ascii") as config:
            config.write(CONTAINERD.format(self.containerd))
        self.runtime = place.begin("containerd", ["containerd", "--config", self.containerd + "/config.toml"])
        wait_for(lambda: "containerd; it said\n" + self.runtime.said(), lambda: "containerd successfully booted" in self.runtime.said())
        self.images()
        self.start()

    def ctr(self, *words):
        done = subprocess.run(["ctr", "--address", self.containerd + "/socket", "--namespace", "k8s.io"] + list(words), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
        expect(done.returncode == 0, "ctr %s: %s" % (" ".join(words), done.stdout))
        return done.stdout

    def images(self):
        """The pause image, and one of a shell and the taker, with the simulated driver, which a toolkit would bring."""
        build = self.place.build
        image.write(self.place.path("pause.tar"), "localhost/pause:1", {"pause": os.path.join(build, "tests/k8s/pause")}, ["/pause"])
        taker = os.path.join(build, "tests/programs/taker")
        files = {"/bin/taker": taker}
        files.update({"/bin/" + name: shutil.which(name) for name in PROGRAMS})
        files.update({"/usr/lib/" + name: os.path.join(build, "sim", name) for name in ("libcuda.so.1", "libnvidia-ml.so.1")})
        for program in list(files.values()) + [self.place.library]:
            files.update({path: path for path in image.libraries(program, ("libcuda",))})
        folders = {"/etc": 0o755, "/tmp": 0o1777, "/run": 0o755, "/usr/local/lib": 0o755}
        image.write(self.place.path("taker.tar"), "localhost/taker:1", files, ["/bin/taker", "4096"], folders)
        for name in ("pause", "taker"):
            self.ctr("images", "import", "--snapshotter", "native", self.place.path(name + ".tar"))

    def start(self):
        words = {"container-runtime": "remote", "container-runtime-endpoint": "unix://%s/socket" % self.containerd, "pod-manifest-path": self.manifests,
                 "file-check-frequency": "1s", "sync-frequency": "1s", "root-dir": KUBELET, "cert-dir": self.place.path("certificates"),
                 "volume-plugin-dir": self.place.path("volumes"), "hostname-override": "node", "node-ip": ADDRESS, "address": "127.0.0.1",
                 "healthz-bind-address": "127.0.0.1", "cgroup-driver": "cgroupfs", "cgroups-per-qos": "false", "enforce-node-allocatable": "",
                 "fail-swap-on": "false", "oom-score-adj": "0", "make-iptables-util-chains": "false", "protect-kernel-defaults": "true",
                 "pod-infra-container-image": "localhost/pause:1", "authorization-mode": "AlwaysAllow", "anonymous-auth": "true", "resolv-conf": "",
                 "eviction-hard": "", "logtostderr": "true", "v": "2"}
        self.kubelet = self.place.begin("kubelet%d" % self.restarts, [os.path.join(self.place.build, "k8s", "kubelet")] +
                                        ["--%s=%s" % pair for pair in words.items()])
        self.restarts += 1

    def units(self):
        """How many the kubelet has written down; a static pod is admitted or refused once, so it has to come later."""
        try:
            with open(CHECKPOINT, encoding="utf-8") as text:
                return len(json.load(text)["Data"]["RegisteredDevices"].get(RESOURCE) or [])
        except (OSError, ValueError):
            return 0

    def pod(self, name, containers, restart="Never"):
        """{container: (units, command)}. When the manifest was there."""
        listed = []
        for container, (units, command) in containers.items():
            listed.append({"name": container, "image": "localhost/taker:1", "imagePullPolicy": "Never", "command": command,
                           "resources": {"limits": {RESOURCE: str(units)}} if units else {}})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
               "spec": {"hostNetwork": True, "restartPolicy": restart, "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1,
                        "containers": listed}}
        part = self.place.path(name + ".json")
        with open(part, "w", encoding="ascii") as text:
            json.dump(pod, text, indent=4)
        os.rename(part, os.path.join(self.manifests, name + ".json"))
        return time.monotonic()

    def remove(self, name):
        os.unlink(os.path.join(self.manifests, name + ".json"))

    @staticmethod
    def said(pod, container, run=0):
        """What a container has said in its first run, or a later one, from the log that the runtime writes for the kubelet."""
        lines = []
        for folder in os.listdir(LOGS) if os.path.isdir(LOGS) else []:
            path = os.path.join(LOGS, folder, container, "%d.log" % run)
            if folder.startswith("default_%s-node_" % pod) and os.path.exists(path):
                with open(path, encoding="utf-8") as text:
                    lines += re.findall(r"^\S+ std(?:out|err) [FP] (.*)$", text.read(), re.M)
        return lines

    def taken(self, pod, container, run=0):
        """How many MiB it got, once it says."""
        def line():
            found = [said for said in self.said(pod, container, run) if said.startswith("taken ")]
            return found and found[0]
        return int(wait_for(lambda: "%s/%s, which says %s" % (pod, container, self.said(pod, container, run)), line, 60)[6:])

    def container(self, pod, name):
        """Its id."""
        for line in self.ctr("containers", "list", "--quiet").split():
            labels = json.loads(self.ctr("containers", "info", line)).get("Labels", {})
            if labels.get("io.kubernetes.pod.name") == pod + "-node" and labels.get("io.kubernetes.container.name") == name:
                return line
        raise Failed("no container %s/%s" % (pod, name))

    def tenants(self):
        """Of `softslice status` on the host: the pod, the container, and its bytes."""
        seen = json.loads(self.place.command("status", "--json", "--all", "--root", STATE))["tenants"]
        return {(one.get("pod"), one.get("container"), one["devices"][0]["vram"]["limit_bytes"]) for one in seen if one["devices"]}

    def executed(self, container, *command):
        return self.ctr("tasks", "exec", "--exec-id", "exec%d" % time.monotonic_ns(), container, *command)


def test_end_to_end(place):
    """From a manifest to containers that are held to 2 GiB and 1 GiB; without units there is no limit. A context takes 512 MiB."""
    place.plugin("[device-plugin]\nask_pods = 100ms\nkeep = 100ms\n", SOFTSIM_GPUS="1")
    node = Node(place)
    wait_for(lambda: "the plugin's units; the kubelet said\n" + node.kubelet.said()[-2000:], node.units)
    stay = ["/bin/taker", "4096", "/bin/sleep", "1000"]
    dropped = node.pod("budgets", {"two": (2, stay), "one": (1, stay)})
    two, one = node.taken("budgets", "two"), node.taken("budgets", "one")
    print("     from the pod's manifest to both containers' output: %.2f s" % (time.monotonic() - dropped))
    expect((two, one) == (1536, 512), "containers with 2 and 1 units got %d and %d MiB" % (two, one))
    expected = {("budgets-node", name, size << 30) for name, size in (("two", 2), ("one", 1))}
    wait_for(lambda: "pods' names in `softslice status`; there is %s" % node.tenants(), lambda: node.tenants() == expected)
    node.pod("free", {"c": (0, ["/bin/taker", "4096"])})
    expect(node.taken("free", "c") == 4096, "a container without units is limited")
    node.remove("budgets")
    wait_for(lambda: "the end of the containers' files; there are %s" % os.listdir(STATE), lambda: not node.tenants())


def test_container_restart(place):
    """A container that ends and is started again has the same budget, whole."""
    place.plugin(SOFTSIM_GPUS="1")
    node = Node(place)
    wait_for("units", node.units)
    node.pod("again", {"c": (2, ["/bin/sh", "-c", "/bin/taker 4096; exit 1"])}, restart="Always")
    expect([node.taken("again", "c", run) for run in (0, 1)] == [1536, 1536], "not its budget, or not twice")
    expect(len([name for name in os.listdir(STATE) if name.startswith("k8s-")]) == 1, "more than one budget: %s" % os.listdir(STATE))


def test_kubelet_restart(place):
    """A container outlives the kubelet's restart with its budget; who joins it is held to it; at its end its units are free."""
    place.plugin(SOFTSIM_GPUS="1")
    node = Node(place)
    there = wait_for("units", node.units)
    node.pod("stays", {"c": (there - 1, ["/bin/taker", "512", "/bin/sleep", "1000"])})
    expect(node.taken("stays", "c") == 512, "not what it asked for")
    container = node.container("stays", "c")
    rest = (there - 1) * 1024 - 512 - 1024
    for way in (["/bin/taker", "100000"], ["/bin/env", "-i", "/bin/taker", "100000"]):
        expect("taken %d" % rest in node.executed(container, *way), "exec %s: %s, not %d" % (way, node.executed(container, *way), rest))
    node.kubelet.end()
    node.start()
    wait_for("the kubelet's next registration", lambda: "Got registration request" in node.kubelet.said())
    expect("taken %d" % rest in node.executed(container, "/bin/taker", "100000"), "after the kubelet's restart")
    expect(node.container("stays", "c") == container, "the container was started again")
    node.remove("stays")
    wait_for("the container's end", lambda: container not in node.ctr("tasks", "list"))
    node.pod("next", {"c": (2, ["/bin/taker", "4096"])})
    expect(node.taken("next", "c") == 1536, "the next container's budget")


def forget(place, config):
    """From now on the plugin is told of no pods: by a server of grpcio's in the place of the kubelet's."""
    words = ["/usr/bin/python3", "-c", "import signal, sys; sys.path.append(sys.argv[1]); from mock_kubelet import Pods; Pods(sys.argv[2]); signal.pause()"]
    socket = place.path("pods.sock")
    server = place.begin("pods", words + [os.path.join(ROOT, "tests", "plugin"), socket], TEST_BUILD=place.build, TEST_TMP=place.tmp,
                         TEST_PATIENCE="40")
    wait_for("a server of pods", lambda: os.path.exists(socket) or server.process.poll() is not None)
    if server.process.poll() is not None:
        raise Skipped("no server of pods: " + server.said().strip()[-200:])
    with open(place.path("softslice.ini"), "w", encoding="ascii") as text:
        text.write(config + "pods = %s\n" % socket)
    place.device_plugin.process.send_signal(signal.SIGHUP)
    wait_for("the plugin to read it", lambda: "was read again" in place.device_plugin.said())


def test_idle_container(place):
    """An idle container whose pod the kubelet does not list keeps its budget, for its mounts are seen; with its end the budget is removed."""
    config = "[device-plugin]\nask_pods = 50ms\nkeep = 100ms\n"
    place.plugin(config, ("--proc", "/proc"), SOFTSIM_GPUS="1")
    node = Node(place)
    wait_for("units", node.units)
    node.pod("idle", {"c": (2, ["/bin/sh", "-c", "echo taken 0; exec /bin/sleep 1000"])})
    expect(node.taken("idle", "c") == 0, "not idle")
    budgets = {name for name in os.listdir(STATE) if name.startswith("k8s-")}
    forget(place, config)
    # What is to be removed goes, a second or so after it was made: that long the other has been looked at.
    for i in range(3):
        folder = os.path.join(STATE, "k8s-0000000%d" % i)
        os.mkdir(folder)
        wait_for("the end of " + folder, lambda gone=folder: not os.path.exists(gone))
    expect(len(budgets) == 1 and budgets < set(os.listdir(STATE)), "%s, of which there is %s" % (budgets, os.listdir(STATE)))
    said = node.executed(node.container("idle", "c"), "/bin/taker", "4096")
    expect("taken 1536" in said, "its next program: " + said)
    node.remove("idle")
    wait_for("the end of the container's files", lambda: not budgets & set(os.listdir(STATE)))
