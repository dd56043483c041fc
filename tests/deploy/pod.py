#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a pod that the policy of deploy/stock has changed holds on the simulated GPU: its volumes and mounts are made as a kubelet makes them (files of
the downward API behind links, an emptyDir that everybody may write, subPaths resolved when the container starts), in a mount name space of its own."""
# timeout: 300
# unsanitized: the library has to be loaded without a sanitizer's runtime in front of it
import json
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
import manifests  # noqa: E402
import yaml  # noqa: E402

import admission  # noqa: E402

BUILD, TMP = os.environ["TEST_BUILD"], os.environ["TEST_TMP"]
GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
problems = []


def run(*command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120, **more)


def must(*command):
    done = run(*command)
    if done.returncode:
        raise OSError("%s: %s" % (" ".join(command), done.stdout))


class Kubelet:
    """One node with one pod."""

    def __init__(self, name, pod, fs_group=None):
        self.place = os.path.join(TMP, name)
        self.pod, self.fs_group, self.updates = pod, fs_group, 0
        self.node = os.path.join(self.place, "node")
        self.volumes = {volume["name"]: self.volume(volume) for volume in pod["spec"]["volumes"]}
        self.project()

    def folder(self, *names):
        path = os.path.join(self.place, *names)
        os.makedirs(path, exist_ok=True)
        return path

    def volume(self, volume):
        if "hostPath" in volume:
            return self.node + volume["hostPath"]["path"]
        path = self.folder("volumes", volume["name"])
        if "emptyDir" in volume:
            must("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path)
        os.chmod(path, 0o777)
        if self.fs_group:
            os.chown(path, 0, self.fs_group)
            os.chmod(path, 0o2777)
        return path

    def project(self):
        """Write the files of the downward API as the kubelet does: a new directory, a link that is renamed, and the old directory removed."""
        self.updates += 1
        for volume in self.pod["spec"]["volumes"]:
            if "downwardAPI" not in volume:
                continue
            path = self.volumes[volume["name"]]
            fresh = "..2026_11_21_12_00_00.%d" % self.updates
            os.mkdir(os.path.join(path, fresh), 0o755)
            for item in volume["downwardAPI"]["items"]:
                key = re.fullmatch(r"metadata\.annotations\['(.*)'\]", item["fieldRef"]["fieldPath"]).group(1)
                file = os.path.join(path, fresh, item["path"])
                with open(file, "w", encoding="ascii") as text:
                    text.write(self.pod["metadata"]["annotations"][key])
                os.chmod(file, volume["downwardAPI"].get("defaultMode", 0o644))
                if self.fs_group:
                    os.chown(file, 0, self.fs_group)
                if not os.path.lexists(os.path.join(path, item["path"])):
                    os.symlink("..data/" + item["path"], os.path.join(path, item["path"]))
            old = os.path.realpath(os.path.join(path, "..data"))
            os.symlink(fresh, os.path.join(path, "..data_tmp"))
            os.rename(os.path.join(path, "..data_tmp"), os.path.join(path, "..data"))
            if os.path.basename(old) != "..data":
                shutil.rmtree(old)

    def start(self, name):
        """A container, as the directory that its root is: the machine's own files, a layer to write on, and what it mounts."""
        upper, work, root = self.folder(name, "layer", "upper"), self.folder(name, "layer", "work"), self.folder(name, "root")
        must("mount", "-t", "overlay", "-o", "lowerdir=/,upperdir=%s,workdir=%s" % (upper, work), "overlay", root)
        for file, target in (("sim/libcuda.so.1", "usr/lib/libcuda.so.1"), ("sim/libnvidia-ml.so.1", "usr/lib/libnvidia-ml.so.1"),
                             ("tests/programs/taker", "usr/bin/taker")):
            shutil.copy(os.path.join(BUILD, file), os.path.join(root, target))
        for path in ("proc", "dev"):
            must("mount", "--rbind", "/" + path, os.path.join(root, path))
        for path in ("run", "tmp", "dev/shm"):
            must("mount", "-t", "tmpfs", "tmpfs", os.path.join(root, path))
        of = next(c for c in self.pod["spec"]["containers"] if c["name"] == name)
        for mount in sorted(of["volumeMounts"], key=lambda mount: mount["mountPath"].count("/")):
            source = self.volumes[mount["name"]]
            if "subPath" in mount:
                inner = os.path.join(source, mount["subPath"])
                if not os.path.exists(inner):
                    os.mkdir(inner)
                    os.chmod(inner, os.stat(source).st_mode & 0o7777)
                source = os.path.realpath(inner)
            target = root + mount["mountPath"]
            os.makedirs(target if os.path.isdir(source) else os.path.dirname(target), exist_ok=True)
            if not os.path.isdir(source):
                with open(target, "a", encoding="ascii"):
                    pass
            must("mount", "--bind", source, target)
            if mount.get("readOnly"):
                must("mount", "-o", "remount,bind,ro", target)
        self.variables = {variable["name"]: variable["value"] for variable in of.get("env", []) if "value" in variable}
        return root

    def inside(self, root, *command, user=0, clear=False):
        environment = {} if clear else dict(self.variables, PATH="/usr/local/bin:/usr/bin:/bin")
        done = run("chroot", "--userspec=%d:%d" % (user, user), root, "/usr/bin/env", "-i", *["%s=%s" % pair for pair in environment.items()],
                   *[("/usr/bin/" + word if word == "taker" and clear else word) for word in command])
        return done.stdout


def expect(what, said, *taken):
    lines = [line for line in said.splitlines() if not line.startswith("softslice: ")]
    if lines != ["taken %d" % size for size in taken]:
        problems.append("%s: expected %s, not: %s" % (what, list(taken), said))


def made(name, annotations, *names, namespace=None, fs_group=None, **more):
    """A kubelet with such a pod, and the library on its node."""
    with open(os.path.join(manifests.ROOT, "deploy", "stock", "policy.yaml"), encoding="utf-8") as text:
        policy = admission.Policy(next(yaml.safe_load_all(text)))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "annotations": {"softslice.io/" + key: value for key, value in annotations.items()}},
           "spec": {"containers": [dict({"name": of, "image": "app"}, **GPU, **more) for of in names]}}
    limits = {"softslice.io/" + key: value for key, value in (namespace or {}).items()}
    kubelet = Kubelet(name, policy.mutate(pod, {"metadata": {"name": "n", "annotations": limits}}), fs_group)
    at = kubelet.node + "/var/lib/softslice"
    os.makedirs(at)
    must(os.path.join(BUILD, "install-library"), "--from", os.path.join(BUILD, "libsoftslice.so"), at)
    return kubelet


def tests():
    for fs_group in (None, 2000):
        kubelet = made("one-%s" % fs_group, {"vram": "2GiB", "vram.b": "1GiB"}, "a", "b", fs_group=fs_group)
        a, b = kubelet.start("a"), kubelet.start("b")
        what = "fsGroup %s: " % fs_group
        # A context takes 512 MiB here.
        expect(what + "root", kubelet.inside(a, "taker", "9999"), 1536)
        expect(what + "a user", kubelet.inside(a, "taker", "9999", user=1000), 1536)
        expect(what + "without an environment", kubelet.inside(a, "taker", "9999", user=1000, clear=True), 1536)
        expect(what + "its own variables", kubelet.inside(a, "env", "SOFTSLICE_VRAM=9GiB", "SOFTSLICE_DISABLE=1", "SOFTSLICE_STATE_DIR=/tmp", "taker",
                                                             "9999"), 1536)
        expect(what + "another library in front", kubelet.inside(a, "env", "LD_PRELOAD=libdl.so.2", "taker", "9999"), 1536)
        expect(what + "two programs", kubelet.inside(a, "taker", "512", "taker", "9999", user=1000), 512, 512)
        # Of two users in one container, the second joins what the first has made.
        expect(what + "two users", kubelet.inside(a, "taker", "256", "setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "taker", "9999"), 256, 768)
        expect(what + "the other container", kubelet.inside(b, "taker", "9999"), 512)
        for path in ("/etc/softslice/softslice.ini", "/etc/ld.so.preload", "/usr/local/lib/softslice/libsoftslice.so"):
            if "Read-only" not in kubelet.inside(a, "sh", "-c", "echo >%s" % path):
                problems.append(what + "%s can be written" % path)

    seen = json.loads(run(os.path.join(BUILD, "softslice"), "status", "--json", "--all", "--root", kubelet.volumes["softslice-state"]).stdout)
    if len(seen["tenants"]) != 2:
        problems.append("as the node sees them: %s" % seen)

    # Who may change annotations where no guard is: containers that run keep what they were started with.
    kubelet.pod["metadata"]["annotations"]["softslice.io/ini.b"] = "[softslice]\nstate_dir = /run/softslice\nvram = 8GiB\n"
    kubelet.project()
    expect("changed annotations", kubelet.inside(b, "taker", "9999"), 512)

    kubelet = made("bounded", {"vram": "1GiB"}, "a", namespace={"vram": "2GiB"})
    root = kubelet.start("a")
    expect("less than the namespace's", kubelet.inside(root, "taker", "9999"), 512)
    expect("less than the namespace's, without an environment", kubelet.inside(root, "taker", "9999", clear=True), 1536)
    kubelet = made("greedy", {"vram": "8GiB"}, "a", namespace={"vram": "2GiB"})
    expect("more than the namespace's", kubelet.inside(kubelet.start("a"), "taker", "9999"), 1536)

    kubelet = made("wrong", {"vram": "2GiBs"}, "a")
    said = kubelet.inside(kubelet.start("a"), "taker", "9999")
    if "taken" in said or "/etc/softslice/softslice.ini:3" not in said:
        problems.append("a limit that cannot be understood: " + said)


def main():
    if "--apart" in sys.argv:
        must("mount", "-t", "tmpfs", "tmpfs", TMP)
        tests()
        print("\n".join(problems) or "as it should be")
        return 1 if problems else 0
    if os.environ.get("TEST_EMULATED"):
        print("containers of another machine's programs are not tried")
        return 77
    tried = run("unshare", "-m", "--propagation", "private", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && mkdir "$0/u" "$0/w" "$0/m" && '
                'mount -t overlay -o lowerdir=/,upperdir="$0/u",workdir="$0/w" overlay "$0/m"', TMP)
    if os.geteuid() or tried.returncode:
        print("no right to mount an overlay here: %s" % (tried.stdout.strip() or "not root"))
        return 77
    os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable] + sys.argv + ["--apart"])
    return 1


sys.exit(main())
