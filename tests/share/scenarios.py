# SPDX-License-Identifier: Apache-2.0
"""The scenarios of tests/share/run: who shares a GPU with whom, under which settings, and the bars of the design that this has to meet.

A scenario has tenants, a tenant has loads (arguments of tests/share/load.c, one process each) and settings. What is found out about it are
its checks: each is a function of a Result (see run) that yields (what, value, unit, least, most). A bar that is None is not one: the
value is shown only.
"""

SHARES = (10, 25, 50, 75, 90)
KERNELS = (("20 us", 20), ("1 ms", 1000), ("20 ms", 20000))
SECONDS = 10
MAX_STALL_MS = 2000
PERIOD_MS = 100


class Tenant:
    def __init__(self, name, *loads, compute=None, weight=None, mode=None, gpu=None, **settings):
        self.name, self.loads, self.compute, self.weight, self.mode, self.gpu = name, loads, compute, weight, mode, gpu
        self.settings = settings

    def environment(self):
        env = {"SOFTSLICE_TENANT": self.name}
        if self.compute is not None:
            env["SOFTSLICE_COMPUTE"] = "%g%%" % self.compute
        if self.weight is not None:
            env["SOFTSLICE_WEIGHT"] = str(self.weight)
        if self.mode:
            env["SOFTSLICE_MODE"] = self.mode
        env.update({"SOFTSLICE_" + key.upper(): str(value) for key, value in self.settings.items()})
        return env


class Scenario:
    def __init__(self, name, tenants, checks, *, seconds=SECONDS, gpus=1, quick=False, real=True, plain=False, commands=()):
        self.name, self.tenants, self.checks, self.seconds, self.gpus = name, tenants, checks, seconds, gpus
        self.quick, self.real = quick, real  # part of `make check`; can be had on a real GPU
        self.plain = plain                   # without the library
        self.commands = commands             # (ms after the beginning, shell command)


# ---- loads

def load(kernel_us=1000, mode="async", width=None, duty=None, long_us=None, blind=False):
    words = ["--kernel", "%g" % kernel_us, "--mode", mode]
    for option, value in (("--width", width), ("--duty", duty), ("--long", long_us)):
        if value is not None:
            words += [option, "%s" % value]
    return tuple(words + ["--blind"] * blind)


def graph_width(kernel_us):
    """Kernels in a graph: about 0.4 ms of them, and two at least."""
    return max(2, int(400 / kernel_us))


def loads_of(kind, kernel_us):
    """The loads of one tenant that wants all of the GPU in this way."""
    return {
        "async": (load(kernel_us),),
        "launch+sync": (load(kernel_us, "sync"),),
        "graph": (load(kernel_us, "graph", width=graph_width(kernel_us)),),
        "4 streams": (load(kernel_us, "streams"),),
        "4 processes": (load(kernel_us),) * 4,
        "4 threads": (load(kernel_us, "threads"),),
    }[kind]


KINDS = ("async", "launch+sync", "graph", "4 streams", "4 processes")
LIGHT = load(1000, duty="8/40")


# ---- checks

def share(name, asked, tolerance):
    """The tenant's share of the GPU over the whole time."""
    def check(result):
        yield "%s: share" % name, 100 * result.achieved(name), "%", asked - tolerance, asked + tolerance
    return check


def share_or_all(name, asked, tolerance):
    """The same of programs that might not fill the GPU as much as that if they had it alone."""
    def check(result):
        most = min(asked, 100 * result.alone(name).achieved(name))
        yield "%s: share" % name, 100 * result.achieved(name), "%", most - tolerance, most + tolerance
    return check


def windows(name, asked, tolerance, length_ms=250):
    """The same in any window of that length."""
    def check(result):
        found = result.windows(name, length_ms)
        if found:
            yield "%s: least in %g ms" % (name, length_ms), 100 * min(found), "%", asked - tolerance, None
            yield "%s: most in %g ms" % (name, length_ms), 100 * max(found), "%", None, asked + tolerance
    return check


def share_within(name, least, most):
    def check(result):
        yield "%s: share" % name, 100 * result.achieved(name), "%", least, most
    return check


def share_between(name, from_ms, to_ms, asked, tolerance):
    def check(result):
        achieved = result.achieved(name, from_ms, to_ms)
        if achieved is not None:
            yield "%s: share from %g to %g ms" % (name, from_ms, to_ms), 100 * achieved, "%", asked - tolerance, asked + tolerance
    return check


def total(least):
    """All tenants' throughput over that of the same loads under plain time-slicing."""
    def check(result):
        yield "all: throughput over plain", result.total() / result.plain().total(), "", least, None
    return check


def throughput(name, least, most=None):
    """A tenant's throughput over that of its loads alone on the GPU."""
    def check(result):
        yield "%s: throughput over alone" % name, result.throughput(name) / result.alone(name).throughput(), "", least, most
    return check


def latency(name, most, quantile="p99_us", bar=True):
    """A quantile of the burst's latency over what it is alone on the GPU."""
    def check(result):
        mine, alone = result.latency(name, quantile), result.alone(name).latency(name, quantile)
        yield "%s: %s" % (name, quantile.split("_")[0]), mine / 1000, "ms", None, None
        yield "%s: %s over alone" % (name, quantile.split("_")[0]), mine / alone, "", None, most if bar else None
    return check


def latency_plain(name, quantile="p99_us"):
    """The same beside the same neighbours without the library, to compare with."""
    def check(result):
        yield "%s: %s under plain time-slicing" % (name, quantile.split("_")[0]), result.plain().latency(name, quantile) / 1000, "ms", None, None
    return check


def stall(name, most_ms):
    """The longest time that a call to launch took."""
    def check(result):
        yield "%s: longest launch" % name, result.longest_launch(name) / 1000, "ms", None, most_ms
    return check


def forgiven(name, asked, tolerance):
    """What was forgiven is counted, and without it the average is right."""
    def check(result):
        account = result.account(name)
        seconds = result.seconds()
        yield "%s: forgiven" % name, account["forgiven_ns"] / 1e6, "ms of GPU time", 1, None
        right = 100 * (result.achieved(name) - account["forgiven_ns"] / 1e9 / seconds)
        yield "%s: share without what was forgiven" % name, right, "%", None, asked + tolerance
    return check


def forgiven_once(name):
    """No more is forgiven than was used."""
    def check(result):
        account = result.account(name)
        yield "%s: forgiven over used" % name, account["forgiven_ns"] / account["busy_ns"], "", None, 1
    return check


def each(names, asked, tolerance):
    return [share(name, part, tolerance) for name, part in zip(names, asked)]


# ---- the table

def alone():
    """One tenant, one share: the first bar of the design."""
    for kind in KINDS:
        for label, us in KERNELS:
            for part in SHARES:
                checks = [share_or_all("a", part, 1)]
                if us <= 1000:
                    checks.append(windows("a", part, 5))
                quick = (kind, us, part) in QUICK
                yield Scenario("alone/%s/%s/%d%%" % (kind, label, part), [Tenant("a", *loads_of(kind, us), compute=part)], checks, quick=quick)
    yield Scenario("alone/4 threads/20 us/50%", [Tenant("a", *loads_of("4 threads", 20), compute=50)], [share("a", 50, 1), windows("a", 50, 5)])
    yield Scenario("alone/mix/20 us and 500 ms/50%", [Tenant("a", load(20, "mix"), compute=50)], [share("a", 50, 3)], seconds=30)
    yield Scenario("alone/burst 8 of 40 ms/50%", [Tenant("a", LIGHT, compute=50)],
                   [throughput("a", 0.98), latency("a", 1.02, "p50_us"), latency("a", 1.02, "p99_us")], quick=True)
    yield Scenario("alone/marks/20 us/100%", [Tenant("a", load(20), compute=100)], [throughput("a", 0.99)], quick=True)
    yield Scenario("alone/500 ms/10%", [Tenant("a", load(500000, "sync"), compute=10)],
                   [stall("a", MAX_STALL_MS * 1.01), forgiven("a", 10, 1)], seconds=30, quick=True, real=False)
    yield Scenario("alone/500 ms, not forgiven/10%", [Tenant("a", load(500000, "sync"), compute=10, max_stall="10s")],
                   [share("a", 10, 1), stall("a", 5050)], seconds=60)


QUICK = {("async", 20, 10), ("async", 1000, 50), ("launch+sync", 1000, 75), ("graph", 20, 50), ("4 streams", 1000, 25),
         ("4 processes", 1000, 50), ("async", 20000, 90)}


def several():
    """Two and four tenants that want everything."""
    for label, first, second in (("1 ms", 1000, 1000), ("20 us", 20, 20), ("20 us and 20 ms", 20, 20000)):
        for parts in ((50, 50), (30, 70), (10, 90)):
            yield Scenario("several/cap/%s/%d and %d%%" % (label, *parts),
                           [Tenant("a", load(first), compute=parts[0]), Tenant("b", load(second), compute=parts[1])],
                           each("ab", parts, 2), quick=(label, parts) == ("1 ms", (30, 70)))
    for label, us in KERNELS[:2]:
        for parts in ((25, 25, 25, 25), (10, 20, 30, 40)):
            yield Scenario("several/cap/%s/%s%%" % (label, ", ".join(map(str, parts))),
                           [Tenant(name, load(us), compute=part) for name, part in zip("abcd", parts)], each("abcd", parts, 2),
                           quick=(us, parts[0]) == (1000, 10))
    yield Scenario("several/cap/4 processes/30 and 70%",
                   [Tenant("a", *loads_of("4 processes", 1000), compute=30), Tenant("b", load(1000, "sync"), compute=70)], each("ab", (30, 70), 2))
    # Longer than a turn can be kept: then both are on the GPU.
    for label, loads, parts in (("100 ms", (100000, 100000), (50, 50)), ("100 ms and 1 ms", (100000, 1000), (50, 50)),
                                ("100 ms and 1 ms", (100000, 1000), (30, 70)), ("60 ms and 20 us", (60000, 20), (50, 50)),
                                ("300 ms and 1 ms", (300000, 1000), (50, 50)), ("100 ms", (100000,) * 4, (25,) * 4)):
        yield Scenario("several/cap/%s/%s%%" % (label, ", ".join(map(str, parts))),
                       [Tenant(name, load(us), compute=part) for name, us, part in zip("abcd", loads, parts)], each("abcd", parts, 2),
                       seconds=20, quick=loads == (100000, 1000) and parts[0] == 30)
    # Kernels so long that the longest stall does not repay them: no more is had beside others than alone.
    for us, part in ((200000, 10), (300000, 10), (500000, 10), (500000, 30), (1000000, 30)):
        most = max(part, 100 * us / (us + 1000 * MAX_STALL_MS))
        yield Scenario("several/cap/%d ms waited for and 1 ms/%d and %d%%" % (us // 1000, part, 100 - part),
                       [Tenant("a", load(us, "sync"), compute=part), Tenant("b", load(1000), compute=100 - part)],
                       [share_within("a", part - 2, most + 2), share_within("b", 100 - most - 2, 100 - part + 2), forgiven_once("a")],
                       seconds=30, quick=us == 500000, real=False)
    yield Scenario("several/cap/20 and 30%: the rest stays free",
                   [Tenant("a", load(1000), compute=20), Tenant("b", load(20), compute=30)], each("ab", (20, 30), 2))
    yield Scenario("several/cap/70 and 70%: over 100", [Tenant("a", load(1000), compute=70), Tenant("b", load(1000), compute=70)],
                   each("ab", (50, 50), 2) + [total(0.97)], quick=True)


def lent():
    """Weights, and shares that lend what is idle."""
    for label, first, second in (("1 ms", 1000, 1000), ("20 us", 20, 20), ("20 us and 20 ms", 20, 20000)):
        for weights in ((100, 100), (100, 300)):
            parts = [100 * weight / sum(weights) for weight in weights]
            yield Scenario("weight/%s/%d and %d" % (label, *weights),
                           [Tenant("a", load(first), weight=weights[0]), Tenant("b", load(second), weight=weights[1])],
                           each("ab", parts, 2) + [total(0.97)], quick=(label, weights[1]) == ("1 ms", 300))
    yield Scenario("weight/launch+sync of 1 ms and 20 ms/100 and 100",
                   [Tenant("a", load(1000, "sync"), weight=100), Tenant("b", load(20000), weight=100)], each("ab", (50, 50), 2) + [total(0.97)],
                   quick=True)
    weights = (100, 200, 300, 400)
    yield Scenario("weight/1 ms/100, 200, 300, 400", [Tenant(name, load(1000), weight=w) for name, w in zip("abcd", weights)],
                   each("abcd", (10, 20, 30, 40), 2) + [total(0.97)])
    yield Scenario("weight/launch+sync 1 ms/100 and 100", [Tenant(name, load(1000, "sync"), weight=100) for name in "ab"],
                   each("ab", (50, 50), 2) + [total(0.97)])
    yield Scenario("weight/one alone", [Tenant("a", load(1000), weight=1)], [throughput("a", 0.97)])
    yield Scenario("share/30 and 70%: both want all", [Tenant("a", load(1000), compute=30, mode="share"),
                                                       Tenant("b", load(1000), compute=70, mode="share")], each("ab", (30, 70), 2) + [total(0.97)])
    yield Scenario("share/30 and 70%: the second works 8 of 40 ms", [Tenant("a", load(1000), compute=30, mode="share"),
                                                                     Tenant("light", LIGHT, compute=70, mode="share")],
                   [share("light", 20, 2), share("a", 80, 2), total(0.97)], real=False)


def light():
    """A tenant that works a little beside one that wants everything."""
    for label, us in KERNELS[:2]:
        for how, settings, rest in (("weight", ({"weight": 100}, {"weight": 100}), 0.8), ("cap 50%", ({"compute": 50}, {"compute": 50}), 0.5)):
            for kind in ("async", "launch+sync"):
                yield Scenario("light/%s/beside %s %s" % (how, label, kind),
                               [Tenant("light", LIGHT, **settings[0]), Tenant("heavy", *loads_of(kind, us), **settings[1])],
                               [latency("light", 1.5), latency("light", None, "p50_us", bar=False), latency_plain("light"),
                                latency_plain("light", "p50_us"), throughput("light", 0.95), throughput("heavy", 0.95 * rest)],
                               quick=(how, us, kind) == ("weight", 1000, "async"), seconds=20)


def blind():
    """One tenant works for a moment now and then, and never waits for that: who has the GPU besides is not to wait for it either."""
    for duty, rest in (("1/10", 0.9), ("2/20", 0.9), ("4/20", 0.8)):
        yield Scenario("weight/beside %s ms, never waited for" % duty.replace("/", " of "),
                       [Tenant("blind", load(100, duty=duty, blind=True), weight=100), Tenant("heavy", load(1000), weight=100)],
                       [throughput("blind", 0.95), throughput("heavy", rest - 0.08)], quick=duty == "1/10")


def two_gpus():
    """A collective that spins on one GPU until the other has come."""
    collective = load(1000, "collective")
    for part in (25, 50, 75):
        yield Scenario("two GPUs/alone/%d%%" % part, [Tenant("a", collective, compute=part)], [throughput("a", 0.9 * part / 100, 1.01 * part / 100)],
                       gpus=2, quick=part == 50)
    yield Scenario("two GPUs/beside one on the first", [Tenant("a", collective, weight=100), Tenant("b", load(1000), weight=100, gpu=0)],
                   [throughput("a", 0.9 * 0.5)], gpus=2)
    yield Scenario("two GPUs/beside one on each", [Tenant("a", collective, weight=100), Tenant("b", load(1000), weight=100, gpu=0),
                                                   Tenant("c", load(1000), weight=100, gpu=1)], [throughput("a", 0.9 * 0.5)], gpus=2)
    # Who has the one GPU takes longer to let go than who has the other.
    for label, first, second, kind, least in (("300 us and 700 us", 300, 700, "async", 0.9), ("20 us and 3 ms", 20, 3000, "async", 0.9),
                                              ("launch+sync and 700 us", 1000, 700, "sync", 0.9), ("5 ms and 700 us", 5000, 700, "async", None),
                                              ("20 ms and 1 ms", 20000, 1000, "async", None)):
        yield Scenario("two GPUs/beside %s" % label,
                       [Tenant("a", collective, weight=100), Tenant("b", load(first, kind), weight=100, gpu=0), Tenant("c", load(second), weight=100, gpu=1)],
                       [throughput(name, least and least * 0.5) for name in "abc"], gpus=2, quick=first == 300)


def changed():
    """A share or a weight that is changed while the tenants work takes effect within two periods."""
    for before, after in ((30, 60), (60, 30)):
        yield Scenario("changed/%d to %d%%" % (before, after), [Tenant("a", load(1000), compute=before)],
                       [share_between("a", 0, 5000, before, 1), share_between("a", 5000 + 2 * PERIOD_MS, 5250 + 2 * PERIOD_MS, after, 5),
                        share_between("a", 5000 + 2 * PERIOD_MS, 10000, after, 1)],
                       commands=((5000, "$COMMAND set a compute=%d%%" % after),), quick=after == 60, real=False)
    both = [Tenant("a", load(1000), weight=100), Tenant("b", *loads_of("4 streams", 1000), weight=100)]
    yield Scenario("changed/weight 100 to 300", both,
                   [share_between("a", 0, 5000, 50, 2), share_between("a", 5000 + 2 * PERIOD_MS, 10000, 75, 2),
                    share_between("b", 5000 + 2 * PERIOD_MS, 10000, 25, 2)],
                   commands=((5000, "$COMMAND set a --weight 300"),), quick=True, real=False)
    # Launches by the thousand in four processes, and a new share each second.
    asked = (30, 80, 20, 70, 10, 90, 40, 100, 50, 60)
    yield Scenario("changed/each second", [Tenant("a", *loads_of("4 processes", 20), compute=asked[0])],
                   [share_between("a", 1000 * i + 2 * PERIOD_MS, 1000 * (i + 1), part, 3) for i, part in enumerate(asked)],
                   commands=tuple((1000 * i, "$COMMAND set a --compute %d%%" % part) for i, part in enumerate(asked) if i), quick=True, real=False)


def every():
    for group in (alone, several, lent, light, blind, two_gpus, changed):
        yield from group()
