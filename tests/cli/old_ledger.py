# SPDX-License-Identifier: Apache-2.0
"""old_ledger.py FILE: makes a ledger that nobody is in one of version 1.2, which has no ring of events."""
import struct
import sys

WORD = (1 << 64) - 1
CHECKED = 120


def mix(word):
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
    return word ^ (word >> 31)


with open(sys.argv[1], "r+b") as file:
    header = bytearray(file.read(CHECKED + 8))
    header[10:12] = struct.pack("=H", 2)
    header[96:112] = bytes(16)
    total = int.from_bytes(header[:8], sys.byteorder)
    for i, word in enumerate(struct.unpack("=15Q", header[:CHECKED])):
        total = mix(total ^ word) + i & WORD
    header[CHECKED:] = struct.pack("=Q", total)
    file.seek(0)
    file.write(header)
