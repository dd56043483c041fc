#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The admission policies of deploy/stock, on pods as people write them: their CEL is evaluated, the patches are applied, and what comes out is held
against Kubernetes' schema of a pod."""
# timeout: 300
import copy
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
import manifests  # noqa: E402
import yaml  # noqa: E402

import admission  # noqa: E402

STOCK = os.path.join(manifests.ROOT, "deploy", "stock")
PLACES = {"/usr/local/lib/softslice/libsoftslice.so": True, "/etc/ld.so.preload": True, "/etc/softslice/softslice.ini": True, "/run/softslice": False}
problems = []


def expect(what, condition, more=""):
    if not condition:
        problems.append("%s %s" % (what, more))


def load(name):
    with open(os.path.join(STOCK, name), encoding="utf-8") as text:
        return admission.Policy(next(yaml.safe_load_all(text)))


def container(name, gpu=True, **more):
    return dict({"name": name, "image": "app"}, **({"resources": {"limits": {"nvidia.com/gpu": "1"}}} if gpu else {}), **more)


def pod_of(*containers, annotations=None, **spec):
    metadata = {"name": "p", "namespace": "n"}
    if annotations is not None:
        metadata["annotations"] = {"softslice.io/" + key if "/" not in key else key: value for key, value in annotations.items()}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict({"containers": list(containers)}, **spec)}


def namespace_of(**annotations):
    return {"metadata": {"name": "n", "annotations": {"softslice.io/" + key: value for key, value in annotations.items()}}}


NOTHING = {"metadata": {"name": "n"}}
policy, guard = load("policy.yaml"), load("guard.yaml")


def given(what, pod, namespace, expected):
    """The pod gets these: {container: (its ini's limits, its variables)}."""
    before = copy.deepcopy(pod)
    after = policy.mutate(pod, namespace)
    expect(what, pod == before, "the original was changed")
    for complaint in manifests.complaints(after):
        expect(what, False, complaint)
    expect(what, guard.refusals(after, namespace) == [], guard.refusals(after, namespace))
    if not expected:
        expect(what, after == before, "the pod was changed: %s" % after)
        return after
    notes = after["metadata"]["annotations"]
    expect(what, sorted(notes["softslice.io/limited"].split(",")) == sorted(expected), notes)
    volumes = {volume["name"]: volume for volume in after["spec"]["volumes"]}
    expect(what, len(volumes) == len(after["spec"]["volumes"]), "volumes of one name")
    items = {item["path"]: item["fieldRef"]["fieldPath"] for item in volumes["softslice-limits"]["downwardAPI"]["items"]}
    for of in after["spec"]["containers"] + after["spec"].get("initContainers", []):
        was = next(c for c in before["spec"]["containers"] + before["spec"].get("initContainers", []) if c["name"] == of["name"])
        if of["name"] not in expected:
            expect(what, of == was, "%s was changed: %s" % (of["name"], of))
            continue
        limits, variables = expected[of["name"]]
        ini = notes["softslice.io/ini." + of["name"]]
        expect(what, ini == "[softslice]\nstate_dir = /run/softslice\n" + "".join(line + "\n" for line in limits), repr(ini))
        expect(what, items[of["name"] + ".ini"] == "metadata.annotations['softslice.io/ini.%s']" % of["name"], items)
        mounts = {mount["mountPath"]: mount for mount in of["volumeMounts"]}
        expect(what, len(mounts) == len(of["volumeMounts"]), "two mounts in one place")
        expect(what, of["volumeMounts"][:len(was.get("volumeMounts", []))] == was.get("volumeMounts", []), "its own mounts are others")
        for place, read_only in PLACES.items():
            expect(what, place in mounts and mounts[place].get("readOnly", False) == read_only, "%s: %s" % (place, mounts.get(place)))
            expect(what, mounts[place]["name"] in volumes, place)
        expect(what, mounts["/etc/softslice/softslice.ini"]["subPath"] == of["name"] + ".ini", mounts)
        expect(what, mounts["/run/softslice"]["subPath"] == of["name"], mounts)
        env = of.get("env", [])
        expect(what, env[:len(was.get("env", []))] == was.get("env", []), "its own variables are others")
        expect(what, {e["name"]: e["value"] for e in env[len(was.get("env", [])):]} == variables, env)
    return after


VRAM = ["vram = 10GiB"]
given("no limit", pod_of(container("a")), NOTHING, {})
given("no limit, other annotations", pod_of(container("a"), annotations={"x/y": "z"}), NOTHING, {})
given("a limit", pod_of(container("a"), annotations={"vram": "10GiB"}), NOTHING, {"a": (VRAM, {})})
given("all limits", pod_of(container("a"), annotations={"vram": "10GiB", "compute": "25%", "weight": "300"}), NOTHING,
      {"a": (VRAM + ["compute = 25%", "weight = 300"], {})})
given("no GPU", pod_of(container("a", gpu=False), annotations={"vram": "10GiB"}), NOTHING, {})
given("other resources", pod_of(container("a", gpu=False, resources={"requests": {"cpu": "1"}, "limits": {"softslice.io/vram-gib": "4"}}),
                                annotations={"vram": "10GiB"}), NOTHING, {})
given("a MIG device", pod_of(container("a", gpu=False, resources={"limits": {"nvidia.com/mig-1g.10gb": "1"}}), annotations={"vram": "10GiB"}), NOTHING,
      {"a": (VRAM, {})})
given("a GPU by variable", pod_of(container("a", gpu=False, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]), annotations={"vram": "10GiB"}), NOTHING,
      {"a": (VRAM, {})})
for refuses in "", "void", "none":
    given("GPUs refused by variable: '%s'" % refuses,
          pod_of(container("a", gpu=False, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": refuses}]), annotations={"vram": "10GiB"}), NOTHING, {})
given("refused and asked for by variable",
      pod_of(container("a", gpu=False, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": value} for value in ("void", "all")]), annotations={"vram": "10GiB"}),
      NOTHING, {"a": (VRAM, {})})
given("a GPU by a variable from elsewhere",
      pod_of(container("a", gpu=False, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
             annotations={"vram": "10GiB"}), NOTHING, {"a": (VRAM, {})})
given("another of the vendor's devices", pod_of(container("a", gpu=False, resources={"limits": {"nvidia.com/hostdev": "1"}}), annotations={"vram": "10GiB"}),
      NOTHING, {})
given("a sidecar", pod_of(container("a"), container("proxy", gpu=False), annotations={"vram": "10GiB"}), NOTHING, {"a": (VRAM, {})})
given("two, one of its own", pod_of(container("a"), container("b"), annotations={"vram": "10GiB", "vram.b": "2GiB"}), NOTHING,
      {"a": (VRAM, {}), "b": (["vram = 2GiB"], {})})
given("one of two", pod_of(container("a"), container("b"), annotations={"vram.b": "2GiB"}), NOTHING, {"b": (["vram = 2GiB"], {})})
given("opted out", pod_of(container("a"), container("b"), container("c"), annotations={"vram": "10GiB", "exclude": "a, c"}), NOTHING, {"b": (VRAM, {})})
given("all opted out", pod_of(container("a"), annotations={"vram": "10GiB", "exclude": "a"}), NOTHING, {})
given("init containers", pod_of(container("a"), annotations={"vram": "10GiB"}, initContainers=[container("i", gpu=False), container("j")]), NOTHING,
      {"a": (VRAM, {}), "j": (VRAM, {})})
given("mounts and volumes of its own",
      pod_of(container("a", volumeMounts=[{"name": "d", "mountPath": "/data"}], env=[{"name": "X", "value": "y"}]), annotations={"vram": "10GiB"},
             volumes=[{"name": "d", "emptyDir": {}}]), NOTHING, {"a": (VRAM, {})})
given("the namespace's", pod_of(container("a"), container("b", gpu=False)), namespace_of(vram="10GiB"), {"a": (VRAM, {})})
given("the namespace's, and opted out", pod_of(container("a"), annotations={"exclude": "a"}), namespace_of(vram="10GiB"), {"a": (VRAM, {})})
given("less than the namespace's", pod_of(container("a"), container("b"), annotations={"vram": "4GiB", "compute": "10%"}), namespace_of(vram="10GiB"),
      {"a": (VRAM + ["compute = 10%"], {"SOFTSLICE_VRAM": "4GiB"}), "b": (VRAM + ["compute = 10%"], {"SOFTSLICE_VRAM": "4GiB"})})
given("less, for one", pod_of(container("a"), container("b", env=[{"name": "X", "value": "y"}]), annotations={"vram.b": "4GiB", "weight": "5"}),
      namespace_of(vram="10GiB", compute="50%", weight="9"),
      {"a": (VRAM + ["compute = 50%", "weight = 9"], {"SOFTSLICE_WEIGHT": "5"}),
       "b": (VRAM + ["compute = 50%", "weight = 9"], {"SOFTSLICE_VRAM": "4GiB", "SOFTSLICE_WEIGHT": "5"})})
given("what a user makes up is written over", pod_of(container("a"), annotations={"ini.a": "[softslice]\ndisable = 1\n", "limited": "x"}),
      namespace_of(vram="10GiB"), {"a": (VRAM, {})})
given("a node's own pod", pod_of(container("a"), annotations={"vram": "10GiB", "kubernetes.io/config.mirror": "1"}), NOTHING, {})

# ---- the guard

limited = given("the pod of the guard's", pod_of(container("a"), annotations={"vram": "10GiB", "x/y": "z"}), NOTHING, {"a": (VRAM, {})})


def refused(what, pod, old=None, refusals=1):
    said = guard.refusals(pod, NOTHING, old)
    expect("guard: " + what, len(said) == refusals, said)


def changed(**annotations):
    pod = copy.deepcopy(limited)
    for key, value in annotations.items():
        pod["metadata"]["annotations"]["softslice.io/" + key.replace("__", ".")] = value
    return pod


def mounted(group, **mount):
    pod = copy.deepcopy(limited)
    pod["spec"].setdefault(group, []).append({"name": "z", "image": "app", "volumeMounts": [dict({"mountPath": "/z"}, **mount)]})
    return pod


refused("as it is", limited, limited, 0)
refused("a pod without anything", pod_of(container("a")), None, 0)
refused("no annotations at all", pod_of(container("a")), pod_of(container("a")), 0)
other = copy.deepcopy(limited)
other["metadata"]["annotations"]["x/y"] = "w"
refused("another's annotation", other, limited, 0)
refused("more", changed(vram="20GiB"), limited)
refused("the ini", changed(ini__a="[softslice]\n"), limited)
refused("one more", changed(compute="90%"), limited)
fewer = copy.deepcopy(limited)
del fewer["metadata"]["annotations"]["softslice.io/ini.a"]
refused("one less", fewer, limited)
none = copy.deepcopy(limited)
del none["metadata"]["annotations"]
refused("none", none, limited)
refused("first ones", limited, pod_of(container("a")))
for group in ("containers", "initContainers", "ephemeralContainers"):
    for volume in ("softslice-library", "softslice-preload", "softslice-limits"):
        refused("%s of %s" % (volume, group), mounted(group, name=volume))
        refused("%s of %s" % (volume, group), mounted(group, name=volume, readOnly=False))
        refused("%s of %s" % (volume, group), mounted(group, name=volume, readOnly=True), None, 0)
    refused("own volume of " + group, mounted(group, name="data"), None, 0)

# Only what the library understands in an admin's file, where an ordinal means nothing, is admitted.
UUID = "GPU-01234567-89ab-CDEF-0123-456789abcdef"
VALUES = {
    "vram": (["10GiB", "25%", "1.5 GiB", "12.25 %", " 4g ", "1048576", "512 b", "0.5T", "100.0%", "007GiB", UUID + "=1GiB", "mig" + UUID[3:] + " = 5%",
              UUID + "=1GiB,2GiB"],
             ["10GiB\non_error = open", "", " ", "10GiB;", "[softslice]", "GiB", "10GB", "10Gib0", "lots", "none", "0", "0GiB", "0.00%", "101%", "100.5%",
              "1.234%", "1.5", "1.GiB", "-1GiB", "10GiB,", ",10GiB", "=10GiB", UUID + "=", UUID + "=0GiB", UUID + "=1GiB=2GiB", "GPU-1=1GiB", "gpu0=1GiB"]),
    "compute": (["25%", "12.5%", UUID + "=5%,50%"], ["25", "10GiB", "0%", UUID + "=1GiB", "", "25%%"]),
    "weight": (["1", "100", "10000", " 0300 "], ["0", "10001", "-1", "1.5", "50%", "1,2", UUID + "=5", "", "heavy"]),
}
ORDINALS = {"vram": ["0=10GiB", "0=10GiB,1=25%", "10GiB,1=2GiB"], "compute": ["0=10%", "1=5%,50%"]}
for key, (good, bad) in VALUES.items():
    for value in good + bad:
        # The environment stands for the file: what can be set there, for a GPU by its UUID, can be in it. What is blank counts as not set there.
        done = subprocess.run([os.path.join(os.environ["TEST_BUILD"], "softslice"), "config"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              check=False, env=dict(os.environ, **{"SOFTSLICE_" + key.upper(): value}))
        expect("the library", not value.strip() or (done.returncode == 0) == (value in good), "%s = %r" % (key, value))
    for value in good + bad + ORDINALS.get(key, []):
        for name in key, key + ".a":
            refused("%s = %r" % (name, value), pod_of(container("a"), annotations={name: value}), None, 0 if value in good else 1)
for value in "\t1GiB", "1GiB\n":
    refused("the value %r" % value, pod_of(container("a"), annotations={"vram": value}))
refused("what only begins so", pod_of(container("a"), annotations={"vramble": "\n"}), None, 0)

print("\n".join(problems) or "as it should be")
sys.exit(1 if problems else 0)
