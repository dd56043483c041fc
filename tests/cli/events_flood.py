#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A member that writes events into its tenant's ring as fast as they are read keeps nobody who looks: one look shows what a ring holds, and ends."""
# run: SOFTSIM_CONTEXT_BYTES=134217728 SOFTSIM_MEM=8589934592 SOFTSLICE_LOG=off
# timeout: 240
# unsanitized: the two have to be about as fast as each other
import mmap
import os
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
COMMAND, STATE = os.environ["TEST_COMMAND"], os.environ["SOFTSLICE_STATE_DIR"]
WORD, SIZE, STEP, ROUNDS = (1 << 64) - 1, 64, 64, 100
EVENT_AT, NEXT_AT = 96, 136  # of the header: event_offset, event_stride, event_count; event_next


def mix(word):
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
    return word ^ (word >> 31)


def entry(ticket, magic, kind=4):
    """One that is whole: of process 7, which left."""
    words = (time.time_ns(), 0, 0, 0, 7, kind << 32 | 255 << 40)
    total = magic
    for i, word in enumerate(words):
        total = mix(total ^ word) + i & WORD
    check = mix(total ^ mix(ticket + 1)) >> 32
    return struct.pack("=8Q", ticket + 1, check << 32 | 1, *words)


def flood(path):
    """Goes on for ever; each pace for a while."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as ledger:
        magic, = struct.unpack_from("=Q", ledger, 0)
        offset, stride, count = struct.unpack_from("=III", ledger, EVENT_AT)
        assert stride == SIZE
        lane, first = count // 2, struct.unpack_from("=Q", ledger, NEXT_AT)[0]
        first += -first % STEP
        steps = [b"".join(entry(first + i * STEP + j, magic) for j in range(STEP)) for i in range(ROUNDS * lane // STEP)]
        print("ready", flush=True)
        while True:
            for microseconds in (20, 30, 40, 60, 80, 120, 200, 300):
                due = time.perf_counter()
                for i, step in enumerate(steps):
                    at = offset + (first + i * STEP) % lane * SIZE
                    ledger[at:at + STEP * SIZE] = step
                    struct.pack_into("=Q", ledger, NEXT_AT, first + (i + 1) * STEP)
                    due += microseconds / 1e6
                    while time.perf_counter() < due:
                        pass


if len(sys.argv) > 1:
    flood(sys.argv[1])
subprocess.run([COMMAND, "run", "--tenant", "team", "--vram", "1GiB", "--", sys.executable, os.path.join(HERE, "taker.py"), "64"], check=True,
               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
with open(os.path.join(STATE, "team", "ledger"), "rb") as ledger_file:
    ring = struct.unpack_from("=III", ledger_file.read(EVENT_AT + 12), EVENT_AT)[2]
with subprocess.Popen([sys.executable, os.path.abspath(__file__), os.path.join(STATE, "team", "ledger")], stdout=subprocess.PIPE, text=True) as flooder:
    try:
        assert flooder.stdout.readline() == "ready\n"
        most = some = looks = 0
        end = time.monotonic() + 6
        while time.monotonic() < end and most <= ring + STEP + 2:
            looks += 1
            done = subprocess.run([COMMAND, "events", "--tenant", "team"], check=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            lines = done.stdout.count(b"\n")
            some += lines > 2
            most = max(most, lines)
    finally:
        flooder.kill()
print("%d events at most of a ring of %d, in %d of %d looks" % (most, ring, some, looks))
if not some:
    sys.exit("FAILED: no look saw anything of it")
if most > ring + STEP + 2:
    sys.exit("FAILED: a look went on as long as it was written to")
