#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gRPC server of the device plugin with a real client: grpcio. All that the kubelet does with it, and worse."""
# timeout: 240
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading

from rpc_helper import TMP, Echo, check, find_grpc, scratch, wait_for

grpc = find_grpc()
MAX = 4 << 20
StatusCode = grpc.StatusCode
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# A channel of its own for everybody: grpcio would share one connection.
OWN = [("grpc.use_local_subchannel_pool", 1)]


def channel(echo, *options):
    return grpc.insecure_channel("unix://" + echo.path, options=UNLIMITED + OWN + list(options))


def outcome(function, *arguments, **how):
    """The code and the message of a call; the answer where it was well."""
    try:
        return StatusCode.OK, function(*arguments, timeout=40, **how)
    except grpc.RpcError as error:
        return error.code(), error.details()


def authority(echo):
    """The kubelet's gRPC sends the path of the socket as :authority, which is no name of a host."""
    with channel(echo, ("grpc.default_authority", echo.path)) as ours:
        check(ours.unary_unary("/test.Echo/Echo")(b"hello", timeout=40) == b"hello", "a path as :authority")


def unary(echo):
    with channel(echo) as ours:
        call = ours.unary_unary("/test.Echo/Echo")
        for size in (0, 1, 2, 16378, 16379, 16380, 16384, 65530, 65535, 65536, 1000003, MAX - 1, MAX):
            body = random.randbytes(size)
            check(call(body, timeout=40) == body, "an echo of %d bytes" % size)
        for size in (MAX + 1, 3 * MAX):
            code, text = outcome(call, bytes(size))
            check(code == StatusCode.RESOURCE_EXHAUSTED and str(size) in text, "%d bytes: %s %s" % (size, code, text))
        check(call(b"after", timeout=40) == b"after", "a call after one that was too large")
        code, text = outcome(ours.unary_unary("/test.Echo/None"), b"")
        check(code == StatusCode.UNIMPLEMENTED, "an unknown method: %s %s" % (code, text))
        code, text = outcome(call, bytes(1000), compression=grpc.Compression.Gzip)
        check(code == StatusCode.UNIMPLEMENTED and "compressed" in text, "a compressed message: %s %s" % (code, text))
        code, text = outcome(ours.stream_unary("/test.Echo/Echo"), iter([b"one", b"two"]))
        check(code == StatusCode.UNIMPLEMENTED, "two messages: %s %s" % (code, text))
        code, text = outcome(ours.stream_unary("/test.Echo/Echo"), iter([]))
        check(code == StatusCode.UNIMPLEMENTED, "no message: %s %s" % (code, text))


def failures(echo):
    texts = ("", "plain", "100 % of %41", "ä€😀\n\t\x01 end ", "x" * 1023)
    with channel(echo) as ours:
        for code in StatusCode:
            if code is StatusCode.OK:
                continue
            for method in ("/test.Echo/Fail", "/test.Echo/WatchFail"):
                call = ours.unary_unary(method) if method.endswith("/Fail") else lambda body, **how: list(ours.unary_stream(method)(body, **how))
                for text in texts:
                    got = outcome(call, bytes([code.value[0]]) + text.encode())
                    check(got == (code, text), "a failure: %s, not %s" % (got, (code, text)))


class Watch:
    """An open stream that has had its first message."""

    def __init__(self, of, body=b"first"):
        self.call = of.unary_stream("/test.Echo/Watch")(body)
        check(next(self.call) == body, "the first message of a stream")

    def next(self):
        return next(self.call)


def streams(echo):
    channels = [channel(echo) for _ in range(6)]
    watches = [Watch(one, b"%d" % i) for i, one in enumerate(channels) for _ in range(5)]
    for text in ("", "second", "third"):
        echo.tell("send " + text)
        for watch in watches:
            check(watch.next() == text.encode(), "a message for all streams")
    for size in (16379, 65536, 1500000):
        body = bytes(i * 7 % 256 for i in range(256)) * (size // 256 + 1)
        echo.tell("fill %d" % size)
        for watch in watches:
            check(watch.next() == body[:size], "%d bytes for all streams" % size)
    for watch in watches[::2]:
        watch.call.cancel()
    echo.tell("send fourth")
    for watch in watches[1::2]:
        check(watch.next() == b"fourth", "a message for the streams that are left")
    # Unary calls go on beside them.
    for one in channels:
        check(one.unary_unary("/test.Echo/Echo")(b"beside", timeout=40) == b"beside", "a call beside a stream")
    for one in channels:
        one.close()


KILLED = '''
import sys
import grpc
own = [("grpc.use_local_subchannel_pool", 1)]
channels = [grpc.insecure_channel("unix://" + sys.argv[1], options=own) for _ in range(4)]
streams = [channel.unary_stream("/test.Echo/Watch")(b"x") for channel in channels]
for stream in streams:
    next(stream)
print("ready", flush=True)
sys.stdin.read()
'''


def disappearing(echo, before):
    """A client that is killed in the middle of its streams."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", KILLED, echo.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as client:
            check(client.stdout.readline() == b"ready\n", "the client to be killed began")
            check(echo.descriptors() > before, "its connections are there")
            client.send_signal(signal.SIGKILL)
        echo.tell("fill 100000")
        wait_for("its connections to end", lambda: echo.descriptors() <= before)


def rapid(echo, before):
    """1,000 clients that come and go, with nothing, a part of the beginning, or all of it."""
    magic = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)
    for i in range(1000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(echo.path)
            try:
                client.sendall(magic[:i % (len(magic) + 1)])
            except BrokenPipeError:
                pass
    wait_for("all of them to be gone", lambda: echo.descriptors() <= before)
    with channel(echo) as ours:
        check(ours.unary_unary("/test.Echo/Echo")(b"after", timeout=40) == b"after", "a call after 1,000 connections")


def crowd(echo):
    """16 threads, all at once on one connection and on many."""
    wrong = []

    def work(ours, number):
        call = ours.unary_unary("/test.Echo/Echo")
        for i in range(60):
            body = b"%d/%d " % (number, i) * (1 + i * 97 % 5000)
            if call(body, timeout=60) != body:
                wrong.append((number, i))

    with channel(echo) as one, channel(echo) as other:
        threads = [threading.Thread(target=work, args=(one if number % 2 else other, number)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check(not wrong, "mixed up: %s" % wrong)


def again(echo):
    """The kubelet removes the socket; a server that begins anew ends what there was of the old one, and is found by the same client."""
    ours = channel(echo, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100))
    watch = Watch(ours)
    check(echo.tell("there") == "1", "the socket is there")
    os.unlink(echo.path)
    check(echo.tell("there") == "0", "the socket is gone")
    echo.tell("send still")
    check(watch.next() == b"still", "a stream goes on without the socket")
    with open(echo.path, "w", encoding="ascii"):
        check(echo.tell("there") == "0", "another file is not the socket")
    os.unlink(echo.path)
    check(echo.tell("again") == "serving", "serves again")
    check(echo.tell("there") == "1", "the socket is there again")
    try:
        watch.next()
        check(False, "a stream outlived its server")
    except grpc.RpcError as error:
        check(error.code() == StatusCode.UNAVAILABLE, "the end of a server: %s" % error)
    check(ours.unary_unary("/test.Echo/Echo")(b"again", wait_for_ready=True, timeout=40) == b"again", "the same client comes again")
    ours.close()


def places(echo):
    """Who may listen where."""
    check(stat.S_IMODE(os.stat(echo.path).st_mode) == 0o600, "the socket is its owner's")
    second = Echo(echo.path)
    check(second.said == "error Address already in use" and second.process.wait(timeout=40) == 1, "one that is in use: " + second.said)
    check(echo.tell("there") == "1", "the other did not take the socket")
    left = socket.socket(socket.AF_UNIX)
    left.bind(scratch("left.sock"))
    left.close()
    third = Echo(scratch("left.sock"))
    check(third.said == "serving", "one that was left over: " + third.said)
    # A socket that another has put there stays.
    os.unlink(third.path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(third.path)
        check(third.tell("there") == "0", "another's socket is not ours")
        third.process.stdin.close()
        check(third.process.wait(timeout=40) == 0 and os.path.lexists(third.path), "another's socket was removed")
    with open(scratch("file"), "w", encoding="ascii") as file:
        file.write("kept")
    os.symlink("nowhere", scratch("link"))
    for path, message in ((scratch("file"), "Address already in use"), (scratch("link"), "Address already in use"), (TMP, "Address already in use"),
                          (scratch("no/such"), "No such file or directory"), (scratch("x" * 100), "File name too long")):
        one = Echo(path)
        check(one.said == "error " + message and one.process.wait(timeout=40) == 1, "%s: %s" % (path, one.said))
    check(open(scratch("file"), encoding="ascii").read() == "kept" and os.readlink(scratch("link")) == "nowhere", "a file was harmed")


def closed_on_exec(echo):
    """What the program starts gets none of the connections."""
    with channel(echo) as ours:
        watch = Watch(ours)
        for fd in os.listdir("/proc/%d/fdinfo" % echo.process.pid):
            with open("/proc/%d/fdinfo/%s" % (echo.process.pid, fd), encoding="ascii") as info:
                flags = int(next(line.split()[1] for line in info if line.startswith("flags:")), 8)
            check(int(fd) <= 2 or flags & os.O_CLOEXEC, "descriptor %s stays open for programs" % fd)
        watch.call.cancel()


def main():
    echo = Echo()
    check(echo.said == "serving", echo.said)
    before = echo.descriptors()
    for test in (authority, unary, failures, streams, crowd, closed_on_exec, again, places):
        test(echo)
        wait_for("the connections of %s to end" % test.__name__, lambda: echo.descriptors() <= before)
    for test in (disappearing, rapid):
        test(echo, before)
    held = echo.memory()
    unary(echo)
    streams(echo)
    wait_for("the connections to end", lambda: echo.descriptors() <= before)
    check(echo.memory() < held + (64 << 10), "memory is kept: %d, %d before" % (echo.memory(), held))
    echo.end()


main()
