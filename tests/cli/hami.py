#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""The file that HAMi's monitor reads of a container, while processes come, take, free, fork and are killed: what is added up in it is what the simulated GPUs
themselves say, the limits are those of the variables, and all who name the file share one budget. And what the monitor writes into it is heard."""
import contextlib
import os
import signal
import subprocess
import sys
import time

import hami_cache
from books import GIB, MIB, Books, check, holding, two_gpus
from hami_cache import Cache

two_gpus()
PATIENCE = int(os.environ["TEST_PATIENCE"])  # seconds for what comes sooner or later
ROOM = os.path.join(os.environ["TEST_TMP"], "vgpu")
PATH = os.path.join(ROOM, "0b5d2a2e-6c1f-4f0a-9a55-7d1f3f0c2b11.cache")
os.mkdir(ROOM)
CONTAINER = {"LD_PRELOAD": os.environ["TEST_PRELOAD"], "CUDA_DEVICE_MEMORY_SHARED_CACHE": PATH, "CUDA_DEVICE_MEMORY_LIMIT_0": "3000m",
             "CUDA_DEVICE_MEMORY_LIMIT_1": "2000m", "SOFTSIM_BUSY": ""}


def program(*words, **more):
    return holding((), *words, environment={**CONTAINER, **more})


def wait_for(what, holds, seconds=PATIENCE):
    """Processes tell about once a second."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        with contextlib.suppress(hami_cache.NotThere):
            last = Cache(PATH)
            if holds(last):
                return last
        time.sleep(0.05)
    if last:
        print("told:", last.processes(), last.uuids(), "books:", Books().used, Books().held)
    sys.exit("FAILED: " + what)


def agrees(cache, *pids):
    books, numbers = Books(), cache.uuids()
    return set(cache.processes()) == set(pids) and all(
        cache.used(numbers[uuid]) == used and
        {pid: used[numbers[uuid]] for pid, used in cache.processes().items() if used[numbers[uuid]]} == held
        for uuid, used, held in zip(books.uuid, books.used, books.held))


# Two processes on two GPUs.
with program("take:0:%d" % (500 * MIB), "take:1:%d" % (300 * MIB)) as one:
    first = wait_for("one process", lambda cache: agrees(cache, one.pid))
    numbers = first.uuids()
    check(len(numbers) == 2, "the GPUs", numbers)
    for uuid, limit in zip(Books().uuid, (3000 * MIB, 2000 * MIB)):
        check(first.limit(numbers[uuid]) == limit, "the limit of", uuid, first.limit(numbers[uuid]))
        check(first.share(numbers[uuid]) == 100, "a share that nobody set")
    check(first.parts(0) == (200 * MIB, 0, 500 * MIB, 0), "what it is for", first.parts(0))
    check((first.switch, first.priority) == (1, 1), "what the monitor starts from")
    inode = os.stat(PATH).st_ino
    # 3000 MiB less what the first has less the second's context.
    with program("take:0:%d" % (2000 * MIB), "refused:0:%d" % (102 * MIB), "take:0:%d" % (100 * MIB), "free:0") as two:
        wait_for("two processes", lambda cache: agrees(cache, one.pid, two.pid))
        two.send_signal(signal.SIGKILL)
        two.wait(60)
        wait_for("one was killed", lambda cache: agrees(cache, one.pid))
    with program("take:0:%d" % (2000 * MIB)) as two:
        wait_for("another came", lambda cache: agrees(cache, one.pid, two.pid))
    check(set(Cache(PATH).processes()) == {one.pid}, "who exits goes at once")
    one.send_signal(signal.SIGKILL)
    one.wait(60)
print("processes come and go")

# The last one of a life was killed, so nobody could take it out: the first one of the next does.
with program("take:1:%d" % MIB) as one:
    wait_for("the next life", lambda cache: agrees(cache, one.pid))
    check(os.stat(PATH).st_ino == inode, "the monitor has the file mapped, and it was replaced")
wait_for("nobody", lambda cache: not cache.processes() and cache.used(0) == cache.used(1) == 0)
print("lives")

# Children: one forked before CUDA starts is a process of its own; one forked after has nothing.
FORKS = """
import ctypes, os, subprocess, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
def hold(size):
    context, block = ctypes.c_void_p(), ctypes.c_uint64()
    for error in (cuda.cuInit(0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), cuda.cuCtxSetCurrent(context),
                  cuda.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(size))):
        assert error == 0, error
def child(size):
    pid = os.fork()
    if pid == 0:
        if size:
            hold(size)
        os.write(1, b"child\\n")
        sys.stdin.read()
        os._exit(0)
    return pid
first = child(300 << 20)
hold(200 << 20)
second = child(0)
os.write(1, b"%d %d\\n" % (first, second))
sys.stdin.read()
for pid in (first, second):
    os.waitpid(pid, 0)
"""
with subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **CONTAINER}) as parent:
    said = [parent.stdout.readline().split() for _ in range(3)]
    children = next(words for words in said if words[0] != "child")
    check(len(children) == 2, "forks", said)
    cache = wait_for("children", lambda cache: agrees(cache, parent.pid, int(children[0])))
    parent.stdin.close()
check(parent.returncode == 0, "forks", parent.returncode)
print("children")

# A limit of compute, and what the monitor says of it.
with program("launch:0:2000:50", CUDA_DEVICE_SM_LIMIT="20", CUDA_TASK_PRIORITY="0", LIBCUDA_LOG_LEVEL="1") as one:
    cache = wait_for("work", lambda cache: cache.last_kernel)
    check(abs(cache.last_kernel - time.time()) < 600 and cache.share(0) == 20 and cache.priority == 0, "work", cache.share(0), cache.priority)
    hami_cache.write(PATH, hami_cache.SWITCH, "i", 0)
    wait_for("the limit is lifted", lambda cache: cache.share(0) == 100)
    hami_cache.write(PATH, hami_cache.SWITCH, "i", 1)
    wait_for("the limit holds again", lambda cache: cache.share(0) == 20)
    hami_cache.write(PATH, hami_cache.RECENT, "i", -1)
    hami_cache.write(PATH, hami_cache.PROC_NUM, "i", -1)
    cache = wait_for("a number of processes", lambda cache: one.pid in cache.processes())
    check(cache.recent == -1, "what the monitor says was overwritten")
with program("launch:0:2000:50", CUDA_DEVICE_SM_LIMIT="20", GPU_CORE_UTILIZATION_POLICY="force") as one:
    hami_cache.write(PATH, hami_cache.SWITCH, "i", 0)
    hami_cache.write(PATH, hami_cache.PROC_NUM, "i", 1000)
    cache = wait_for("told again", lambda cache: cache.proc_num < 1000)
    check(cache.share(0) == 20, "a forced limit was lifted")
print("the monitor is heard")

# Anybody in the container can cut the file: the programs go on, and it comes again.
with program("take:0:%d" % MIB) as one:
    wait_for("one process", lambda cache: agrees(cache, one.pid))
    os.truncate(PATH, 0)
    wait_for("cut", lambda cache: agrees(cache, one.pid))
    os.unlink(PATH)
    wait_for("removed", lambda cache: agrees(cache, one.pid))
    check(one.poll() is None, "the program died of it")
print("cut and removed")

# A file that is another's stays as it is, and is told of once.
with open(PATH, "w", encoding="ascii") as file:
    file.write("another's\n")
with open(os.path.join(os.environ["TEST_TMP"], "log"), "w+", encoding="utf-8") as log:
    with subprocess.Popen([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "holder.py"), "take:0:%d" % MIB],
                          env={**os.environ, **CONTAINER, "SOFTSLICE_LOG": "warn"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as one:
        check(one.stdout.readline() == b"ready\n", "a file of another's")
        one.stdin.close()
    log.seek(0)
    said = log.read()
check(one.returncode == 0 and said.count(PATH) == 1 and "it is not such a file" in said, said)
with open(PATH, encoding="ascii") as file:
    check(file.read() == "another's\n", "a file of another's was written")
print("another's file")
