# SPDX-License-Identifier: Apache-2.0
"""bench_page.py NATIVE.tsv SOFTSLICE.tsv MACHINE.txt: the page that bench.sh writes, on stdout.

Each .tsv holds several rounds of rows `probe, key, value`; a key's figure is the median of its rounds'
medians, and the spread is the largest less the smallest, so that nobody reads noise as a cost.
"""
import re
import statistics
import sys


def figures(path):
    found = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            parts = line.rstrip("\n").split("\t")
            if len(parts) != 3:
                continue
            _, key, value = parts
            number = re.match(r"(?:median )?([0-9.]+)(?: (us|ns))?", value)
            if number and (key.startswith("ns.") or value.endswith((" us", " ns"))):
                unit = "us" if value.endswith(" us") else "ns"
                found.setdefault((key.removeprefix("ns."), unit), []).append(float(number.group(1)))
    return found


def main():
    native, softslice = figures(sys.argv[1]), figures(sys.argv[2])
    with open(sys.argv[3], encoding="utf-8") as f:
        machine = f.read().rstrip()
    print("# The driver alone and under a VRAM budget\n\nMeasured on a GPU, by `tests/gpu/bench.sh`. On what:\n")
    print("```\n" + machine + "\n```\n")
    print("| call | driver alone | spread | under a VRAM budget | spread | added |")
    print("|---|---|---|---|---|---|")
    for key in native:
        if key not in softslice:
            continue
        a, b = native[key], softslice[key]
        one, two = statistics.median(a), statistics.median(b)
        name, unit = key
        print(f"| {name} | {one:,.1f} {unit} | {max(a) - min(a):,.1f} | {two:,.1f} {unit} "
              f"| {max(b) - min(b):,.1f} | {two - one:+,.1f} |")
    missing = [k[0] for k in native if k not in softslice]
    if missing:
        print("\nNot measured under a budget: " + ", ".join(missing))
    rounds = max((len(v) for v in native.values()), default=0)
    print(f"\nUp to {rounds} rounds of each, in turn; a figure is the median of the rounds' medians.")


if __name__ == "__main__":
    main()
