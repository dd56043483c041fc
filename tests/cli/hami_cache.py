# SPDX-License-Identifier: Apache-2.0
"""HAMi's cache file as its monitor (2.10) reads it: by these offsets, with these conditions, and with these sums."""
import os
import struct

MAGIC, LEAST, DEVICES, SLOTS = 19920718, 2008952, 16, 1024
COUNT, UUIDS, LIMITS, SHARES, PROCS, SLOT = 56, 64, 1600, 1728, 1856, 1960
USED, UTILIZATION, STATUS = 8, 1160, 1928
PROC_NUM, SWITCH, RECENT, PRIORITY, LAST_KERNEL = 2008896, 2008900, 2008904, 2008908, 2008912


class NotThere(Exception):
    """The monitor would not take this container."""


class Cache:
    """One look at it."""

    def __init__(self, path):
        directory = os.path.dirname(path)
        if len(os.listdir(directory)) > 2:
            raise NotThere("more than a library and a cache: %s" % os.listdir(directory))
        try:
            with open(path, "rb") as file:
                self.data = file.read()
        except FileNotFoundError as error:
            raise NotThere(str(error)) from error
        if len(self.data) < LEAST or self.at("i", 0) != MAGIC or self.at("i", 4) != 1:
            raise NotThere("%d bytes, magic number %s" % (len(self.data), self.data[:8].hex()))
        self.devices, self.proc_num = self.at("Q", COUNT), self.at("i", PROC_NUM)
        if self.devices > DEVICES or not 0 <= self.proc_num <= SLOTS or self.priority not in (0, 1):
            raise NotThere("%d devices, %d processes and priority %d, which the monitor would use as indexes" % (self.devices, self.proc_num, self.priority))

    def at(self, form, offset):
        return struct.unpack_from("<" + form, self.data, offset)[0]

    switch = property(lambda self: self.at("i", SWITCH))
    recent = property(lambda self: self.at("i", RECENT))
    priority = property(lambda self: self.at("i", PRIORITY))
    last_kernel = property(lambda self: self.at("q", LAST_KERNEL))

    def uuids(self):
        """By the numbers that devices have here; those that nobody has filled in are left out."""
        return {self.data[at:at + 40].decode(): i for i, at in enumerate(range(UUIDS, UUIDS + 96 * self.devices, 96)) if self.data[at]}

    def limit(self, device):
        return self.at("Q", LIMITS + 8 * device)

    def share(self, device):
        return self.at("Q", SHARES + 8 * device)

    def _sum(self, device, what):
        return sum(self.at("Q", PROCS + SLOT * slot + USED + 64 * device + 8 * what) for slot in range(self.proc_num))

    def used(self, device):
        return self._sum(device, 4)

    def parts(self, device):
        """Context, module, data, and what the monitor calls the rest."""
        context, module, data = (self._sum(device, what) for what in range(3))
        return context, module, data, self.used(device) - context - module - data

    def utilization(self, device):
        return sum(self.at("Q", PROCS + SLOT * slot + UTILIZATION + 48 * device + 16) for slot in range(self.proc_num))

    def processes(self):
        """Those that are said to live, and what each has on each device."""
        found = {}
        for slot in range(self.proc_num):
            base = PROCS + SLOT * slot
            if self.at("i", base + STATUS):
                found[self.at("i", base)] = [self.at("Q", base + USED + 64 * i + 32) for i in range(self.devices)]
        return found


def write(path, offset, form, value):
    """As the monitor does."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<" + form, value))
