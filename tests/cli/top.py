#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# run: SOFTSIM_GPUS=2 SOFTSIM_MEM=85899345920
# timeout: 300
"""`softslice top` in a terminal of tmux's, and its --batch in pipes: keys, sizes, endings, and that its figures are status's."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from terminal import PATIENCE, Tenants, Terminal, wait_for

GIB = 1 << 30
BUILD, STATE, TMP = (os.environ[name] for name in ("TEST_BUILD", "SOFTSLICE_STATE_DIR", "TEST_TMP"))
COMMAND = os.environ["TEST_COMMAND"]
TOP = COMMAND + " top --interval 0.2 "
ENV = dict(os.environ, LC_ALL="C.UTF-8")
checks = 0


def check(true, words, seen=""):
    global checks
    checks += 1
    if not true:
        raise AssertionError("%s\n%s" % (words, seen))


def equal(seen, expected, words):
    check(seen == expected, words, "seen %r\nexpected %r" % (seen, expected))


def run(*words, env=None, stdin=subprocess.DEVNULL):
    return subprocess.run([COMMAND, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                          env=env or ENV, timeout=60)


def status():
    return json.loads(run("status", "--json").stdout)


def names(screen):
    """The tenants of the rows, from the top."""
    return re.findall(r"^[a-zA-Z][> ](?!quit)(\S+)", screen.split("STATE", 1)[-1], re.M)


def row(screen, name):
    found = [line for line in screen.split("\n") if re.match(r"[a-zA-Z][> ]" + re.escape(name) + r"\b", line)]
    check(found, "no row of " + name, screen)
    return found[0]


def top_pid():
    """The process of the program itself."""
    def is_ours(pid):
        try:
            with open("/proc/%s/environ" % pid, "rb") as environ:
                return ("SOFTSLICE_STATE_DIR=" + STATE + "\0").encode() in environ.read()
        except OSError:
            return False

    def find():
        found = subprocess.run(["pgrep", "-f", "^top .*--interval 0.2"], stdout=subprocess.PIPE, text=True, check=False).stdout.split()
        return [pid for pid in found if is_ours(pid)]
    return int(wait_for(lambda seen: len(seen) == 1, "not one process", find)[0])


# ---- on a terminal


def shows(terminal, tenants):
    terminal.start(TOP)
    screen = terminal.until("every 0.2 s")
    check("3 tenants" in screen and "2 GPUs" in screen, "the head line counts", screen)
    check(re.search(r"^GPU 0 +\[a.*b.*\] 27\.50 of 80\.00 GiB", screen, re.M), "a bar for GPU 0", screen)
    check(re.search(r"^GPU 1 +\[c.*\] 1\.00 of", screen, re.M), "a bar for GPU 1", screen)
    check("near limit" in row(screen, "alpha") and "19.50" in row(screen, "alpha") and "20.00" in row(screen, "alpha"), "alpha's row", screen)
    check(re.search(r"none +- +- +- ", row(screen, "gamma")), "nothing is known of gamma's compute", screen)

    def is_busy(screen):
        tenants("busy", "alpha", 0, 10000000)
        tenants("throttled", "alpha", 0, 5000000)
        return re.search(r"[1-9]\d*\.\d%.*near limit\+", row(screen, "alpha"))

    def is_refused(screen):
        tenants("refuse", "beta", 0)
        return re.search(r" \d+ \+\d+ refused", row(screen, "beta"))

    terminal.until(is_busy, "alpha is busy")
    terminal.until(is_refused, "beta is refused")
    terminal.until(lambda screen: re.search(r" \d+ ok", row(screen, "beta")), "beta was refused before")
    tenants("limit", "beta", 0, 2 * GIB)
    terminal.until(lambda screen: "over limit" in row(screen, "beta"), "beta has more than its limit")
    tenants("limit", "beta", 0, 10 * GIB)


def sorts(terminal):
    equal(names(terminal.until("by current")), ["alpha", "beta", "gamma"], "by current")
    terminal.keys("r")
    equal(names(terminal.until("reversed")), ["gamma", "beta", "alpha"], "reversed")
    terminal.keys("r")
    terminal.until(lambda screen: "reversed" not in screen)
    for key, count in (("s", 3), (">", 4), ("Right", 5), ("<", -2), (",", -3)):
        for _ in range(abs(count)):
            terminal.keys(key)
    terminal.until("by refused")
    terminal.keys("s", "s", "s")
    equal(names(terminal.until("by tenant")), ["alpha", "beta", "gamma"], "by tenant")
    terminal.keys("<", "<", "<", "<")
    terminal.until("by weight")
    terminal.keys("s", "s", "s", "s", "s", "s", "s")
    terminal.until("by current")


def filters(terminal):
    terminal.type("/")
    terminal.until(lambda screen: screen.rstrip("\n").endswith("/_"), "a line to type in")
    terminal.type("ETq")
    terminal.keys("BSpace")
    equal(names(terminal.until("with 'ET'")), ["beta"], "what is typed filters")
    terminal.keys("Enter")
    terminal.until("q quit")
    equal(names(terminal.screen()), ["beta"], "it stays")
    terminal.keys("Escape")
    terminal.until(lambda screen: len(names(screen)) == 3, "all again")
    terminal.type("/nobody")
    terminal.until("no tenant has that in its name")
    terminal.keys("Escape")
    terminal.until(lambda screen: len(names(screen)) == 3, "all again")


def selects(terminal):
    terminal.until(lambda screen: re.search(r"^.>alpha", screen, re.M))
    terminal.keys("Down")
    terminal.until(lambda screen: re.search(r"^.>beta", screen, re.M), "the next is selected")
    terminal.keys("r")
    terminal.until(lambda screen: re.search(r"^.>beta", screen, re.M) and "reversed" in screen, "it stays selected")
    terminal.keys("End", "r")
    terminal.until(lambda screen: re.search(r"^.>alpha", screen, re.M) and "reversed" not in screen, "so does the last")
    terminal.keys("End", "Up")
    terminal.until(lambda screen: re.search(r"^.>beta", screen, re.M))
    terminal.keys("Home")
    terminal.until(lambda screen: re.search(r"^.>alpha", screen, re.M))


def pages(terminal, tenants):
    tenants("join", "short", 1, 5 * GIB)
    tenants("hold", "short", 1, 4 * GIB)
    terminal.until(lambda screen: "short" in names(screen), "a new tenant shows")
    terminal.type("/short")
    terminal.until("with 'short'")
    terminal.keys("Enter", "m")
    screen = terminal.until("Members of short")
    check(re.search(r"^ +%d +%d  tenants +1 +4\.00" % (tenants.child.pid, tenants.child.pid), screen, re.M), "its member", screen)
    tenants("leave", "short")
    terminal.until("Members of short: it has ended")
    terminal.keys("m")
    terminal.until("no tenant has that in its name")
    terminal.keys("Escape", "h")
    terminal.until(lambda screen: "Keys" in screen and "is not known" in screen, "all of the help fits")
    terminal.resize(30, 6)
    terminal.until("by another \u2026")
    terminal.keys("End")
    terminal.until("is not known")
    terminal.resize(80, 24)
    terminal.keys("?")
    screen = terminal.until(lambda screen: len(names(screen)) == 3 and "every" in screen, "back among the living")
    check("short" not in screen, "who died is gone", screen)


def pauses(terminal, tenants):
    terminal.keys("p")
    terminal.until("PAUSED")
    before = terminal.screen()
    tenants("hold", "gamma", 1, 6 * GIB)
    time.sleep(0.7)
    equal(terminal.screen(), before, "nothing changes meanwhile")
    terminal.keys("Space")
    terminal.until(lambda screen: "PAUSED" not in screen and "6.00" in row(screen, "gamma"), "it goes on")
    tenants("hold", "gamma", 1, GIB)
    terminal.keys("+")
    terminal.until("every 0.25 s")
    terminal.keys("-", "-")
    terminal.until("every 0.1 s")


def resizes(terminal):
    for columns, lines in ((200, 50), (120, 9), (60, 12), (40, 8), (33, 7), (20, 5), (19, 5), (20, 4), (3, 2), (1, 1), (20, 5), (300, 5), (80, 24)):
        terminal.resize(columns, lines)
        if columns < 20 or lines < 5:
            said = ["too small: 20x5"[:columns].rstrip()] + [""] * (columns * lines == 1)  # ncurses cannot draw a terminal's last cell
            terminal.until(lambda screen: screen.strip("\n") in said, "that it is too small at %dx%d" % (columns, lines))
            continue
        screen = terminal.until(lambda screen: re.search(r"^.>alpha.*19\.50", screen, re.M) and re.search(r"\d\d:\d\d:\d\d", screen.split("\n")[0]),
                                "rows at %dx%d" % (columns, lines))
        check(max(map(len, screen.split("\n"))) <= columns and "[" not in "".join(line for line in screen.split("\n")[1:] if "GPU" not in line),
              "no rubbish at %dx%d" % (columns, lines), screen)
    for columns in range(80, 18, -7):
        terminal.resize(columns, 3 + columns // 4)
    terminal.resize(80, 24)
    terminal.until(lambda screen: re.search(r"^.>alpha.*19\.50", screen, re.M), "rows after many sizes")


def weighs(terminal, tenants):
    terminal.resize(200, 24)
    check("WEIGHT" not in terminal.until("PEAK"), "no weight, no column")
    tenants("compute", "beta", 0, 5000, 300)
    screen = terminal.until("WEIGHT")
    check(re.search(r" 30% +30 ", row(screen, "alpha")) and re.search(r" 50% +300 ", row(screen, "beta")), "weights", screen)
    terminal.resize(80, 24)
    terminal.until(lambda screen: "WEIGHT" not in screen, "as before")


def many(terminal, tenants):
    for i in range(200):
        tenants("join", "many-%03d" % i, i % 2, GIB)
        tenants("hold", "many-%03d" % i, i % 2, 1000000 * (i + 1))
    terminal.until("203 tenants")
    screen = terminal.until("rows 1-")
    count = len(names(screen))
    terminal.keys("NPage")
    terminal.until("rows 1-%d" % count)
    terminal.keys("NPage")
    screen = terminal.until(lambda screen: "rows 1-" not in screen, "a page on")
    terminal.keys("End")
    screen = terminal.until(lambda screen: re.search(r"^.>many-000 ", screen, re.M) and "of 203" in screen, "the least is last")
    equal(len(names(screen)), count, "the page is full")
    terminal.keys("PPage", "PPage", "Home")
    terminal.until(lambda screen: re.search(r"^.>alpha", screen, re.M) and "rows 1-" in screen, "the first again")
    terminal.keys("End")
    terminal.until(lambda screen: re.search(r"^.>many-000 ", screen, re.M))
    for i in range(200):
        tenants("leave", "many-%03d" % i)
    terminal.until(lambda screen: len(names(screen)) == 3 and re.search(r"^.>", screen, re.M), "one of those left is selected")


def hostile(terminal, tenants):
    """Names that no tenant gives itself, but a folder may have."""
    for i, name in enumerate(("evil\033[2J\007\u202eend", "\u6f22\u5b57-wide")):
        tenants("join", "old%d" % i, 0, GIB)
        tenants("hold", "old%d" % i, 0, 512 << 20)
        os.rename(os.path.join(STATE, "old%d" % i), os.path.join(STATE, name))
    screen = terminal.until(lambda screen: "-wide" in screen and "evil" in screen, "both are there")
    wide = next(line for line in screen.split("\n") if "-wide" in line)
    evil = next(line for line in screen.split("\n") if "evil" in line)
    check("evil?[2J??end" in evil, "its control characters are none", evil)
    equal(evil.index("0.50"), wide.index("0.50") + 2, "wide characters take two columns")
    plain = run("top", "--batch", "--interval", "0.1", "--iterations", "1").stdout
    check("evil?[2J??end " in plain and "\u6f22\u5b57-wide" in plain, "so in --batch", plain)
    ascii_only = run("top", "--batch", "--interval", "0.1", "--iterations", "1", env=dict(ENV, LC_ALL="C")).stdout
    check(ascii_only.isascii() and "-wide" in ascii_only, "ASCII in the C locale", ascii_only)
    for i, name in enumerate(("evil\033[2J\007\u202eend", "\u6f22\u5b57-wide")):
        os.rename(os.path.join(STATE, name), os.path.join(STATE, "old%d" % i))
        tenants("leave", "old%d" % i)
    terminal.until(lambda screen: len(names(screen)) == 3)


def one_tenant(terminal, tenants):
    tenants("join", "single", 1, GIB)
    terminal.start(TOP + "--tenant single --device 1")
    screen = terminal.until("single")
    check(names(screen) == ["single"] and "1 GPU " in screen, "that tenant alone, on that GPU", screen)
    tenants("leave", "single")
    terminal.until(lambda screen: "ended" in screen or "no tenant" in screen, "it is told to have ended")
    shutil.rmtree(os.path.join(STATE, "single"), ignore_errors=True)
    terminal.until(lambda screen: "there is no tenant 'single'" in screen and not names(screen), "and to be gone")
    tenants("join", "single", 1, GIB)
    terminal.until(lambda screen: names(screen) == ["single"] and "no tenant" not in screen, "and to be back")
    tenants("leave", "single")


def unreadable(terminal):
    """What cannot be read is told, and the rest is shown."""
    os.mkdir(STATE + "/broken", 0o700)
    with open(STATE + "/broken/ledger", "wb") as file:
        file.write(os.urandom(65536))
    terminal.start(TOP + "--state-dir %s --state-dir %s/none" % (STATE, TMP))
    screen = terminal.until(lambda screen: len(names(screen)) == 4)
    check(re.search(r"broken +- +- +-.* unreadable", screen), "the damaged one", screen)
    check(re.search(r"^warning: .*/none: No such file", screen, re.M), "the missing directory", screen)
    terminal.resize(150, 24)
    terminal.until(lambda screen: re.search(r"broken .* unreadable: .*ledger", screen), "why it is unreadable")
    terminal.resize(80, 24)
    done = run("top", "--batch", "--interval", "0.1", "--iterations", "1", "--state-dir", STATE, "--state-dir", TMP + "/none")
    check("none: No such file" in done.stderr and done.stderr.count("\n") == 1, "so in --batch", done.stderr)
    equal([line["STATE"] for line in blocks(done.stdout)[0][2] if line["TENANT"] == "broken"], ["unreadable"], "its row")
    shutil.rmtree(STATE + "/broken")


def terminals(terminal):
    for variables, words in (("TERM=dumb", "cannot move its cursor"), ("TERM=nonsense-1", "nothing is known of"), ("TERM=", "TERM is not set")):
        terminal.start("%s %s; echo ended $?; read line" % (variables, TOP))
        screen = terminal.until("ended").replace("\n", "")
        check("ended 125" in screen and words in screen and "--batch" in screen, variables, screen)
    terminal.start("LC_ALL=C " + TOP)
    screen = terminal.until("alpha")
    check(screen.isascii() and re.search(r"\[a#+", screen) and "##" in row(screen, "alpha"), "ASCII in the C locale", screen)
    terminal.start("TERM=vt100 " + TOP)
    terminal.until("alpha")
    terminal.start(TOP)
    terminal.until("alpha")
    check(re.search("\033\\[[0-9;]*3[1-7]", terminal.screen(True)), "colors", terminal.screen(True))
    terminal.start("NO_COLOR=1 " + TOP)
    terminal.until("alpha")
    check(not re.search("\033\\[[0-9;]*3[1-7]", terminal.screen(True)), "no colors with NO_COLOR", terminal.screen(True))


def endings(terminal):
    terminal.start(TOP)
    terminal.until("alpha")
    terminal.keys("q")
    equal(terminal.ended(), 0, "q")
    terminal.start(TOP)
    terminal.until("alpha")
    terminal.keys("C-d")
    equal(terminal.ended(), 0, "^D")
    terminal.start(TOP + "--iterations 3")
    equal(terminal.ended(), 0, "--iterations")
    for stdin in ("</dev/null", "<&-", "</etc/passwd"):
        terminal.start("%s %s" % (TOP, stdin))
        equal(terminal.ended(), 0, "the end of its input " + stdin)
    terminal.start("sleep 0.5 | %s" % TOP)
    equal(terminal.ended(), 0, "the end of a pipe")
    # The modes of the terminal are again what they were, however it ends.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        terminal.start("stty -a >%s/before; sh -c 'exec %s'; echo \"ended $?\"; stty -a >%s/after; read line" % (TMP, TOP, TMP))
        terminal.until("alpha")
        os.kill(top_pid(), number)
        screen = terminal.until("ended")
        check("ended %d" % (128 + number) in screen and "alpha" not in screen, "signal %d" % number, screen)
        wait_for(lambda same: same, "the terminal is as before", lambda: open(TMP + "/before").read() == open(TMP + "/after").read())
    # Its terminal goes.
    terminal.start(TOP)
    terminal.until("alpha")
    pid = top_pid()
    terminal.start("sleep 1000")
    wait_for(lambda there: not there, "it ends with its terminal", lambda: os.path.exists("/proc/%d" % pid))


def stops(terminal):
    terminal.start("bash --norc --noprofile -i")
    terminal.until("$")
    terminal.type(TOP + "\n")
    terminal.until("near limit")
    terminal.keys("C-z")
    screen = terminal.until("Stopped")
    check("near limit" not in screen, "the screen is the shell's again", screen)
    terminal.type("echo o'k'\n")
    terminal.until("ok\n")
    terminal.type("fg\n")
    terminal.until(lambda screen: "near limit" in screen and "Stopped" not in screen, "it goes on")
    pid = top_pid()
    os.kill(pid, signal.SIGSTOP)
    terminal.until("Stopped")
    terminal.resize(100, 20)
    terminal.type("fg\n")
    terminal.until(lambda screen: "near limit" in screen and "Stopped" not in screen and "PROCS" in screen, "it goes on at another size")
    terminal.keys("q")
    terminal.until(lambda screen: screen.rstrip("\n").endswith("$"), "a prompt")
    terminal.resize(80, 24)


# ---- in pipes

COLUMNS = "TENANT GPU PROCESSES CURRENT LIMIT PEAK BUSY% THROTTLED% COMPUTE% WEIGHT REFUSED NEW STATE DIRECTORY".split()


def blocks(text):
    """What --batch prints: a list of (head, GPUs, tenants), the latter two as lists of dictionaries."""
    result = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        at = next(i for i, line in enumerate(lines) if line.startswith("TENANT "))
        tables = []
        for head, rows in ((lines[1], lines[2:at]), (lines[at], lines[at + 1:])):
            for line in rows:
                equal(len(line.split()), len(head.split()), "as many columns as the head has: " + line)
            tables.append([dict(zip(head.split(), line.split())) for line in rows])
        result.append((lines[0], *tables))
    return result


def batch(tenants):
    tenants("compute", "beta", 1, 1250, 300)
    done = run("top", "--batch", "--interval", "0.3", "--iterations", "2", "--sort", "tenant")
    equal((done.returncode, done.stderr), (0, ""), "--batch ends well")
    document, seen = status(), blocks(done.stdout)
    equal(len(seen), 2, "two blocks")
    head, gpus, rows = seen[1]
    check(re.match(r"TIME \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z interval 0\.[23]\d* s gpus 2 tenants 3 processes 3$", head), "the time line", head)
    equal([(gpu["GPU"], gpu["INDEX"], gpu["TOTAL"], gpu["USED"]) for gpu in gpus],
          [(gpu["uuid"], str(gpu["index"]), str(gpu["memory_total_bytes"]), str(gpu["memory_used_bytes"])) for gpu in document["gpus"]], "GPUs")
    expected = {}
    for tenant in document["tenants"]:
        for device in tenant["devices"]:
            vram, compute = device["vram"], device.get("compute", {})
            expected[tenant["tenant"], device["gpu"]] = dict(
                PROCESSES=tenant["processes"], CURRENT=vram["current_bytes"], LIMIT=vram.get("limit_bytes", "none"), PEAK=vram["peak_bytes"],
                REFUSED=vram["events"]["refused"], WEIGHT=compute.get("weight", "-"),
                **{"COMPUTE%": "%.2f" % compute["share_percent"] if compute else "-"})
    equal(len(rows), len(expected), "as many rows as status has")
    for line in rows:
        of_status = expected[line["TENANT"], line["GPU"]]
        equal({key: line[key] for key in of_status}, {key: str(value) for key, value in of_status.items()}, "%s as in status" % line["TENANT"])
        equal(line["BUSY%"] == "-", line["COMPUTE%"] == "-", "busy is known where compute is armed")
        equal(line["DIRECTORY"], STATE, "its directory")
    equal([line["TENANT"] for line in rows], sorted(line["TENANT"] for line in rows), "by name")
    for gpu in gpus:
        equal(int(gpu["CURRENT"]), sum(int(line["CURRENT"]) for line in rows if line["GPU"] == gpu["GPU"]), "a GPU's tenants together")
    equal({line["STATE"] for line in rows if line["TENANT"] == "alpha"}, {"near_limit"}, "alpha's state")


def rates(tenants):
    """What happened in an interval, within what the test itself can have been late by."""
    with subprocess.Popen([COMMAND, "top", "--batch", "--interval", "0.5", "--tenant", "alpha"], stdout=subprocess.PIPE, text=True, env=ENV) as top:
        for line in top.stdout:
            if line == "\n":
                break
        for _ in range(2):
            tenants("refuse", "alpha", 0)
        tenants("busy", "alpha", 0, 100000000)
        rest = ""
        for line in top.stdout:
            rest += line
            if line == "\n" and len(blocks(rest)) == 2:
                break
        top.stdout.close()
        equal(top.wait(PATIENCE), 0, "it ends with its pipe")
    total = 0
    for head, _, rows in blocks(rest):
        total += float(rows[0]["BUSY%"]) / 100 * float(re.search(r"interval ([\d.]+)", head).group(1))
    check(abs(total - 0.1) < 0.0005, "0.1 s were busy", total)
    equal(sum(int(rows[0]["NEW"]) for _, _, rows in blocks(rest)), 2, "two were refused")


def closed_pipes():
    for words, seconds in ((["--interval", "0.1"], 10), (["--interval", "600"], 20)):
        started = time.monotonic()
        with subprocess.Popen([COMMAND, "top", "--batch", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV) as top:
            time.sleep(0.3)
            top.stdout.close()
            equal(top.wait(PATIENCE), 0, "a closed pipe ends it well")
            equal(top.stderr.read(), b"", "and silently")
        check(time.monotonic() - started < seconds, "at once")
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([COMMAND, "top", "--batch", "--interval", "0.1"], stdout=full, stderr=subprocess.PIPE, text=True, env=ENV, timeout=60,
                              check=False)
    equal(done.returncode, 125, "a full device")
    check("cannot write" in done.stderr, "is told", done.stderr)
    with subprocess.Popen([COMMAND, "top", "--batch", "--interval", "600"], stdout=subprocess.PIPE, env=ENV) as top:
        time.sleep(0.3)
        top.terminate()
        equal(top.wait(PATIENCE), -signal.SIGTERM, "a signal ends it")


def wrong():
    equal(run("top").returncode, 125, "no terminal")
    check("use --batch" in run("top").stderr, "what to do without one", run("top").stderr)
    for words, said in ((["--interval", "0"], "--interval"), (["--interval", "nan"], "--interval"), (["--interval", "1s"], "--interval"),
                        (["--iterations", "0"], "--iterations"), (["--iterations", "-1"], "--iterations"), (["--sort", "pid"], "--sort"),
                        (["--device", "x"], "'x'"), (["alpha"], "--tenant"), (["--tenant", "../x"], "../x"),
                        (["--tenant"], "needs a value"), (["--wrong"], "--wrong")):
        done = run("top", "--batch", *words)
        equal((done.returncode, done.stdout, done.stderr.count("\n")), (125, "", 1), " ".join(words))
        check(said in done.stderr, "what is wrong with it", done.stderr)
    for words in (["--tenant", "nobody"], ["--state-dir", TMP + "/none"], ["--root", TMP + "/none"]):
        done = run("top", "--batch", *words)
        equal((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), " ".join(words))
    check("--batch" in run("top", "--help").stdout, "its help", "")


def main():
    if not shutil.which("tmux"):
        print("tmux is not here")
        return 77
    gpus = [gpu["uuid"] for gpu in status()["gpus"]]
    tenants = Tenants(BUILD, STATE, gpus)
    terminal = Terminal(TMP, os.environ)
    try:
        for line in (("join alpha 0", 20 * GIB), ("hold alpha 0", 19 * GIB + GIB // 2 + 12345), ("compute alpha 0 3000 0",), ("join beta 0", 10 * GIB),
                     ("hold beta 0", 8 * GIB + 54321), ("compute beta 0 5000 0",), ("join gamma 1 0",), ("hold gamma 1", GIB)):
            tenants(*line)
        shows(terminal, tenants)
        sorts(terminal)
        filters(terminal)
        selects(terminal)
        pages(terminal, tenants)
        pauses(terminal, tenants)
        resizes(terminal)
        weighs(terminal, tenants)
        many(terminal, tenants)
        hostile(terminal, tenants)
        one_tenant(terminal, tenants)
        unreadable(terminal)
        terminals(terminal)
        endings(terminal)
        stops(terminal)
        tenants("join", "beta", 1, 9 * GIB)
        batch(tenants)
        rates(tenants)
        closed_pipes()
        wrong()
    finally:
        terminal.end()
        tenants.end()
    print("%d checks passed" % checks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
