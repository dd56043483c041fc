#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2 SOFTSIM_MEM=9G
# timeout: 120
"""The device plugin against a mock kubelet: it registers, lists, prefers and allocates; bad requests get a status and leave nothing behind."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import TMP, Kubelet, Plugin, check, encode, grpc, started  # noqa: E402

UNITS = "softslice.io/vram-gib"
DIRECTORY = os.path.join(TMP, "kubelet")
INVALID, PRECONDITION, NOT_FOUND = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)


def ids(gpu, *numbers):
    return ["%s::%d" % (gpu, number) for number in numbers]


def listed(endpoint, count):
    devices = endpoint.list_of("%d devices" % count, lambda devices: len(devices) == count)
    check(set(devices.values()) <= {"Healthy"}, "healthy")
    gpus = sorted({one.rpartition("::")[0] for one in devices})
    check(len(gpus) == 2 and all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", gpu) for gpu in gpus), "ids of two GPUs")
    return gpus


def allocates(endpoint, plugin, a, b):
    """The table of docs/kubernetes.md."""
    answer, = endpoint.allocate(ids(a, 0, 3))
    root, name = plugin.root, answer.name
    check(re.fullmatch("k8s-[0-9a-f]{8}", name), "name of the budget")
    check(answer.envs == {"NVIDIA_VISIBLE_DEVICES": a}, "envs: %s" % answer.envs)
    check(answer.mounts == [
        ("/usr/local/lib/softslice/libsoftslice.so", os.path.realpath(os.environ["TEST_LIB"]), True),
        ("/etc/ld.so.preload", "%s/%s/.etc/ld.so.preload" % (root, name), True),
        ("/etc/softslice", "%s/%s/.etc/softslice" % (root, name), True),
        ("/run/softslice", "%s/%s" % (root, name), True),
        ("/run/softslice/" + name, "%s/%s/%s" % (root, name, name), False),
        ("/run/softslice/turns", root + "/turns", True),
        ("/run/softslice/turns/%s.turns" % name, "%s/turns/%s.turns" % (root, name), False),
    ], "mounts: %s" % answer.mounts)
    check(all(os.path.exists(host) for _, host, _ in answer.mounts), "what is mounted is there")
    check(answer.cdi == [] and answer.annotations == [], "no CDI device, no annotation")
    check("[gpu %s]\nvram = 2 GiB\ncompute = 25.00%%\n" % a in answer.ini, "limits: " + answer.ini)
    other, = endpoint.allocate(ids(b, 7))
    check(other.name != name and other.envs == {"NVIDIA_VISIBLE_DEVICES": b}, "another container, the other GPU")
    check("vram = 1 GiB\ncompute = 12.50%\n" in other.ini, "limits: " + other.ini)
    both = endpoint.allocate(ids(a, 1), ids(b, 1))
    check(len({one.name for one in both}) == 2, "two containers in one request")
    check(len(plugin.budgets()) == 4, "a directory each")


def refuses(endpoint, plugin, a, b):
    before = plugin.budgets()
    cases = [
        ([ids(a, 4) + ids(b, 4)], PRECONDITION, "more than one GPU"),
        ([ids(a, 8)], NOT_FOUND, "no device"),
        ([ids(a, 4) + ["GPU-nonsense"]], NOT_FOUND, "GPU-nonsense"),
        ([[a + "::04"]], NOT_FOUND, "no device"),
        ([[a]], NOT_FOUND, "no device"),
        ([["::4"]], NOT_FOUND, "no device"),
        ([["\x1b[31m\n" * 200]], NOT_FOUND, "no device"),
        ([[b"\xff\x9b31m\xc2\x9b31m"]], NOT_FOUND, "no device"),
        ([ids(a, 4, 4)], INVALID, "twice"),
        ([[]], INVALID, "without a device"),
        ([], INVALID, "0 containers"),
        ([ids(a, 4), ids(a, 5) + ids(b, 5)], PRECONDITION, "more than one GPU"),
        ([ids(a, *range(20000))], NOT_FOUND, "no device"),
        ([ids(a, 4)] * 65, INVALID, "65 containers"),
    ]
    for containers, code, words in cases:
        got, details = endpoint.refuse(*containers)
        check((got, words in details) == (code, True), "%.100s: %s: %s" % (containers, got, details))
    for junk in (b"\xff" * 20, b"\x0a\x05ab", encode((1, b"\x0a\xff\xff\xff\x0f"))):
        check(endpoint.status("Allocate", junk)[0] == INVALID, "not a message")
    check(plugin.budgets() == before, "nothing is left behind")
    check(os.listdir(plugin.root + "/turns") and len(os.listdir(plugin.root + "/turns")) == len(before), "no entry of turns either")


def prefers(endpoint, a, b):
    check(endpoint.prefer(3, ids(a, 0, 1, 2, 3, 4) + ids(b, 5, 6, 7)) == ids(b, 5, 6, 7), "the fullest that still fits")
    check(endpoint.prefer(4, ids(b, 0, 1, 2) + ids(a, 7, 1, 2, 3, 4)) == ids(a, 1, 2, 3, 4), "the one where it fits")
    check(endpoint.prefer(2, ids(a, 0, 1, 2, 3) + ids(b, 5, 6), ids(a, 3)) == ids(a, 3, 0), "what must be in it says which")
    check(len(endpoint.prefer(4, ids(a, 0, 1, 2) + ids(b, 5, 6))) == 4, "a hint where it fits nowhere")
    check(endpoint.prefer(3, ids(a, 0) + ["nonsense"]) == ids(a, 0), "fewer where there are fewer")
    check(endpoint.status("GetPreferredAllocation", b"\xff")[0] == INVALID, "not a message")


os.mkdir(DIRECTORY)
kubelet = Kubelet(DIRECTORY)
kubelet.start()
plugin = Plugin(DIRECTORY)
units, = kubelet.endpoints(UNITS)
gpu_a, gpu_b = listed(units, 16)
allocates(units, plugin, gpu_a, gpu_b)
refuses(units, plugin, gpu_a, gpu_b)
prefers(units, gpu_a, gpu_b)
check(units.call("PreStartContainer", encode((1, gpu_a + "::0"))) == b"", "PreStartContainer")
check(plugin.end() == 0, "ends with 0")
check(not [name for name in os.listdir(DIRECTORY) if name.startswith("softslice")], "its socket is gone")
plugin.check_log()
check(len(started) == 1, "one plugin was enough")
print("ok")
