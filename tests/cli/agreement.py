#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
# unsanitized: what is compared are the programs' figures
"""Two tenants on two GPUs, with numbers that are not round: whatever shows them shows the same, which is what the simulated GPUs' own books say. The table
of `softslice status`, its document, `softslice top --batch`, the exporter's metrics over HTTP and in a file, its page's data, and the page in a browser."""
import json
import os
import re
import shutil
import subprocess
import sys

from books import COMMAND, GIB, TIMELINE, Books, check, holding, two_gpus
from browser import Browser
from exporter_live import Exporter
from page import ROWS

TMP = os.environ["TEST_TMP"]
two_gpus()
SAMPLE = re.compile(r"^(softslice_\w+)(?:\{(.*)\})? (\S+)$", re.M)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

# What everybody shows of a tenant on a GPU, by its place in the document; ns and bytes.
FIGURES = {"limit": ("vram", "limit_bytes"), "current": ("vram", "current_bytes"), "peak": ("vram", "peak_bytes"), "spilled": ("vram", "spilled_bytes"),
           "refused": ("vram", "events", "refused"), "oom": ("vram", "events", "oom"), "buried": ("vram", "events", "buried"),
           "underflow": ("vram", "events", "underflow"), "share": ("compute", "share_percent"), "weight": ("compute", "weight"),
           "busy": ("compute", "busy_ns"), "throttled": ("compute", "throttled_ns"), "forgiven": ("compute", "forgiven_ns"),
           "periods": ("compute", "nr_periods"), "throttled_periods": ("compute", "nr_throttled"), "turns_taken": ("compute", "turns_taken"),
           "turns_lost": ("compute", "turns_lost")}


def softslice(*words):
    return subprocess.run([COMMAND, *words], stdout=subprocess.PIPE, check=True, timeout=60).stdout.decode()


def at(device, path):
    for key in path:
        device = device.get(key) if device else None
    return device


def from_document(document):
    """{(tenant, gpu): {figure: value}}, what is not known left out."""
    found = {}
    for tenant in document["tenants"]:
        for device in tenant["devices"]:
            values = {figure: at(device, path) for figure, path in FIGURES.items()}
            found[tenant["tenant"], device["gpu"]] = dict({k: v for k, v in values.items() if v is not None}, processes=tenant["processes"])
    return found


# ---- metrics

MEMORY = {"softslice_memory_%s_bytes" % name: name for name in ("limit", "current", "peak", "spilled")}
COUNTERS = {"softslice_periods_total": "periods", "softslice_throttled_periods_total": "throttled_periods",
            "softslice_turns_taken_total": "turns_taken", "softslice_turns_lost_total": "turns_lost", "softslice_compute_weight": "weight"}
TIMES = {"softslice_gpu_%s_seconds_total" % name: name for name in ("busy", "throttled", "forgiven")}


def from_metrics(text):
    found, processes = {}, {}
    for name, labels, value in SAMPLE.findall(text):
        labels = dict(LABEL.findall(labels))
        figures = found.setdefault((labels.get("tenant"), labels.get("gpu")), {})
        if name in MEMORY or name in COUNTERS:
            figures[MEMORY.get(name) or COUNTERS[name]] = int(value)
        elif name in TIMES:
            figures[TIMES[name]] = round(float(value) * 1e9)
        elif name == "softslice_compute_share_ratio":
            figures["share"] = round(float(value) * 100, 6)
        elif name == "softslice_memory_events_total":
            figures[labels["event"]] = int(value)
        elif name == "softslice_processes":
            processes[labels["tenant"]] = int(value)
    found = {key: dict(figures, processes=processes[key[0]]) for key, figures in found.items() if key[0] and key[1] and figures}
    return found


# ---- top

def from_top(text):
    """Its last block: tenants' figures, and GPUs' by UUID."""
    block = text.rstrip("\n").split("\n\n")[-1].split("\n")
    split = next(i for i, line in enumerate(block) if line.startswith("TENANT"))
    gpus = {row["GPU"]: row for row in (dict(zip(block[1].split(), line.split())) for line in block[2:split])}
    columns, found = block[split].split(), {}
    for line in block[split + 1:]:
        row = dict(zip(columns, line.split()))
        values = {"processes": row["PROCESSES"], "current": row["CURRENT"], "limit": row["LIMIT"], "peak": row["PEAK"], "weight": row["WEIGHT"],
                  "refused": row["REFUSED"]}
        found[row["TENANT"], row["GPU"]] = {k: int(v) for k, v in values.items() if v not in ("-", "none")}
        if row["COMPUTE%"] != "-":
            found[row["TENANT"], row["GPU"]]["share"] = float(row["COMPUTE%"])
    return found, gpus


# ---- for people

def gib(size, rounded="%.2f GiB"):
    return rounded % (size / GIB)


def of_table(values):
    share = values.get("share")
    return ["-" if value is None else value for value in
            (gib(values["current"]), gib(values["limit"]) if "limit" in values else "none", gib(values["peak"]),
             None if share is None else "%g%%" % share, None if share is None else "0.0%", None if share is None else "0.0%",
             "%d" % values["processes"], "%d" % values["refused"], values.get("weight") and "%d" % values["weight"])]


def compare_table(expected, uuids):
    """Cells may have a single blank in them."""
    rows = [re.split(r"  +", line.strip()) for line in softslice("status").split("\n")]
    start = next(i for i, row in enumerate(rows) if row[0] == "TENANT")
    shown = {(row[0], uuids[int(row[1])]): row[2:] for row in rows[start + 1:] if len(row) > 2}
    wanted = {key: of_table(values) for key, values in expected.items()}
    check(shown == wanted, "table", shown, wanted)


def compare_page(exporter, expected, uuids):
    if not shutil.which("chromium"):
        return "no browser: the page itself was not compared"
    with Browser() as browser:
        browser.open(exporter.url)
        browser.until("document.querySelectorAll('section.gpu tbody > tr:not(.detail)').length >= %d" % len(expected))
        cards = browser.eval("[...document.querySelectorAll('section.gpu .title code')].map((c) => c.textContent)")
        check(cards == uuids, "the page's GPUs", cards)
        shown = {(row["Tenant"], card): row for i, card in enumerate(cards)
                 for row in browser.eval(ROWS.replace("section.gpu", "section.gpu:nth-of-type(%d)" % (i + 1)))}
    check(sorted(shown) == sorted(expected), "the page's rows", list(shown))
    for key, values in expected.items():
        row = {name: text.split("\n")[0] for name, text in shown[key].items()}
        share = values.get("share")
        wanted = {"In use": gib(values["current"]), "Peak": gib(values["peak"]), "Limit": gib(values["limit"]) if "limit" in values else "not limited",
                  "Share": "not limited" if share is None else "%g %%" % share, "Refused": "%d" % values["refused"],
                  "Processes": "%d" % values["processes"]}
        check({name: row[name] for name in wanted} == wanted, "page", key, row, wanted)
    return "the page too"


# ---- the whole

def compare(alpha, zeta):
    books, document = Books(), json.loads(softslice("status", "--json"))
    expected = from_document(document)
    pids = {"alpha": alpha.pid, "zeta": zeta.pid}
    check(sorted(expected) == sorted((tenant, uuid) for tenant in pids for uuid in books.uuid), "tenants", list(expected))
    for (tenant, uuid), values in expected.items():
        check(values["current"] == books.held[books.uuid.index(uuid)][pids[tenant]], "current", tenant, uuid, values, books.held)
        check(values["processes"] == 1, tenant, values)
    gpus = {gpu["uuid"]: gpu for gpu in document["gpus"]}
    check([(gpus[uuid]["memory_used_bytes"], gpus[uuid]["memory_total_bytes"]) for uuid in books.uuid] == list(zip(books.used, books.total)), "GPUs", gpus)
    # Everything is there and none of it is what anything is when nothing was done.
    first = expected["zeta", books.uuid[0]]
    check(first["refused"] == 2 and first["busy"] and first["throttled"] and first["periods"] and first["throttled_periods"], first)
    check(len({values["current"] for values in expected.values()}) == 4 and "busy" not in expected["alpha", books.uuid[0]], expected)

    compare_table(expected, books.uuid)
    top, top_gpus = from_top(softslice("top", "--batch", "--iterations", "1", "--interval", "0.3"))
    wanted = {key: {k: v for k, v in values.items() if k in ("processes", "current", "limit", "peak", "weight", "refused", "share")}
              for key, values in expected.items()}
    check(top == wanted, "top", top, wanted)
    for gpu, uuid in enumerate(books.uuid):
        row = top_gpus[uuid]
        check([int(row[name]) for name in ("INDEX", "USED", "TOTAL", "CURRENT")] == [gpu, books.used[gpu], books.total[gpu], sum(books.held[gpu].values())],
              "top's GPU", row)

    exporter = Exporter(COMMAND, os.environ)
    try:
        metrics = from_metrics(exporter.get("metrics"))
        check(metrics == expected, "metrics", metrics, expected)
        softslice("exporter", "--textfile", os.path.join(TMP, "softslice.prom"), "--interval", "0")
        with open(os.path.join(TMP, "softslice.prom"), encoding="utf-8") as text:
            check(from_metrics(text.read()) == expected, "the textfile")
        page_data = exporter.status()
        check(from_document(page_data) == expected and page_data["gpus"] == document["gpus"], "the page's data", page_data)
        said = compare_page(exporter, expected, books.uuid)
    finally:
        exporter.end()
    check(json.loads(softslice("status", "--json"))["tenants"] == document["tenants"], "something went on meanwhile")
    return said, [(books.uuid.index(uuid), pids[tenant], values["busy"]) for (tenant, uuid), values in expected.items() if "busy" in values]


def main():
    with holding(["--tenant", "zeta", "--vram", "1111111111", "--compute", "37.25%", "--weight", "123"], "take:0:123456789", "take:1:98765433",
                 "refused:0:1073741824", "refused:0:1073741825", "launch:0:1234:99", "launch:1:777:33") as zeta, \
            holding(["--tenant", "alpha", "--vram", "0=1573741824"], "take:0:1234567", "take:0:33333333", "take:1:7654321") as alpha:
        said, busy = compare(alpha, zeta)
    check(os.path.getsize(TIMELINE) > 0, "no timeline")
    for gpu, pid, told in busy:
        Books().check_busy(gpu, pid, told)
    print("all agree; " + said)


if __name__ == "__main__":
    sys.exit(main())
