#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The policy beside the device plugin: a pod's own mounts cannot hide the plugin's."""
# timeout: 300
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
import manifests  # noqa: E402
import yaml  # noqa: E402

import admission  # noqa: E402

with open(os.path.join(manifests.ROOT, "deploy", "device-plugin", "guard", "guard.yaml"), encoding="utf-8") as file:
    guard = admission.Policy(next(yaml.safe_load_all(file)))
problems = []
counted = 0


def container(name, *places, resource="softslice.io/vram-gib", **more):
    found = dict({"name": name, "image": "app"}, **more)
    if places:
        found["volumeMounts"] = [{"name": "v", "mountPath": place} for place in places]
    if resource:
        found["resources"] = {"limits": {resource: "1"}}
    return found


def tried(what, refusals, *containers, looked_at=True, **spec):
    global counted
    counted += 1
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": dict({"containers": list(containers)}, **spec)}
    if guard.matches(pod) != looked_at:
        problems.append("%s: is%s looked at" % (what, " not" if looked_at else ""))
    said = guard.refusals(pod, {"metadata": {"name": "n"}}) if looked_at else []
    if len(said) != refusals:
        problems.append("%s: %s" % (what, said))


OURS = ("/etc/ld.so.preload", "/etc/softslice", "/etc/softslice/softslice.ini", "/run/softslice", "/run/softslice/x", "/var/run/softslice",
        "/usr/local/lib/softslice", "/usr/local/lib/softslice/libsoftslice.so")
OTHERS = ("/data", "/data/", "/etc", "/run", "/usr/local/lib", "/etc/softslice.d", "/etc/ld.so.preload.d", "/run/softslices", "/home/run/softslice", "/..data",
          "/a/.hidden", "/a..b")

tried("no resource of ours", 0, container("a", *OURS, resource=None), looked_at=False)
tried("another's resource", 0, container("a", *OURS, resource="nvidia.com/gpu"), looked_at=False)
tried("no mounts", 0, container("a"))
for place in OURS:
    for spelt in (place, place + "/", place[1:]):
        tried(spelt, 1, container("a", "/data", spelt))
        tried("a slice: " + spelt, 1, container("a", spelt, resource="softslice.io/small"))
        tried("an init container: " + spelt, 1, container("b"), initContainers=[container("a", spelt)])
        tried("beside: " + spelt, 0, container("a"), container("b", spelt, resource=None))
    tried("a device: " + place, 1, container("a", volumeDevices=[{"name": "v", "devicePath": place}]))
    for spelt in ("/" + place, "/x/.." + place, "/." + place, place.replace("/", "//", 2)):
        tried("crooked: " + spelt, 1, container("a", spelt))
for place in OTHERS:
    tried(place, 0, container("a", place))

print("\n".join(problems) or "%d pods as it should be" % counted)
sys.exit(1 if problems else 0)
