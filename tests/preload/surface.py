#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The built library against the list of hooks: what it exports, needs and is made of. The list against cuda.h: scripts/check-hooks."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TEST_BUILD", os.path.join(ROOT, "build"))
LIBRARY = os.environ.get("TEST_LIB", os.path.join(BUILD, "libsoftslice.so"))
MAY_REFER = {"real", "thunks_x86_64", "thunks_aarch64"}  # objects that name the driver's functions: the table of wrappers
NEEDED = {"libc.so.6", "libdl.so.2", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
NEWEST_GLIBC = (2, 31)
problems = []


def output(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def expect(condition, text):
    if not condition:
        problems.append(text)


def rows(name):
    """(home, body, arm, base, symbol, ...) of each row."""
    with open(os.path.join(ROOT, "shim", name), encoding="utf-8") as text:
        return [tuple(field.strip() for field in match.group(1).split(","))
                for match in re.finditer(r"^HOOK\((.*)\)$", text.read(), re.MULTILINE)]


def nm(*arguments):
    """(kind, symbol, version) of each line."""
    found = []
    for line in output("nm", *arguments).splitlines():
        words = line.split()
        if len(words) >= 2 and len(words[-2]) == 1:
            name, _, version = words[-1].partition("@")
            found.append((words[-2], name, version.lstrip("@")))
    return found


def check_homes(hooks, nvml):
    wrapped = {row[4]: row[0] for row in hooks + nvml if row[1] == "WRAP"}
    folder = os.path.join(BUILD, "shim", "hooks")
    for name in sorted(os.listdir(folder)):
        home, ending = os.path.splitext(name)
        if ending != ".o":
            continue
        defined = {symbol for kind, symbol, _ in nm(os.path.join(folder, name)) if kind == "T" and symbol.startswith(("cu", "nvml"))}
        for symbol in sorted(defined):
            expect(wrapped.get(symbol) == home, "shim/hooks/%s.c defines %s, whose home is %s" % (home, symbol, wrapped.get(symbol)))
        for symbol in sorted(s for s, h in wrapped.items() if h == home):
            expect(symbol in defined, "shim/hooks/%s.c does not define %s" % (home, symbol))
    for symbol, home in sorted(wrapped.items()):
        expect(os.path.exists(os.path.join(folder, home + ".o")), "%s: shim/hooks/%s.c does not exist" % (symbol, home))


def check_references():
    """Nobody calls the driver but through `real.`: such a call would come back to our own export."""
    for room in ("core", "shim", "shim/hooks"):
        folder = os.path.join(BUILD, room)
        for name in sorted(os.listdir(folder)):
            stem, ending = os.path.splitext(name)
            if ending != ".o" or stem in MAY_REFER:
                continue
            for kind, symbol, _ in nm(os.path.join(folder, name)):
                expect(kind != "U" or not re.match(r"cu[A-Z]|nvml[A-Z]", symbol), "%s/%s calls %s directly" % (room, name, symbol))


def check_exports(hooks, nvml):
    exports = [(symbol, version) for kind, symbol, version in nm("-D", "--defined-only", "--with-symbol-versions", LIBRARY)
               if kind != "A"]
    want = {row[4] for row in hooks + nvml}
    seen = {symbol for symbol, _ in exports if symbol != "dlsym"}
    for symbol in sorted(seen - want):
        problems.append("the library exports %s, which is no row" % symbol)
    for symbol in sorted(want - seen):
        problems.append("the library does not export %s" % symbol)
    for symbol, version in exports:
        expect(symbol == "dlsym" or not version, "%s has the version %s, which the driver's has not" % (symbol, version))
    machine = re.search(r"Machine:\s*(.*)", output("readelf", "-hW", LIBRARY)).group(1)
    base = "GLIBC_2.17" if "AArch64" in machine else "GLIBC_2.2.5"
    table = output("readelf", "--dyn-syms", "-W", LIBRARY)
    for name in ("dlsym@" + base, "dlsym@@GLIBC_2.34"):
        expect(re.search(r"\s%s(\s|$)" % re.escape(name), table, re.MULTILINE), "the library does not export %s" % name)
    expect(sum(symbol == "dlsym" for symbol, _ in exports) == 2, "the library exports dlsym in other versions too")


def check_needs():
    dynamic = output("readelf", "-dW", LIBRARY)
    for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic):
        expect(name in NEEDED, "the library needs %s" % name)
    section = output("readelf", "-VW", LIBRARY).partition(".gnu.version_r")[2]
    expect(section, "the library needs no version of any symbol at all")
    for version in sorted(set(re.findall(r"GLIBC_(\d+(?:\.\d+)+)", section))):
        expect(tuple(map(int, version.split("."))) <= NEWEST_GLIBC, "the library needs GLIBC_%s" % version)
    # musl has none of these, and does not start a program with a library that insists on them.
    for kind, symbol, _ in nm("-D", "--undefined-only", LIBRARY):
        expect(kind == "w" or symbol not in ("dlvsym", "dladdr1"), "the library insists on %s, which musl has not" % symbol)
        expect(not symbol.endswith("_chk"), "the library needs %s, which musl has not" % symbol)
    # The simulator's clock stands in front of libc's.
    symbols = output("readelf", "--dyn-syms", "-W", LIBRARY)
    for name in ("clock_gettime", "syscall"):
        expect(re.search(r"\sUND %s(@|\s|$)" % name, symbols, re.MULTILINE), "the library does not take %s from libc" % name)
    flags = dynamic.partition("(FLAGS_1)")[2].splitlines()[0]
    for flag in ("NOW", "NODELETE"):
        expect(flag in flags, "the library is not linked with -z %s (%s)" % (flag.lower(), flags.strip()))
    expect("(SONAME)" in dynamic and "[libsoftslice.so]" in dynamic, "the library's SONAME is not libsoftslice.so")
    expect("(TEXTREL)" not in dynamic, "the library has text relocations")
    expect("(RPATH)" not in dynamic and "(RUNPATH)" not in dynamic, "the library has a search path of its own")
    segments = output("readelf", "-lW", LIBRARY)
    expect("GNU_RELRO" in segments, "the library has no RELRO segment")
    stack = re.search(r"GNU_STACK.*", segments)
    expect(stack and "E" not in re.search(r"\s([RWE ]{3})\s", stack.group(0)).group(1), "the library asks for an executable stack")
    for line in segments.splitlines():
        if line.split()[:1] == ["LOAD"]:
            expect(not ("W" in line.split()[6:-1] and "E" in line.split()[6:-1]) and "RWE" not in line,
                   "a segment is writable and executable: " + line.strip())


def main():
    hooks, nvml = rows("hooks.def"), rows("nvml.def")
    expect(len(hooks) > 100 and len(nvml) > 5, "hooks.def and nvml.def were not understood")
    check_homes(hooks, nvml)
    check_references()
    if "/san-" in BUILD:
        print("the sanitizers' runtimes are needed and exported: what a user gets is not looked at")
    else:
        check_exports(hooks, nvml)
        check_needs()
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


main()
