#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_MEM=5G
# timeout: 180
"""Kubelets that come late, refuse, restart and delete sockets; plugins that are killed, and two at once."""
import os
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import TMP, Kubelet, Plugin, check, wait_for  # noqa: E402

UNITS = "softslice.io/vram-gib"
DIRECTORY = os.path.join(TMP, "kubelet")
SOCKET = os.path.join(DIRECTORY, "softslice-vram-gib.sock")


def four(devices):
    return len(devices) == 4


# No directory, then no kubelet in it, then one that refuses twice.
plugin = Plugin(DIRECTORY)
plugin.logged("warning %s is not there: waiting for the kubelet" % DIRECTORY)
os.mkdir(DIRECTORY)
wait_for("the socket", lambda: os.path.exists(SOCKET))
kubelet = Kubelet(DIRECTORY)
kubelet.refusals = 2
kubelet.start()
units, = kubelet.endpoints(UNITS)
gpu = next(iter(units.list_of("devices", four))).partition("::")[0]
plugin.logged(r"cannot be registered .* UNAVAILABLE: not now.please", 2)
said = re.findall(r"Z (\w+) .*cannot be registered|trying again in ([\d.]+) s", plugin.log)
check(said[:4] == [("info", ""), ("", "0.05"), ("error", ""), ("", "0.5")], "the first refusal is common, and tried again at once: %s" % said)

# Restarts, each of which deletes all sockets.
for _ in range(3):
    kubelet.stop()
    kubelet = Kubelet(DIRECTORY)
    kubelet.start()
    units, = kubelet.endpoints(UNITS)
    units.list_of("devices", four)
plugin.logged("the kubelet was restarted", 1)

# Somebody deletes the plugin's socket alone.
os.unlink(SOCKET)
units, = kubelet.endpoints(UNITS)
units.list_of("devices", four)
check(units.allocate([gpu + "::0"])[0].name.startswith("k8s-"), "allocates after all of that")

# The whole directory is made anew.
kubelet.stop()
os.rename(DIRECTORY, DIRECTORY + "-before")
os.mkdir(DIRECTORY)
kubelet = Kubelet(DIRECTORY)
kubelet.start()
units, = kubelet.endpoints(UNITS)
units.list_of("devices", four)

# A second one, while the first goes on.
second = Plugin(DIRECTORY, "second")
check(second.process.wait(20) == 1, "the second ends with 1")
check("another plugin listens on " + SOCKET in second.log, "and says why: " + second.log)
check(len(units.allocate([gpu + "::1"])) == 1, "the first goes on")

# Killed: its socket stays, and the next takes it and knows what was given out.
plugin.end(signal.SIGKILL)
check(os.path.exists(SOCKET), "a killed plugin leaves its socket")
given = plugin.budgets()
third = Plugin(DIRECTORY)
units, = kubelet.endpoints(UNITS)
units.list_of("devices", four)
third.logged("2 allocations of an earlier process")
check(third.budgets() == given, "what was given out stays")
check(third.end(signal.SIGINT) == 0 and not os.path.exists(SOCKET), "SIGINT ends it cleanly")

# A reboot: /run is gone, and the runtime has made directories of what it found no file for. The container's answer is still good.
answers = [(host, container) for one in given for host, container in ((third.root + "/%s/.etc/ld.so.preload" % one, one),)]
shutil.rmtree(third.root)
for host, _ in answers:
    os.makedirs(host)
fourth = Plugin(DIRECTORY)
units, = kubelet.endpoints(UNITS)
fourth.logged("is made again", 2)
check(fourth.budgets() == given and all(os.path.isfile(host) for host, _ in answers), "made again")
for one in given:
    with open("%s/%s/.etc/softslice/softslice.ini" % (fourth.root, one), encoding="ascii") as file:
        check("vram = 1 GiB\n" in file.read(), "the same limits")
    check(os.path.exists("%s/turns/%s.turns" % (fourth.root, one)), "an entry of turns")
fourth.end()
# What came to be there while the library was waited for is a running container's: it is left as it is, and the rest is made again.
late, away = os.path.join(TMP, "late.so"), fourth.root + ".away"
os.rename(fourth.root, away)
waits = Plugin(DIRECTORY, options=("--library", late))
waits.logged("nothing can be given out without")
os.makedirs(waits.root, 0o700, exist_ok=True)
there, *gone = sorted(given)
os.rename(os.path.join(away, there), os.path.join(waits.root, there))
with open(os.path.join(waits.root, there, "marker"), "w", encoding="ascii"):
    pass
shutil.copy(os.environ["TEST_LIB"], late + ".new")
os.rename(late + ".new", late)
wait_for("the others", lambda: waits.budgets() == given and all(os.path.exists("%s/%s/.allocation" % (waits.root, one)) for one in gone))
check(os.path.exists(os.path.join(waits.root, there, "marker")), "what was there was made anew")
waits.end()
# What is removed is not made again.
for one in given:
    check(os.path.exists("%s/%s.json" % (fourth.saved, one)), "saved")
with open(fourth.saved + "/k8s-00000001.json", "w", encoding="ascii") as file:
    file.write("[1, 2")
fifth = Plugin(DIRECTORY)
fifth.logged("k8s-00000001.json: no record of an allocation")
fifth.end()
# A path that no socket can have: said once, and tried on.
os.mkdir(os.path.join(TMP, "x" * 100))
sixth = Plugin(os.path.join(TMP, "x" * 100), "sixth")
sixth.logged("cannot listen on .*: File name too long")
time.sleep(1.5)  # longer than it takes to try again: what must not come cannot be waited for
check(sixth.process.poll() is None and sixth.log.count("cannot listen") == 1, sixth.log)
sixth.end()
# Nor is what is no socket another plugin: it is waited for until it goes.
place = os.path.join(TMP, "seventh", "softslice-vram-gib.sock")
os.makedirs(place)
seventh = Plugin(os.path.join(TMP, "seventh"), "seventh-plugin")
seventh.logged("cannot listen on .*: something that is no socket is there")
os.rmdir(place)
wait_for("the socket", lambda: os.path.exists(place))
check(seventh.end() == 0, "ends")
plugin.check_log()
second.check_log()
print("ok")
