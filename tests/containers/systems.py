# SPDX-License-Identifier: Apache-2.0
"""Debian systems with other versions of glibc, as containers' root file systems, and programs that run on them. Fetched and built once, and kept in
build/containers; several can be made at the same time."""
import glob
import os
import re
import shutil
import subprocess
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What no test starts or reads.
SUPERFLUOUS = ("debootstrap", "var/cache/apt", "var/lib/apt", "usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo", "usr/share/perl5")
DEVELOPMENT = ("libc6-dev_", "linux-libc-dev_", "libcrypt-dev_")
PRODUCTS = ("sim/libcuda.so.1", "sim/libnvidia-ml.so.1", "tests/programs/taker")
SECONDS = 300  # to fetch one, on a machine that is busy


class Missing(Exception):
    """Why a system is not to be had."""


class Broken(Exception):
    """What went wrong with one that is."""


def do(*command, otherwise=Broken, **options):
    """Run a command, which has to succeed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise otherwise("%s: %s" % (" ".join(command), "; ".join(done.stdout.strip().splitlines()[-3:])))


def relative_links(root, paths):
    """For a linker outside of the system."""
    for path in paths:
        if os.path.islink(path) and os.path.isabs(os.readlink(path)):
            target = os.path.relpath(root + os.readlink(path), os.path.dirname(path))
            os.unlink(path)
            os.symlink(target, path)


class System:
    """One of them; it is being made from when it is asked for."""

    def __init__(self, build, suite, old):
        self.suite, self.old = suite, old
        self.folder = os.path.join(build, "containers", suite)
        self.programs = os.path.join(build, "containers", "programs-" + suite)
        self.problem = None  # why there is none: Missing, or another error that is no reason
        self.thread = threading.Thread(target=self.make, daemon=True)
        self.thread.start()

    def make(self):
        try:
            if not os.path.exists(self.folder):
                self.fetch()
            if self.old:
                self.build()
        except (Missing, Broken, OSError, subprocess.TimeoutExpired) as error:
            self.problem = error

    def fetch(self):
        """Unpacked, not set up: programs run as they are."""
        if not shutil.which("debootstrap"):
            raise Missing("no debootstrap")
        part = self.folder + ".part"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        include = ["--include=libc6-dev"] if self.old else []
        do("debootstrap", "--foreign", "--variant=minbase", *include, self.suite, part, otherwise=Missing,
           timeout=SECONDS)
        for package in glob.glob(os.path.join(part, "var/cache/apt/archives/*.deb")):
            if os.path.basename(package).startswith(DEVELOPMENT):
                do("dpkg-deb", "-x", package, part)
        for name in SUPERFLUOUS:
            shutil.rmtree(os.path.join(part, name), ignore_errors=True)
        os.unlink(os.path.join(part, "proc"))  # debootstrap's link to the host's
        os.mkdir(os.path.join(part, "proc"))
        for folder, _, names in os.walk(os.path.join(part, "usr")):
            relative_links(part, [os.path.join(folder, name) for name in names])
        do("chmod", "-R", "u-s,g-s", part)
        os.rename(part, self.folder)

    def build(self):
        """The simulated driver and a program for a glibc that is older than this machine's."""
        library = os.path.dirname(glob.glob(os.path.join(self.folder, "usr/lib/*/libc.so"))[0])
        compiler = "%s --sysroot=%s -B%s" % (os.environ.get("CC", "gcc"), self.folder, library)
        environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        do("make", "-s", "-C", ROOT, "CC=" + compiler, "BUILD=" + self.programs, *(os.path.join(self.programs, name) for name in PRODUCTS),
             env=environment, timeout=SECONDS)

    def ready(self):
        """Wait until it is made: its root. Missing says why it cannot be fetched here."""
        self.thread.join()
        if self.problem:
            raise self.problem
        return self.folder

    def glibc(self):
        """The version that is really in there."""
        library = glob.glob(os.path.join(self.folder, "lib/*/libc.so.6"))[0]
        with open(os.path.realpath(library), "rb") as code:
            return re.search(rb"GNU C Library[^\n]*version (\d+\.\d+)", code.read()).group(1).decode()
