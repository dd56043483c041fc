#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""The exporter's page in a headless Chromium, fed by a server of this test's own with documents as they may come: whole, with much missing, with names
that are HTML, with none or 60 tenants, or not at all."""
import copy
import http.server
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading

from browser import Browser

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "cli", "exporter", "page.html")
GIB = 1 << 30
GPUS = ["GPU-5d7a1c3e-0b42-4e19-9a55-1f0c7c2b8e01", "GPU-11111111-2222-3333-4444-555555555555"]
checks = 0


def check(true, words):
    global checks
    checks += 1
    if not true:
        raise AssertionError(words)


def equal(seen, expected, words):
    check(seen == expected, "%s: %r, expected %r" % (words, seen, expected))


# ---- the server


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.status, self.history, self.answer = {}, {}, 200
        with open(PAGE, "rb") as file:
            self.page = file.read()
        command = [os.path.join(ROOT, "scripts", "embed-page"), "--policy", PAGE]
        self.policy = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def end(self):
        self.shutdown()
        self.server_close()

    url = property(lambda self: "http://127.0.0.1:%d/" % self.server_port)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        documents = {"/": (self.server.page, "text/html; charset=utf-8"), "/api/v1/status": (self.server.status, "application/json"),
                     "/api/v1/history": (self.server.history, "application/json")}
        body, kind = documents.get(self.path, (None, ""))
        if body is None or (self.server.answer != 200 and self.path != "/"):
            self.send_error(404 if body is None else self.server.answer)
            return
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", len(body)), ("Content-Security-Policy", self.server.policy)):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# ---- documents: docs/status.schema.json and the exporter's history


def device(i, uuid=GPUS[0], vram=None, compute=None):
    current = int((1.2345 + 0.731 * i) * GIB)
    return {"gpu": uuid,
            "vram": {"limit_bytes": int((3.5 + i) * GIB), "current_bytes": current, "peak_bytes": int(current * 1.1), "tentative_bytes": 0, "spilled_bytes": 0,
                     "context_bytes": GIB // 2, "events": {"refused": i, "oom": 0, "buried": 0, "underflow": 0}, **(vram or {})},
            "compute": {"share_percent": 30.0, "weight": 100, "busy_ns": 12500000000, "throttled_ns": 1500000000, "forgiven_ns": 0, "nr_periods": 100,
                        "nr_throttled": 7, "turns_taken": 1, "turns_lost": 0, **(compute or {})}}


def tenant(i, name=None, devices=None, members=2):
    state = ("running", "checkpointed", "dead")
    return {"tenant": name or "tenant-%02d" % i, "state_directory": "/run/softslice", "uid": 1000, "processes": members, "armed": ["vram", "compute"],
            "devices": devices if devices is not None else [device(i)],
            "members": [{"pid": 10 + j, "host_pid": 4000 + 10 * i + j, "pid_namespace": 4026531836, "command": "python3", "state": state[j % 3],
                         "devices": [{"gpu": GPUS[0], "committed_bytes": GIB // 2, "tentative_bytes": 0, "spilled_bytes": 0}]} for j in range(members)]}


def gpu(index=0, uuid=GPUS[0], total=80 * GIB, used=60 * GIB):
    return {"uuid": uuid, "index": index, "name": "A GPU", "memory_total_bytes": total, "memory_used_bytes": used}


def document(tenants, gpus=None, **more):
    return {"version": 1, "softslice": "0.1.0", "time": "2027-01-15T08:00:00.000000000Z", "clock_ns": 1, "gpus": [gpu()] if gpus is None else gpus,
            "tenants": tenants, "omitted": 0, "warnings": [], **more}


def history(status, points=150, refused_at=None):
    def one(tenant_, device_):
        return {"tenant": tenant_["tenant"], "directory": tenant_["state_directory"], "gpu": device_["gpu"],
                "busy": [0.25 + 0.2 * math.sin(k / 9) if k % 40 > 4 else None for k in range(points)], "throttled": [0.125] * points,
                "current": [device_["vram"].get("current_bytes")] * points,
                "refused": [int(k == refused_at) for k in range(points)]}

    return {"interval_seconds": 1, "omitted": 0, "when": [1.8e9 + k for k in range(points)],
            "series": [one(t, d) for t in status["tenants"] for d in t.get("devices", [])]}


# ---- what is asked of the page, in its own words

# Each text that can be seen: [its element, text, contrast with what is behind it], and what else has to stand out.
CONTRAST = r"""(() => {
    const rgb = (c) => { const m = c.match(/[\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] ?? 1]; };
    const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
    const light = (c) => {
        const l = c.slice(0, 3).map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * l[0] + .7152 * l[1] + .0722 * l[2];
    };
    const ratio = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + .05) / (Math.min(x, y) + .05); };
    const behind = (e) => {
        let stack = [];
        for (; e; e = e.parentElement) {
            const s = getComputedStyle(e), c = rgb(s.backgroundColor);
            if (s.backgroundImage !== "none") throw new Error("text on a pattern: " + e.outerHTML.slice(0, 80));
            stack.push(c);
            if (c[3] === 1) break;
        }
        return stack.reverse().reduce((b, a) => over(a, b), [255, 255, 255, 1]);
    };
    const texts = [], parts = [], all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (all.nextNode()) {
        const e = all.currentNode.parentElement, box = e.getBoundingClientRect();
        if (!all.currentNode.data.trim() || e.closest(".sr, script, style") || box.width < 2 || !e.checkVisibility()) continue;
        const b = behind(e);
        texts.push([e.tagName + "." + e.className, all.currentNode.data.slice(0, 40), ratio(over(rgb(getComputedStyle(e).color), b), b)]);
    }
    const part = (what, color, e) => parts.push([what, ratio(over(rgb(color), behind(e)), behind(e))]);
    for (const e of document.querySelectorAll(".use i, .meter i"))
        if (!e.matches(".others, .free"))
            part(e.parentElement.className + " " + e.className, getComputedStyle(e).backgroundColor, e.parentElement);
    for (const e of document.querySelectorAll(".chart path:not(.area)"))
        part("chart " + e.getAttribute("class"), getComputedStyle(e).stroke, e.closest("td"));
    for (const e of document.querySelectorAll("button, select"))
        part(e.tagName, getComputedStyle(e).borderTopColor, e.parentElement);
    for (const e of document.querySelectorAll(".promise i"))
        part("limit", getComputedStyle(e).borderLeftColor, e);
    return {texts, parts};
})()"""

ROWS = """[...document.querySelectorAll("section.gpu > table > tbody > tr:not(.detail)")].map((tr) => Object.fromEntries(
    [...tr.children].map((c) => [c.dataset.l ?? "Tenant", (c.dataset.l ? c : c.querySelector("bdi")).innerText.trim().replaceAll("\\u00a0", " ")])))"""


def show(browser, server, status, past=None, ready="document.querySelector('main section')"):
    server.status, server.history = status, history(status) if past is None else past
    browser.open(server.url)
    browser.until(ready)


def clean(browser, server):
    """No error, no request to anywhere else."""
    browser.listen()
    equal(browser.complaints(), [], "complaints")
    for url in browser.requests():
        check(url.startswith("data:image/svg") or url in [server.url + path for path in ("", "api/v1/status", "api/v1/history")], "a request to " + url)


def check_bars(browser, status, which=0):
    """The bars of a GPU are as wide as the numbers are large, to half a pixel."""
    card = status["gpus"][which]
    found = browser.eval("""(() => {
        const card = document.querySelectorAll("section.gpu")[%d], rows = [...card.querySelectorAll("tbody > tr:not(.detail)")];
        const boxes = (lane) => [...card.querySelectorAll(lane + " > i")].map((i) => {
            const a = i.getBoundingClientRect(), b = i.parentElement.getBoundingClientRect();
            return [i.title, (a.left - b.left) / b.width, a.width / b.width, b.width];
        });
        const meter = (r) => {
            const m = r.querySelector(".meter"), w = m.getBoundingClientRect().width;
            return [r.querySelector("bdi").textContent, m.firstChild.getBoundingClientRect().width / w, w];
        };
        return {use: boxes(".use"), promise: boxes(".promise"), meter: rows.map(meter)};
    })()""" % which)
    devices = [(t["tenant"], d["vram"]) for t in status["tenants"] for d in t.get("devices", []) if d["gpu"] == card["uuid"] and d["vram"]["peak_bytes"]]
    expected = [(name, v["current_bytes"]) for name, v in devices if v["current_bytes"]]
    ours = sum(size for _, size in expected)
    expected += [("others", card["memory_used_bytes"] - ours), ("free", card["memory_total_bytes"] - card["memory_used_bytes"])]
    expected = [part for part in expected if part[1]]
    for lane, sizes in (("use", expected), ("promise", [(name, v["limit_bytes"]) for name, v in devices if "limit_bytes" in v])):
        equal([title.rsplit(": ", 1)[0] for title, *_ in found[lane]], [name for name, _ in sizes], lane)
        at = 0
        for (title, left, width, whole), (_, size) in zip(found[lane], sizes):
            check(abs(left - at / card["memory_total_bytes"]) * whole < 0.5, "%s: %s begins at %g" % (lane, title, left))
            check(abs(width - size / card["memory_total_bytes"]) * whole < 0.5, "%s: %s is %g wide" % (lane, title, width))
            at += size
    meters = {name: (part, width) for name, part, width in found["meter"]}
    for name, v in devices:
        part = min(1, v["current_bytes"] / v.get("limit_bytes", card["memory_total_bytes"]))
        check(abs(meters[name][0] - part) * meters[name][1] < 0.5, "the meter of %s: %g" % (name, meters[name][0]))


def check_contrast(browser, where):
    seen = browser.eval(CONTRAST)
    check(len(seen["texts"]) > 40 and len(seen["parts"]) > 20, "nothing was looked at")
    for element, words, ratio in seen["texts"]:
        check(ratio >= 4.5, "%s: the contrast of %r in %s is %.2f" % (where, words, element, ratio))
    for what, ratio in seen["parts"]:
        check(ratio >= 3, "%s: the contrast of %s is %.2f" % (where, what, ratio))


def check_names(browser):
    """Everything that a screen reader stops at has a name; the landmarks are there; the table is one."""
    nodes = browser.tree()
    roles = [role for role, _ in nodes]
    for role in ("banner", "main", "contentinfo", "region", "table", "columnheader", "rowheader", "status", "heading"):
        check(role in roles, "no %s in the accessibility tree" % role)
    for role, name in nodes:
        if role in ("image", "img", "button", "combobox", "link", "region", "main", "heading", "columnheader", "rowheader", "SvgRoot"):
            check(name.strip(), "a %s without a name" % role)
    rows = browser.eval("document.querySelectorAll('section.gpu > table > tbody > tr:not(.detail), tfoot > tr').length")
    equal(roles.count("rowheader"), rows, "rows with a head")
    levels = browser.eval("[...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName)")
    check(levels[0] == "H1" and levels.count("H1") == 1 and set(levels[1:]) == {"H2"}, "headings: %s" % levels)
    check(browser.eval("document.documentElement.lang"), "no language")
    duplicates = browser.eval("(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.length - new Set(ids).size; })()")
    equal(duplicates, 0, "ids that occur twice")


# ---- the cases


def whole(browser, server):
    status = document([tenant(i) for i in range(9)], [gpu(), gpu(1, GPUS[1], 24 * GIB, 3 * GIB)])
    status["tenants"][2]["devices"].append(device(0, GPUS[1]))
    status["tenants"].append({"tenant": "broken", "state_directory": "/run/softslice", "uid": 7, "unreadable": "not a ledger"})
    show(browser, server, status, history(status, refused_at=100))
    clean(browser, server)
    for width in (1280, 1000, 320):
        browser.size(width, 800)
        check_bars(browser, status)
        check_bars(browser, status, 1)
    for scheme in ("light", "dark"):
        browser.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        browser.eval("document.querySelector('td button').getAttribute('aria-expanded') === 'true' || document.querySelector('td button').click()")
        for width in (1280, 320):
            browser.size(width, 800)
            check_contrast(browser, "%s, %d px" % (scheme, width))
            check_names(browser)
    browser.size(1280, 800)
    row = browser.eval(ROWS)[1]
    expected = {"Tenant": "tenant-01", "In use": "1.97 GiB\n43.7 %", "Limit": "4.50 GiB", "Peak": "2.16 GiB", "Busy": "40.0 %", "Throttled": "12.5 %",
                "Share": "30 %\nweight 100", "Refused": "1\n1 in 2 min", "Processes": "2\n1 checkpointed"}
    busy = 100 * (0.25 + 0.2 * math.sin(149 / 9))
    expected["Busy"] = "%.1f %%" % busy
    equal({k: v for k, v in row.items() if k in expected}, expected, "the row of tenant-01")
    foot = browser.eval("[...document.querySelector('section.gpu tfoot').children].map((r) => r.innerText.replace(/\\s+/g, ' ').trim())")
    others = 60 * GIB - sum(int((1.2345 + 0.731 * i) * GIB) for i in range(9))
    equal(foot, ["Others, and tenants that cannot be read %.2f GiB %.1f %% of card" % (others / GIB, 100 * others / 80 / GIB), "Free 20.00 GiB 25.0 % of card",
                 "The card 80.00 GiB"], "below the table")
    check("broken in /run/softslice: not a ledger" in browser.eval("document.querySelector('main').innerText"), "the unreadable tenant is not named")
    paths = browser.eval("Object.fromEntries([...document.querySelector('.chart').children].map((p) => [p.getAttribute('class'), p.getAttribute('d')]))")
    equal(paths["busy"].count("M"), 4, "pieces of the line of busy, parted where it is not known")
    equal(paths["held"].count("M"), 1, "pieces of the line of throttled")
    check(paths["held"].startswith("M0 35.3L") and paths["held"].endswith("L300 35.3"), "throttled is not drawn at an eighth: " + paths["held"])
    check(paths["no"].count("M") == 1 and abs(float(paths["no"][1:].split(" ")[0]) - 300 * 100 / 149) < 0.2, "the refusal is drawn at " + paths["no"])
    equal(paths["cap"], "M0 28.6H300", "the share's line")


def narrow(browser, server):
    status = document([tenant(0), tenant(1, "n" * 200, members=5), tenant(2, "w " * 100, [device(2, compute={"weight": 10000})], members=12)])
    status["tenants"][0]["devices"][0]["vram"].update(limit_bytes=141 * GIB, current_bytes=140 * GIB, peak_bytes=150 * GIB, spilled_bytes=100 * GIB)
    show(browser, server, status, history(status, refused_at=20))
    for width in (320, 360, 768, 1139, 1140, 1280, 2560):
        browser.size(width, 700)
        for button in (False, True):
            if button:
                browser.eval("document.querySelectorAll('td button[aria-expanded=false]').forEach((b) => b.click())")
            wide = browser.eval("document.documentElement.scrollWidth")
            check(wide <= width, "%d px wide, and the page is %d" % (width, wide))
            outside = browser.eval("""[...document.querySelectorAll("main *")].filter((e) => !e.closest(".sr, .lane, .meter, thead, svg, caption")
                && e.checkVisibility() && (e.getBoundingClientRect().right > innerWidth + .5 || e.getBoundingClientRect().left < -.5))
                .map((e) => e.outerHTML.slice(0, 80))""")
            equal(outside, [], "outside of %d px" % width)
            full = browser.eval("""[...document.querySelectorAll("td, th")].filter((e) => e.checkVisibility() && !e.closest("thead")
                && e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText)""")
            equal(full, [], "too much for its cell at %d px" % width)
        browser.eval("document.querySelectorAll('td button[aria-expanded=true]').forEach((b) => b.click())")
    browser.size(320, 700)
    small = browser.eval("[...document.querySelectorAll('button, select')].filter((b) => b.getBoundingClientRect().height < 32).length")
    equal(small, 0, "controls too small for a finger")
    browser.size(1280, 800)


def missing(browser, server):
    """What is not known is a dash or "not limited", never 0."""
    bare = {"gpu": GPUS[0]}
    status = document([tenant(0, "bare", [bare]), tenant(1, "unlimited", [{"gpu": GPUS[0], "vram": {"current_bytes": GIB, "peak_bytes": GIB}}]),
                       tenant(2, "elsewhere", [device(2, GPUS[1])]), tenant(3, "none-yet", [])])
    status["gpus"] = [{"uuid": GPUS[0], "name": "A GPU"}]
    show(browser, server, status, {"interval_seconds": 1, "when": [], "series": []})
    clean(browser, server)
    rows = {row["Tenant"]: row for row in browser.eval(ROWS)}
    for key in ("In use", "Peak", "Busy", "Throttled", "Refused"):
        equal(rows["bare"][key], "–\nnot known", key)
    for key in ("Limit", "Share"):
        equal(rows["bare"][key], "not limited", key)
    equal(rows["unlimited"]["In use"], "1.00 GiB", "in use")
    text = browser.eval("document.querySelector('main').innerText")
    for words in ("size and use of the card: not known", "Tenants without a GPU so far", "none-yet", GPUS[1]):
        check(words in text, words)
    check("0.00" not in text and "0.0\u00a0%" not in text and "NaN" not in text and "undefined" not in text and "null" not in text, "made-up numbers: " + text)
    for past in ({}, {"when": [1], "series": [{}]}, {"when": None, "series": 3}):
        server.history = past
        browser.eval("poll()")
        clean(browser, server)
    show(browser, server, document([tenant(0, "no-history")]), b"")
    equal(browser.eval(ROWS)[0]["Busy"], "–\nnot known", "busy, without a history")
    check(browser.eval("document.getElementById('trouble').hidden"), "no history is no trouble")
    # A tenant knows each GPU that it could use.
    unused = device(1, vram={"current_bytes": 0, "peak_bytes": 0, "events": {"refused": 0}}, compute={"busy_ns": 0})
    show(browser, server, document([tenant(0), tenant(1, "u" * 100, [unused])]))
    equal([row["Tenant"] for row in browser.eval(ROWS)], ["tenant-00"], "who uses the GPU")
    words = "It was never used by %s, who could (limits of 4.50\u00a0GiB)." % ("u" * 100)
    check(words in browser.eval("document.querySelector('main').innerText"), "who could use it is not told")
    # A card that is promised twice over, and a tenant over its limit that was lowered.
    status = document([tenant(0, devices=[device(0, vram={"limit_bytes": 60 * GIB})]), tenant(1, devices=[device(1, vram={"limit_bytes": 100 * GIB})]),
                       tenant(2, devices=[device(2, vram={"limit_bytes": GIB // 2})])])
    show(browser, server, status)
    check_bars(browser, status)
    text = browser.eval("document.querySelector('main').innerText.replaceAll('\\u00a0', ' ')")
    for words in ("The limits add up to 160.50 GiB, 201 % of the card; they are not drawn past its end.", "2.20 GiB over"):
        check(words in text, words + " is not in " + text)


def few_and_many(browser, server):
    show(browser, server, document([]))
    check("No tenant uses it" in browser.eval("document.querySelector('main').innerText"), "no tenants")
    show(browser, server, document([], []))
    check("No GPU" in browser.eval("document.querySelector('main').innerText"), "no GPUs")
    clean(browser, server)
    status = document([tenant(i, devices=[device(i % 7)]) for i in range(60)], [gpu(used=78 * GIB)], omitted=3)
    for t in status["tenants"]:
        t["devices"][0]["vram"]["current_bytes"] //= 4
    show(browser, server, status)
    clean(browser, server)
    check_bars(browser, status)
    equal(len(set(browser.eval("[...document.querySelectorAll('tbody .key')].map((k) => k.textContent)"))), 60, "numbers of 60 tenants")
    check("3\u00a0more tenants not shown" in browser.eval("document.querySelector('main').innerText"), "that some are left out")
    # Some go, some come: those that stay keep their number and their place.
    numbers = """Object.fromEntries([...document.querySelectorAll("tbody > tr")].map((r) =>
        [r.querySelector("bdi").textContent, r.querySelector(".key").textContent]))"""
    before = browser.eval(numbers)
    status["tenants"] = [tenant(60 + i) for i in range(2)] + status["tenants"][10:]
    browser.until("document.querySelectorAll('tbody > tr').length === 52")
    after = browser.eval(numbers)
    equal({k: v for k, v in after.items() if k in before}, {k: v for k, v in before.items() if k in after}, "the numbers of those that stay")
    equal(len(set(after.values())), 52, "numbers")


def foreign_names(browser, server):
    names = ["<img src=x onerror=pwned=1>", "<script>pwned=1</script>", "\"><svg onload=pwned=1>", "{{7*7}}", "&lt;b&gt;", "a\u202eb", "__proto__",
             "constructor", "</td></tr></table><h1>no</h1>", "javascript:pwned=1", "'];pwned=1//", "x" * 200]
    status = document([{**tenant(i, name), "pod": name, "namespace": name, "container": name} for i, name in enumerate(names)]
                      + [{"tenant": names[0], "state_directory": names[1], "uid": 0, "unreadable": names[2]}], [{**gpu(), "name": names[0]}], warnings=names)
    for member in (m for t in status["tenants"] for m in t.get("members", [])):
        member.update(command=names[0], state=names[1])
    show(browser, server, status)
    browser.eval("document.querySelectorAll('td button').forEach((b) => b.click())")
    clean(browser, server)
    equal(browser.eval("[typeof pwned, document.querySelectorAll('main img, main script, main b svg, main h1').length]"), ["undefined", 0], "HTML in names")
    equal([row["Tenant"] for row in browser.eval(ROWS)][:2], names[:2], "names")
    html = """(() => { try { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=pwned=1>"); } catch { return "refused"; } })()"""
    equal(browser.eval(html), "refused", "HTML, under the policy")
    browser.events.clear()


def nonsense(browser, server):
    """Documents with anything in the place of anything: the page stays, and no script fails."""
    generator = random.Random(4)
    values = [None, 0, -1, 1e300, "x", "", [], {}, True, [[]], {"a": 1}, 2**63]

    def spoil(value):
        if generator.random() < 0.06:
            return generator.choice(values)
        if isinstance(value, dict):
            return {k: spoil(v) for k, v in value.items()}
        return [spoil(v) for v in value[:8]] if isinstance(value, list) else value

    base = document([tenant(i) for i in range(4)])
    past = history(base, 8)
    show(browser, server, base)
    for i in range(40):
        server.status, server.history = spoil(copy.deepcopy(base)), spoil(copy.deepcopy(past))
        server.status = server.status if isinstance(server.status, dict) else {}
        browser.eval("poll()")
        browser.listen(0.01)
        equal(browser.eval("byId('trouble').hidden || byId('trouble').textContent"), True, "trouble with document %d" % i)
    clean(browser, server)


def gone(browser, server):
    """The server goes and comes back; a screen reader hears of both once, and of nothing else."""
    status = document([tenant(0)])
    show(browser, server, status)
    browser.eval("""spoken = []; new MutationObserver(() => spoken.push(byId("say").textContent)).observe(byId("say"),
        {childList: true, characterData: true, subtree: true}); 0""")
    for _ in range(3):
        browser.eval("poll()")
    equal(browser.eval("spoken"), [], "spoken while nothing happens")
    port = server.server_port
    server.end()
    browser.until("!document.getElementById('trouble').hidden")
    words = browser.eval("document.getElementById('trouble').textContent")
    check("No answer from the exporter since" in words and "Trying again every" in words, words)
    browser.eval("poll()")
    browser.eval("poll()")
    check("tenant-00" in browser.eval("document.querySelector('main').innerText"), "the last numbers are gone too")
    new = Server(port)
    new.status, new.history = status, history(status)
    browser.until("document.getElementById('trouble').hidden")
    equal(browser.eval("spoken"), ["The exporter does not answer. What is shown is old; trying again.", "The exporter answers again."], "spoken")
    for status_, answer, words in ((b"<html>", 200, "not JSON"), ({}, 503, "503")):
        new.status, new.answer = status_, answer
        browser.eval("poll()")
        browser.until("document.getElementById('trouble').textContent.includes('%s')" % words)
    new.status, new.answer = status, 200
    browser.eval("poll()")
    browser.until("document.getElementById('trouble').hidden")
    return new


def by_hand(browser, server):
    """By the keyboard alone; what has the focus keeps it while rows change and move."""
    status = document([tenant(i) for i in range(3)])
    show(browser, server, status)
    reached = []
    for _ in range(9):
        browser.press("Tab")
        reached.append(browser.eval("document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"))
        if browser.eval("document.activeElement !== document.body"):
            check(browser.eval("getComputedStyle(document.activeElement).outlineStyle") != "none", "no ring around " + reached[-1])
    details = ["2\u00a0processes of tenant-%02d: details" % i for i in range(3)]
    equal(reached[:8], ["sort", "pause"] + details + ["metrics", "status", "history"], "reached by Tab")
    browser.eval("document.querySelectorAll('td button')[2].focus()")
    browser.press("Enter")
    browser.until("document.querySelectorAll('tr.detail').length === 1")
    text = browser.eval("document.querySelector('tr.detail').innerText")
    for words in ("checkpointed", "4020", "python3", "/run/softslice", "7 of 100"):
        check(words in text, "%s is not in %s" % (words, text))
    browser.eval("byId('sort').value = 'current'; byId('sort').dispatchEvent(new Event('change'))")
    equal([row["Tenant"] for row in browser.eval(ROWS)], ["tenant-02", "tenant-01", "tenant-00"], "sorted by memory in use")
    equal(browser.eval("document.activeElement.getAttribute('aria-label')"), details[2], "the focus after sorting")
    server.status = document([tenant(0), tenant(2)])
    browser.until("document.querySelectorAll('section.gpu > table > tbody > tr:not(.detail)').length === 2")
    equal(browser.eval("document.activeElement.getAttribute('aria-label')"), details[2], "the focus after a tenant went")
    browser.press(" ")
    browser.until("document.querySelectorAll('tr.detail').length === 0")
    # Pause stops asking.
    browser.eval("byId('pause').focus()")
    browser.press("Enter")
    equal(browser.eval("byId('pause').textContent"), "Go on", "the button")
    browser.listen(0.2)
    before = len(browser.requests())
    browser.listen(1.5)
    equal(len(browser.requests()), before, "requests while paused")
    browser.press("Enter")
    browser.wait_for(lambda: len(browser.requests()) > before)


def motion(browser, server):
    show(browser, server, document([tenant(0)]))
    duration = "getComputedStyle(document.querySelector('.use i')).transitionDuration"
    browser.media(prefers_reduced_motion="no-preference")
    check(browser.eval(duration) != "0s", "nothing moves at all")
    browser.media(prefers_reduced_motion="reduce")
    equal(browser.eval(duration), "0s", "motion where none is wanted")
    browser.media(forced_colors="active", prefers_reduced_motion="reduce")
    colors = browser.eval("['.use i', '.use'].map((e) => getComputedStyle(document.querySelector(e)).backgroundColor)")
    check(colors[0] != colors[1], "bars vanish in forced colors")
    browser.media(prefers_reduced_motion="reduce")


def main():
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    check(len(page.encode()) <= 40960, "the page has %d bytes" % len(page.encode()))
    for foreign in ("http://", "https://", "innerHTML", "@import", "eval("):
        check(foreign not in page.replace("http://www.w3.org/2000/svg", ""), "%s in the page" % foreign)
    server = Server()
    with Browser() as browser:
        browser.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
        for case in (whole, narrow, missing, few_and_many, foreign_names, nonsense, by_hand, motion, gone):
            try:
                server = case(browser, server) or server
            except Exception:
                print("FAILED: " + case.__name__, flush=True)
                browser.screenshot(os.path.join(os.environ.get("TEST_TMP", tempfile.gettempdir()), "page-failed.png"))
                raise
    server.end()
    print("%d checks passed" % checks)


if __name__ == "__main__":
    sys.exit(main())
