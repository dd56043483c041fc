#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2 SOFTSIM_MEM=9G
# timeout: 120
"""A program with exactly the mounts that Allocate answers is held to its budget, whatever it is given as environment; and not to more."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mock_kubelet import BUILD, TMP, Kubelet, Plugin, check  # noqa: E402

UNITS = "softslice.io/vram-gib"
DIRECTORY = os.path.join(TMP, "kubelet")
HERE = os.path.dirname(os.path.abspath(__file__))
TAKER = os.path.join(os.path.dirname(HERE), "cli", "taker.py")

# A root of our own, over the machine's: what a container's runtime does, with mount(8).
CONTAINER = """
set -e
mkdir -p "$T/c"; mount -t tmpfs tmpfs "$T/c"; mkdir "$T/c/up" "$T/c/work" "$T/c/root"
mount -t overlay -o "lowerdir=/,upperdir=$T/c/up,workdir=$T/c/work" overlay "$T/c/root"
mount --rbind /proc "$T/c/root/proc"; mount --rbind /dev "$T/c/root/dev"
rm -rf "$T/c/root/run/softslice" "$T/c/root/etc/softslice"
for path in $SEEN; do mkdir -p "$T/c/root$path"; mount --bind "$path" "$T/c/root$path"; done
while read -r host container how; do
    mkdir -p "$(dirname "$T/c/root$container")"
    if [ -d "$host" ]; then mkdir -p "$T/c/root$container"; else [ -e "$T/c/root$container" ] || : >"$T/c/root$container"; fi
    mount --bind "$host" "$T/c/root$container"
    [ "$how" = rw ] || mount -o remount,ro,bind "$T/c/root$container"
done <"$T/mounts"
exec chroot "$T/c/root" "$@"
"""


def run(answer, words, **env):
    with open(TMP + "/mounts", "w", encoding="ascii") as file:
        for container, host, read_only in answer.mounts:
            file.write("%s %s %s\n" % (host, container, "ro" if read_only else "rw"))
    seen = [os.path.join(BUILD, "sim"), os.path.join(TMP, "sim"), os.path.dirname(TAKER)]
    outside = {**os.environ, "T": TMP, "SEEN": " ".join(seen)}
    inside = ["env", "-i"] + ["%s=%s" % pair for pair in env.items()]
    inside += ["%s=%s" % (k, v) for k, v in os.environ.items() if k.startswith("SOFTSIM_") or k in ("LD_LIBRARY_PATH", "PATH")]
    return subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", CONTAINER, "sh"] + inside + words, env=outside,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)


if os.geteuid() or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
    print("mounts need root")
    sys.exit(77)
os.mkdir(DIRECTORY)
kubelet = Kubelet(DIRECTORY)
kubelet.start()
plugin = Plugin(DIRECTORY)
units, = kubelet.endpoints(UNITS)
first, second = dict.fromkeys(one.partition("::")[0] for one in units.list_of("devices", bool))
two, = units.allocate([first + "::0", first + "::1"])
other, = units.allocate([second + "::0", second + "::1", second + "::2"])

python = ["/usr/bin/python3", TAKER]
free = run(type("Nothing", (), {"mounts": []}), python + ["4096"])
if "overlay" in free.stderr:
    print("no overlay file system here: " + free.stderr.strip())
    sys.exit(77)
check(free.stdout == "4096\n", "without the mounts: %s" % free)
# The simulated GPU is anybody's, as /dev/nvidia0 is.
os.chmod(TMP, 0o711)
os.chmod(TMP + "/sim", 0o777)
for name in os.listdir(TMP + "/sim"):
    os.chmod(TMP + "/sim/" + name, 0o666)
uid = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
for words, env in ((python, {}), (python, {"SOFTSLICE_VRAM": "8GiB"}), (python, {"SOFTSLICE_DISABLE": "1"}), (uid + python, {}),
                   (python, {"LD_PRELOAD": "", "SOFTSLICE_STATE_DIR": "/tmp", "SOFTSLICE_TENANT": "mine"})):
    held = run(two, words, **env)
    if uid[0] in words and ("Permission denied" in held.stderr or "error 304" in held.stderr):
        print("not as uid 1000: " + held.stderr.strip())  # the tree under test is in a folder that only root can enter
        continue
    # 2 GiB less what the context takes.
    check(held.stdout and 0 < int(held.stdout) <= 2048 and int(held.stdout) >= 1024, "%s %s: %s" % (words, env, held))
# A GPU that it was not given is no way around, and the other container has its own.
check(int(run(other, python, CUDA_VISIBLE_DEVICES="1").stdout) > 2048, "3 GiB of the second GPU")
around = run(two, python, CUDA_VISIBLE_DEVICES="1")
check(around.stdout.strip() in ("", "0"), "memory of a GPU that it was not given: %s" % around)
shown = subprocess.run([os.environ["TEST_COMMAND"], "status", "--root", plugin.root, "--json"], check=False, stdout=subprocess.PIPE)
check(shown.returncode == 0, "status --root")
plugin.end()
plugin.check_log()
print("ok")
