# SPDX-License-Identifier: Apache-2.0
"""A node of our own on this machine: name spaces of mounts, processes, the network and cgroups, in which a kubelet can do what it does to a node. All
of the host's files are read-only in it but one temporary directory; /run, /var, /tmp and /dev are its own. With its first process everything in it ends."""
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PREFIX = "softslice-k8s-"
NAMESPACES = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--ipc", "--uts", "--cgroup"]
# What the kubelet wants of the kernel, and would set for the whole machine.
SETTINGS = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1, "kernel/keys/root_maxkeys": 1000000,
            "kernel/keys/root_maxbytes": 25000000}
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0), "kmsg": (1, 11)}
ADDRESS = "10.99.0.1"


class Unusable(Exception):
    """Says why this machine can have no such node."""


def tool(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Unusable("%s: %s" % (" ".join(words), done.stdout.strip()))


# ---- outside

def alive(pid):
    return os.path.exists("/proc/%d" % pid)


class Cgroups:
    """One cgroup in each hierarchy, below the one that we are in."""

    def __init__(self, name):
        self.made = []
        mounts = {}
        with open("/proc/self/mountinfo", encoding="utf-8") as lines:
            for line in lines:
                words = line.split()
                kind = words[words.index("-") + 1]
                if kind in ("cgroup", "cgroup2"):
                    controllers = "" if kind == "cgroup2" else ",".join(words[-1].split(",")[1:])
                    mounts[controllers] = (words[4], words[3])
        try:
            with open("/proc/self/cgroup", encoding="utf-8") as lines:
                for line in lines:
                    _, controllers, path = line.rstrip("\n").split(":", 2)
                    if controllers not in mounts:
                        continue
                    mountpoint, root = mounts[controllers]
                    parent = os.path.normpath(mountpoint + "/" + os.path.relpath(path, root))
                    self.remove_stale(parent)
                    self.make(parent, os.path.join(parent, name))
        except OSError as error:
            self.remove()
            raise Unusable("no right to make cgroups: %s" % error) from None
        if not self.made:
            raise Unusable("no cgroups are mounted")

    @staticmethod
    def remove_stale(parent):
        """What a run that was killed has left."""
        for name in os.listdir(parent):
            of = re.match(PREFIX + r"(\d+)$", name)
            if of and not alive(int(of.group(1))):
                Cgroups.remove_tree(os.path.join(parent, name))

    def make(self, parent, path):
        os.mkdir(path)
        self.made.append(path)
        for name in ("cpuset.cpus", "cpuset.mems"):  # of version 1: nobody can join without
            if os.path.exists(os.path.join(parent, name)):
                with open(os.path.join(parent, name), encoding="ascii") as whole, open(os.path.join(path, name), "w", encoding="ascii") as ours:
                    ours.write(whole.read())

    def join(self):
        for path in self.made:
            with open(os.path.join(path, "cgroup.procs"), "w", encoding="ascii") as processes:
                processes.write("0")

    @staticmethod
    def remove_tree(path):
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)

    def remove(self):
        deadline = time.monotonic() + 20
        for path in self.made:
            while True:
                try:
                    self.remove_tree(path)
                    break
                except OSError:  # the last of its processes is still ending
                    if time.monotonic() > deadline:
                        print("softslice: the cgroup %s is left over" % path, file=sys.stderr)
                        break
                    time.sleep(0.02)


def run_inside(command):
    """Run `command`, with the temporary directory's path as its last word, on such a node. Returns its status, once nothing of the node is left. A signal
    that ends us ends it first; if we are killed, its processes end, and the next run removes its cgroups and directory."""
    for name in os.listdir(tempfile.gettempdir()):
        of = re.match(PREFIX + r"(\d+)$", name)
        if of and not alive(int(of.group(1))):
            shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)
    name = PREFIX + str(os.getpid())
    cgroups = Cgroups(name)
    tmp = os.path.join(tempfile.gettempdir(), name)
    libc = ctypes.CDLL(None)

    def prepare():
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        cgroups.join()

    child = None

    def end(number, _):
        if child:
            child.kill()
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        os.mkdir(tmp, 0o755)
        child = subprocess.Popen(NAMESPACES + command + [tmp], preexec_fn=prepare, start_new_session=True, stdin=subprocess.DEVNULL)
        return child.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if child:
            child.kill()
            child.wait()
        cgroups.remove()
        shutil.rmtree(tmp, ignore_errors=True)


# ---- inside

def mount_cgroups():
    """The hierarchies, with our cgroup as their root."""
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        hierarchies = [line.split(":")[1] for line in lines]
    tool("umount", "--lazy", "--recursive", "/sys/fs/cgroup")
    if hierarchies == [""]:  # version 2 alone: a cgroup that gives controllers to others has no processes itself
        tool("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        os.mkdir("/sys/fs/cgroup/first")
        with open("/sys/fs/cgroup/first/cgroup.procs", "w", encoding="ascii") as processes:
            processes.write("0")
        return
    tool("mount", "-t", "tmpfs", "-o", "mode=755", "cgroups", "/sys/fs/cgroup")
    for controllers in hierarchies:
        folder = "/sys/fs/cgroup/" + (controllers.replace("name=", "") or "unified")
        os.mkdir(folder)
        if controllers:
            tool("mount", "-t", "cgroup", "-o", "none," + controllers if controllers.startswith("name=") else controllers, "cgroup", folder)
        else:
            tool("mount", "-t", "cgroup2", "cgroup2", folder)


def mount_files(tmp):
    tool("mount", "--bind", tmp, tmp)
    dev = os.path.join(tmp, "dev")
    os.mkdir(dev)
    tool("mount", "-t", "tmpfs", "-o", "mode=755", "dev", dev)
    for name, (major, minor) in DEVICES.items():
        os.mknod(os.path.join(dev, name), 0o20666, os.makedev(major, minor))
    for name in ("shm", "pts", "mqueue"):
        os.mkdir(os.path.join(dev, name))
    os.symlink("pts/ptmx", os.path.join(dev, "ptmx"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink("/proc/self/fd/%d" % number, os.path.join(dev, name))
    os.symlink("/proc/self/fd", os.path.join(dev, "fd"))
    tool("mount", "-t", "tmpfs", "-o", "mode=1777", "shm", os.path.join(dev, "shm"))
    tool("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", os.path.join(dev, "pts"))
    tool("mount", "-t", "mqueue", "mqueue", os.path.join(dev, "mqueue"))
    tool("mount", "--move", dev, "/dev")
    source = os.path.join(tmp, "source")
    os.mkdir(source)
    tool("mount", "--bind", ROOT, source)
    for folder in ("/run", "/var/lib", "/var/log", "/var/cache", "/var/tmp"):
        tool("mount", "-t", "tmpfs", "-o", "mode=755", "softslice", folder)
    if not os.path.exists(ROOT):
        os.makedirs(ROOT)
        tool("mount", "--bind", source, ROOT)
    tool("mount", "-o", "remount,bind,ro", "/")


def mount_settings(tmp):
    for name, value in SETTINGS.items():
        if os.path.exists("/proc/sys/" + name):
            path = os.path.join(tmp, name.replace("/", "."))
            with open(path, "w", encoding="ascii") as text:
                text.write("%d\n" % value)
            tool("mount", "--bind", path, "/proc/sys/" + name)


def network():
    tool("ip", "link", "set", "lo", "up")
    tool("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1")
    tool("ip", "address", "add", ADDRESS + "/24", "dev", "node0")
    tool("ip", "link", "set", "node0", "up")
    tool("ip", "link", "set", "node1", "up")


def enter(tmp):
    """In the node's first process, before anything else."""
    os.environ["TMPDIR"] = os.path.join(tmp, "tmp")
    os.mkdir(os.environ["TMPDIR"], 0o1777)
    mount_files(tmp)
    mount_settings(tmp)
    mount_cgroups()
    network()
