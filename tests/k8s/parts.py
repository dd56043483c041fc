# SPDX-License-Identifier: Apache-2.0
"""What runs on the node of tests/k8s/node.py: the simulated GPUs, the device plugin and the kubelet's device manager."""
import glob
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time

from node import ROOT, Cgroups

KUBELET = "/var/lib/kubelet"
CONTAINERD = "/run/containerd"
LOGS = "/var/log/pods"
STATE = "/run/softslice/containers"
SAVED = "/var/lib/softslice"
RESOURCE = "softslice.io/vram-gib"
GIB = 1 << 30


class Failed(Exception):
    """Says what was expected and what was seen."""


class Skipped(Exception):
    """Says what is not to be had here."""


def expect(condition, what):
    if not condition:
        raise Failed(what)


def wait_for(what, condition, seconds=30):
    """What the condition comes to be; `what` may be a function that says what is there instead."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed("waited in vain for " + (what() if callable(what) else what))
        time.sleep(0.02)


def remove(folder):
    """With what is mounted in it and on it, by the kubelet."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        mounted = [line.split()[4] for line in lines]
    for path in reversed(mounted):
        if (path + "/").startswith(folder + "/"):
            subprocess.run(["umount", "--lazy", path], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    expect(not os.path.exists(folder), "%s cannot be removed" % folder)


class Program:
    """A program whose output goes to a file."""

    def __init__(self, log, words, **how):
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **how)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as text:
            return text.read()

    def end(self, number=signal.SIGKILL):
        """Its exit status, however it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed("%s did not end; it said\n%s" % (self.process.args[0], self.said())) from None


class Place:
    """Where programs, logs and GPUs are: one for each test."""

    def __init__(self, build, tmp, plugin):
        self.build, self.tmp, self.program = build, tmp, plugin
        self.programs, self.device_plugin = [], None
        self.library = os.path.join(build, "libsoftslice.so")
        self.gpus = {"LD_LIBRARY_PATH": os.path.join(build, "sim"), "SOFTSIM_STATE": os.path.join(tmp, "gpus")}
        for folder in (KUBELET, STATE, SAVED, LOGS, CONTAINERD):
            remove(folder)
        os.makedirs(KUBELET + "/device-plugins")

    def path(self, *names):
        return os.path.join(self.tmp, *names)

    def begin(self, name, words, **environment):
        program = Program(self.path(name + ".log"), words, env=dict(os.environ, **environment))
        self.programs.append(program)
        return program

    def command(self, *arguments):
        done = subprocess.run([os.path.join(self.build, "softslice")] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)
        expect(done.returncode == 0, "softslice %s: %s" % (" ".join(arguments), done.stderr))
        return done.stdout

    def plugin(self, config="", options=(), **gpus):
        """The device plugin on simulated GPUs: two of 16 GiB, where nothing else is said."""
        self.gpus.update({"SOFTSIM_GPUS": "2", "SOFTSIM_MEM": "16G"})
        self.gpus.update(gpus)
        with open(self.path("softslice.ini"), "w", encoding="ascii") as text:
            text.write(config)
        words = [self.program, "--config", self.path("softslice.ini"), "--library", self.library] + list(options)
        self.device_plugin = self.begin("plugin", words, **self.gpus)
        return self.device_plugin

    def check_plugin(self):
        """That waiting for it makes sense."""
        expect(self.device_plugin is None or self.device_plugin.process.poll() is None, "the plugin has ended")

    def manager(self):
        return Manager(self)

    def end(self):
        """All that runs on the node but ourselves, its first process: containers too."""
        for program in reversed(self.programs):
            program.end()
        if os.getpid() != 1:
            return
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        try:
            while os.waitpid(-1, 0):
                pass
        except ChildProcessError:
            for group in glob.glob("/sys/fs/cgroup/k8s.io") + glob.glob("/sys/fs/cgroup/*/k8s.io"):
                Cgroups.remove_tree(group)

    def logs(self):
        """The end of what each program has said."""
        programs = {program.log: program for program in self.programs}
        return "".join("---- %s\n%s" % (os.path.basename(log), program.said()[-4000:]) for log, program in programs.items())


class Refused(Exception):
    """What the kubelet would say of a pod that it does not admit."""


class Manager(Program):
    """dmtest: see the head of tests/k8s/dmtest.go."""

    def __init__(self, place):
        self.log, self.place, self.answers = place.path("dmtest.log"), place, queue.Queue()
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen([os.path.join(place.build, "k8s", "dmtest")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True)
        place.programs.append(self)
        threading.Thread(target=self.read, daemon=True).start()
        self.do("start")

    def read(self):
        for line in self.process.stdout:
            self.answers.put(line)

    def do(self, *words, seconds=60):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        try:
            answer = json.loads(self.answers.get(timeout=seconds))
        except queue.Empty:
            raise Failed("the device manager does not answer to %s" % " ".join(words)) from None
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    def allocatable(self, resource=RESOURCE):
        return self.do("capacity")["allocatable"].get(resource, 0)

    def wait_for(self, units, resource=RESOURCE):
        """Until so many units can be had; True stands for any. How many there are."""
        def there():
            seen = self.allocatable(resource)
            if units != 0:
                self.place.check_plugin()
            return (seen,) if seen == units or (units is True and seen) else None
        return wait_for(lambda: "%s units of %s; there are %s" % (units, resource, self.do("capacity")), there)[0]

    def allocate(self, pod, container, *requests):
        """Admits a container and starts it. What the runtime is to put into it."""
        self.do("allocate", pod, container, *requests)
        return self.options(pod, container)

    def options(self, pod, container):
        return Options(self.do("options", pod, container)["options"])

    def refusal(self, pod, container, *requests):
        try:
            self.do("allocate", pod, container, *requests)
        except Refused as refused:
            return str(refused)
        raise Failed("%s of %s was admitted" % (requests, pod))

    def devices(self, pod, container, resource=RESOURCE):
        return sorted(self.do("devices", pod)["containers"][container].get(resource, []))


class Options:
    """What a device manager tells the runtime of a container."""

    def __init__(self, options):
        self.mounts = {mount["ContainerPath"]: (mount["HostPath"], mount["ReadOnly"]) for mount in options["Mounts"] or []}
        self.environment = {one["Name"]: one["Value"] for one in options["Envs"] or []}
        self.devices = {one["PathInContainer"]: (one["PathOnHost"], one["Permissions"]) for one in options["Devices"] or []}
        self.annotations = {one["Name"]: one["Value"] for one in options["Annotations"] or []}

    @property
    def name(self):
        """The budget's."""
        return os.path.basename(self.mounts["/run/softslice"][0])


def gpu_of(ids):
    """The GPUs that ids are of: a unit is `GPU-...::N`."""
    return {one.partition("::")[0] for one in ids}


class Page:
    """What docs/kubernetes.md says that a container gets, with NAME for the budget's name."""

    def __init__(self, library):
        page = os.path.join(ROOT, "docs", "kubernetes.md")
        with open(page, encoding="utf-8") as text:
            rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text if re.match(r"\| (env|devices|mount) \|", line)]
        self.mounts, self.environment, self.nodes = {}, set(), set()
        for kind, what, host, access in rows:
            names = re.findall(r"`([^`]+)`", what)
            if kind == "env":
                self.environment |= {name.split("=")[0] for name in names}
            elif kind == "devices":
                self.nodes |= set(names)
            else:
                path = re.findall(r"`([^`]+)`", host)
                expect(access in ("read-only", "writable for all"), "%s: '%s' is not understood" % (page, access))
                self.mounts[names[0]] = (path[0].replace("...", STATE) if path else library, access == "read-only")
        expect(self.mounts and self.environment and self.nodes, "no table of what a container gets in " + page)

    def mounts_of(self, name):
        return {inside.replace("NAME", name): (host.replace("NAME", name), read_only) for inside, (host, read_only) in self.mounts.items()}
