#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""The page of the real exporter, with tenants on two simulated GPUs: what it shows is what /metrics says, and it asks nobody else for anything."""
import os
import re
import sys

from browser import Browser
from exporter_live import Exporter, Worker
from page import ROWS, check, check_bars, check_names, equal

GIB = 1 << 30
BROKEN = "<img src=x onerror=alert(1)>"
SAMPLE = re.compile(r'^(softslice_\w+)\{(.*)\} (\S+)$', re.M)


def metrics(exporter):
    """{(name, tenant, gpu): value}, events apart."""
    found = {}
    for name, labels, value in SAMPLE.findall(exporter.get("metrics")):
        labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        found[name, labels.get("tenant"), labels.get("gpu"), labels.get("event")] = float(value)
    return found


def gib(size):
    return "< 0.01 GiB" if 0 < size < GIB / 200 else "%.2f GiB" % (size / GIB)


def check_page(browser, exporter, tenants):
    """All numbers of memory, against /metrics."""
    seen, rows = metrics(exporter), {}
    cards = browser.eval("[...document.querySelectorAll('section.gpu .title code')].map((c) => c.textContent)")
    for i, card in enumerate(cards):
        for row in browser.eval(ROWS.replace("section.gpu", "section.gpu:nth-of-type(%d)" % (i + 1))):
            rows[row["Tenant"], card] = row
    # On the other GPU each is known, and has nothing.
    used = ("softslice_memory_peak_bytes", "softslice_gpu_busy_seconds_total")
    expected = {(tenant, card) for (name, tenant, card, _), value in seen.items() if name in used and value > 0}
    equal(set(rows), expected, "the rows")
    equal({tenant for tenant, _ in rows}, tenants, "the tenants")
    for (tenant, card), row in rows.items():
        def value(name, event=None, key=(tenant, card)):
            return seen.get(("softslice_" + name, *key, event))
        limit, share = value("memory_limit_bytes"), value("compute_share_ratio")
        for column, name in (("In use", "memory_current_bytes"), ("Peak", "memory_peak_bytes")):
            equal(row[column].split("\n")[0], "–" if value(name) is None else gib(value(name)), "%s: %s" % (tenant, column))
        equal(row["Limit"], gib(limit) if limit is not None else "not limited", "%s: limit" % tenant)
        equal(row["Share"].split("\n")[0], "%.0f %%" % (100 * share) if share is not None and share < 1 else "not limited", "%s: share" % tenant)
        equal(row["Refused"].split("\n")[0], "%d" % value("memory_events_total", "refused"), "%s: refused" % tenant)
        equal(row["Processes"].split("\n")[0], "%d" % seen["softslice_processes", tenant, None, None], "%s: processes" % tenant)


def main():
    command, tmp = os.environ["TEST_COMMAND"], os.environ["TEST_TMP"]
    environment = dict(os.environ, SOFTSIM_GPUS="2", SOFTSIM_MEM="24G")
    workers = []
    try:
        for name, gpu, limits in (("vision", 0, {"vram": "7919MiB", "compute": "40%"}), ("vision", 0, {"vram": "7919MiB", "compute": "40%"}),
                                  ("speech", 0, {"vram": "4GiB"}), ("nightly", 1, {"compute": "30%"}), (None, 1, {})):
            workers.append(Worker(command, environment, name, gpu, **limits))
        vision, second, speech, nightly, other = workers
        for worker, size in ((vision, 1234.5), (second, 777), (speech, 2345), (nightly, 3456.7), (other, 1111)):
            check(worker.ask("take", size).startswith("took"), "no memory for the test")
        check(vision.ask("take", 7000).startswith("refused"), "nothing was refused")
        vision.ask("work", 5, 50)
        nightly.ask("work", 30, 40)
        # Nobody stops anybody from making a folder.
        os.mkdir(os.path.join(tmp, "state", BROKEN), 0o700)
        with open(os.path.join(tmp, "state", BROKEN, "ledger"), "wb") as file:
            file.write(b"no ledger" * 1000)
        exporter = Exporter(command, environment)
        workers.append(exporter)
        with Browser() as browser:
            browser.media(prefers_reduced_motion="reduce")
            browser.open(exporter.url)
            browser.until("document.querySelectorAll('section.gpu tbody > tr').length === 3")
            tenants = {"vision", "nightly", "speech"}
            # What was there before the first look is counted; a refusal after it is drawn.
            browser.until("document.querySelectorAll('.chart .busy:not([d=\"\"])').length >= 2")
            check(vision.ask("take", 7000).startswith("refused"), "nothing was refused")
            browser.until("document.querySelectorAll('.chart .no:not([d=\"\"])').length === 1")
            browser.until("document.querySelector('section.gpu tbody').innerText.includes('\\n1 in ')")
            check_page(browser, exporter, tenants)
            status = exporter.status()
            readable = dict(status, tenants=[t for t in status["tenants"] if "unreadable" not in t])
            for i in range(2):
                check_bars(browser, readable, i)
            check_names(browser)
            check(BROKEN + " in " in browser.eval("document.querySelector('main').innerText"), "the unreadable tenant is not named")
            others = browser.eval("document.querySelectorAll('section.gpu tfoot')[1].rows[0].innerText")
            check(gib((1111 + 1 + 512) * (1 << 20)) in others.replace("\u00a0", " "), "what is used by others: " + others)
            busy = browser.eval(ROWS.replace("section.gpu", "section.gpu:nth-of-type(2)"))[0]
            check(float(busy["Busy"].split()[0]) > 1 and float(busy["Throttled"].split()[0]) > 1, "nightly does nothing: %s" % busy)
            # More is taken, and the page follows.
            check(speech.ask("take", 300).startswith("took"), "no memory for the test")
            browser.until("document.querySelector('section.gpu tbody').innerText.includes('%s')" % gib((2346 + 300 + 512) * (1 << 20)).replace(" ", "\u00a0"))
            check_page(browser, exporter, tenants)
            equal(browser.complaints(), [], "complaints")
            for url in browser.requests():
                check(url.startswith((exporter.url, "data:image/svg")), "a request to " + url)
            exporter.process.kill()
            browser.until("!document.getElementById('trouble').hidden")
            environment["PORT"] = exporter.url.split(":")[-1].strip("/")
            workers.append(Exporter(command, environment, "127.0.0.1:" + environment.pop("PORT")))
            browser.until("document.getElementById('trouble').hidden")
    finally:
        for worker in workers:
            worker.end()
    print("the page shows what the exporter tells")


if __name__ == "__main__":
    sys.exit(main())
