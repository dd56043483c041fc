# SPDX-License-Identifier: Apache-2.0
"""The simulated GPU's record of who had it when: SOFTSIM_TIMELINE, see docs/simulated-gpu.md."""
import bisect
import os


class Timeline:
    """Slices of GPU time, by GPU and process."""

    def __init__(self, slices):
        self.by = {}
        for gpu, pid, begin, end in slices:
            self.by.setdefault((gpu, pid), []).append((begin, end))
        for part in self.by.values():
            part.sort()

    @classmethod
    def read(cls, path):
        if not os.path.exists(path):
            return None
        with open(path, encoding="ascii") as lines:
            return cls([tuple(map(int, line.split()[:4])) for line in lines if line[:1].isdigit()])

    def of(self, pids, gpu):
        return sorted(piece for pid in pids for piece in self.by.get((gpu, pid), []))

    def busy(self, pids, gpu, begin, end):
        """Nanoseconds between the two in which one of the processes had the GPU."""
        return sum(max(0, min(b, end) - max(a, begin)) for a, b in self.of(pids, gpu))

    def windows(self, pids, gpu, begin, end, length, step):
        """The share of the processes in all windows of that length."""
        pieces = self.of(pids, gpu)
        ends, before, total = [b for _, b in pieces], [0], 0
        for a, b in pieces:
            total += b - a
            before.append(total)

        def until(moment):
            i = bisect.bisect_left(ends, moment)  # the pieces before it have ended
            return before[i] + (max(0, moment - pieces[i][0]) if i < len(pieces) else 0)

        return [(until(at + length) - until(at)) / length for at in range(begin, end - length + 1, step)]
