# SPDX-License-Identifier: Apache-2.0
"""cdi_spec.py SPEC [VERSION KIND DEVICE...]: whether a file is what the Container Device Interface's specification calls a spec, up to version
0.5.0, and, where that is asked, of this version and kind with exactly these devices. Says what is wrong with the first fault."""
import json
import re
import sys

NAME = r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?"
KIND = r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?"
KNOWN = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0")
EDITS = {"env", "deviceNodes", "mounts", "hooks"}


def fail(what):
    sys.exit("cdi_spec.py: " + what)


def unique(pairs):
    """A key that is there twice is no mistake to JSON, and one to its readers."""
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        fail("a key is there twice: %s" % keys)
    return dict(pairs)


def check_mount(mount, where):
    extra = set(mount) - {"hostPath", "containerPath", "options", "type"}
    if extra:
        fail("%s: %s is nothing that a mount has" % (where, extra))
    for key in ("hostPath", "containerPath"):
        if not isinstance(mount.get(key), str) or not mount[key].startswith("/"):
            fail("%s: %s is not an absolute path" % (where, key))
    if not all(isinstance(option, str) and option for option in mount.get("options", [])):
        fail("%s: options are texts" % where)


def check_edits(edits, where):
    if not isinstance(edits, dict) or not edits:
        fail("%s has no edits" % where)
    if set(edits) - EDITS:
        fail("%s: %s is nothing that edits have" % (where, set(edits) - EDITS))
    for variable in edits.get("env", []):
        if not re.fullmatch(r"[^=]+=.*", variable):
            fail("%s: %s is no variable" % (where, variable))
    for mount in edits.get("mounts", []):
        check_mount(mount, where)
    for node in edits.get("deviceNodes", []):
        if not node.get("path", "").startswith("/"):
            fail("%s: a device node without a path" % where)


def main():
    with open(sys.argv[1], encoding="utf-8") as text:
        spec = json.load(text, object_pairs_hook=unique)
    if set(spec) - {"cdiVersion", "kind", "devices", "containerEdits"}:
        fail("%s is nothing that a spec has" % list(spec))
    if spec.get("cdiVersion") not in KNOWN:
        fail("cdiVersion %s" % spec.get("cdiVersion"))
    if not re.fullmatch(KIND, spec.get("kind", "")):
        fail("kind %s" % spec.get("kind"))
    names = []
    for device in spec.get("devices") or fail("no devices"):
        if set(device) != {"name", "containerEdits"} or not re.fullmatch(NAME, device["name"]):
            fail("device %s" % device)
        if device["name"][0].isdigit() and spec["cdiVersion"] < "0.5.0":
            fail("version %s has no names that begin with a digit" % spec["cdiVersion"])
        check_edits(device["containerEdits"], device["name"])
        if any("type" in mount for mount in device["containerEdits"].get("mounts", [])) and spec["cdiVersion"] < "0.4.0":
            fail("version %s has no type of a mount" % spec["cdiVersion"])
        names.append(device["name"])
    if len(names) != len(set(names)):
        fail("two devices of one name: %s" % names)
    if len(sys.argv) > 2 and [spec["cdiVersion"], spec["kind"]] + names != sys.argv[2:]:
        fail("version, kind and devices are %s" % ([spec["cdiVersion"], spec["kind"]] + names))


main()
