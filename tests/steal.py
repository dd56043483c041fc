# SPDX-License-Identifier: Apache-2.0
"""What the host of a virtual machine takes from its processors: `steal` in /proc/stat. Elsewhere all of it is 0."""
import os
import re

TICKS = os.sysconf("SC_CLK_TCK")


def stolen():
    """Seconds so far, of each processor."""
    with open("/proc/stat", encoding="ascii") as stat:
        return [int(line.split()[8]) / TICKS for line in stat if re.match(r"cpu\d", line)]


def taken_since(before):
    """Seconds since stolen() said so, of the processor that lost the most."""
    return max((now - then for now, then in zip(stolen(), before)), default=0)
