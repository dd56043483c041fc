#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gRPC calls of the device plugin: to a real server, grpcio's in the kubelet's place, and to ones that break the rules, fall silent or go away."""
# timeout: 240
import os
import socket
import struct
import threading
from concurrent import futures

from rpc_helper import (CANCEL, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, MAGIC, PING, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, Echo,
                        check, find_grpc, frame, hpack, message, scratch, wait_for)

grpc = find_grpc()
LONG, SHORT = 40000, 300  # ms: for what comes, and for what never does
MAX = 16 << 20


def call(echo, path, method="/test.Kubelet/Echo", ms=LONG, size=None):
    """The code, the length of the answer, and the message."""
    words = echo.tell("call %s %s %d%s" % (path, method, ms, "" if size is None else " %d" % size)).split(" ", 2)
    return words[0], int(words[1]), words[2] if len(words) > 2 else ""


# ---- a real server

class Kubelet(grpc.GenericRpcHandler):
    """Methods by their names; messages are bytes."""

    def __init__(self):
        self.seen = None
        self.free = threading.Event()

    def service(self, details):
        self.seen = details
        name = details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(getattr(self, name)) if hasattr(self, name) and name[0].isupper() else None

    @staticmethod
    def Echo(request, _context):
        check(request == bytes(i * 7 % 256 for i in range(256)) * (len(request) // 256) + bytes(i * 7 % 256 for i in range(len(request) % 256)),
              "the request's bytes")
        return request

    @staticmethod
    def Code(request, context):
        """As many bytes as the code is."""
        code = next(code for code in grpc.StatusCode if code.value[0] == len(request))
        context.abort(code, "no %s: ä 100 %% \n" % code.name)

    @staticmethod
    def Large(request, _context):
        """A MiB for each byte."""
        return bytes(len(request) << 20)

    @staticmethod
    def Larger(request, _context):
        return bytes(MAX + 1 + len(request))

    def Late(self, request, _context):
        self.free.wait()
        return request

    @staticmethod
    def Broken(_request, _context):
        raise ValueError("broken")

    @staticmethod
    def Gzip(request, context):
        context.set_compression(grpc.Compression.Gzip)
        return bytes(100000 + len(request))


def real(echo):
    path, kubelet = scratch("kubelet.sock"), Kubelet()
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[kubelet],
                         options=[("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", -1)])
    server.add_insecure_port("unix://" + path)
    server.start()
    for size in (0, 1, 255, 16379, 16384, 65535, 65536, 1000003, 8 << 20):
        check(call(echo, path, size=size) == ("OK", size, ""), "an echo of %d bytes: %s" % (size, call(echo, path, size=size)))
    seen = dict(kubelet.seen.invocation_metadata)
    check(kubelet.seen.method == "/test.Kubelet/Echo" and seen["user-agent"].startswith("softslice/"), "what the server sees: %s" % (kubelet.seen,))
    code, _, text = call(echo, path, size=(8 << 20) + 1)
    check(code == "RESOURCE_EXHAUSTED", "a request that is too large: %s %s" % (code, text))
    for code in grpc.StatusCode:
        if code is grpc.StatusCode.OK:
            continue
        expected = code.name, 0, "no %s: ä 100 %% " % code.name
        check(call(echo, path, "/test.Kubelet/Code", size=code.value[0]) == expected, "the code %s" % code)
        echo.process.stdout.readline()  # the rest of the message, which has a newline in it
    check(call(echo, path, "/test.Kubelet/None")[0] == "UNIMPLEMENTED", "an unknown method")
    check(call(echo, path, "/test.Kubelet/Broken")[0] == "UNKNOWN", "a method that raises")
    check(call(echo, path, "/test.Kubelet/Large", size=16)[:2] == ("OK", MAX), "an answer of 16 MiB")
    code, length, text = call(echo, path, "/test.Kubelet/Larger")
    check((code, length) == ("RESOURCE_EXHAUSTED", 0) and str(MAX + 1) in text, "a larger answer: %s %s" % (code, text))
    code, length, text = call(echo, path, "/test.Kubelet/Gzip")
    # This one answers without compression to whoever does not ask for it.
    check((code, length) in (("OK", 100000), ("UNIMPLEMENTED", 0)), "a compressed answer: %s %d %s" % (code, length, text))
    code, _, text = call(echo, path, "/test.Kubelet/Late", ms=SHORT)
    check(code == "DEADLINE_EXCEEDED", "a late answer: %s %s" % (code, text))
    check(call(echo, path, ms=0)[0] == "DEADLINE_EXCEEDED" and call(echo, path, ms=-1)[0] == "DEADLINE_EXCEEDED", "a call without time")
    stopped = threading.Timer(0.2, lambda: server.stop(None))
    stopped.start()
    code, _, text = call(echo, path, "/test.Kubelet/Late")
    # grpcio's server says either in its last moment.
    check(code in ("UNAVAILABLE", "CANCELLED"), "a server that is stopped: %s %s" % (code, text))
    kubelet.free.set()
    stopped.join()


# ---- no server

def nobody(echo):
    code, length, text = call(echo, scratch("none.sock"))
    check((code, length) == ("UNAVAILABLE", 0) and "No such file" in text and "none.sock" in text, "no socket: %s %s" % (code, text))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(scratch("left.sock"))
        code, _, text = call(echo, scratch("left.sock"))
        check(code == "UNAVAILABLE" and "refused" in text, "nobody listens: %s %s" % (code, text))
        left.listen(0)
        code, _, text = call(echo, scratch("left.sock"), ms=SHORT)
        check(code == "DEADLINE_EXCEEDED", "nobody accepts: %s %s" % (code, text))
        waiting = []
        while not waiting or waiting[-1].connect_ex(scratch("left.sock")) == 0:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
        code, _, text = call(echo, scratch("left.sock"), ms=SHORT)
        check(code == "DEADLINE_EXCEEDED", "a full queue: %s %s" % (code, text))
        for one in waiting:
            one.close()
    code, _, text = call(echo, scratch("x" * 100))
    check(code == "UNAVAILABLE" and "too long" in text, "a path that is too long: %s %s" % (code, text))
    # Of itself: a call serves nobody meanwhile.
    check(call(echo, echo.path, ms=SHORT)[0] == "DEADLINE_EXCEEDED", "a call of itself")


# ---- servers by hand

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


def head(headers, end=False):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), 1, hpack(headers))


def data(body, end=False):
    return frame(DATA, END_STREAM if end else 0, 1, body)


def reset(code):
    return frame(RST_STREAM, 0, 1, struct.pack(">I", code))


def serve_once(path, answer, stays):
    """Take one call whole, and send that. The connection is kept until the other side ends it, or is closed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def work():
        connection, _ = listener.accept()
        connection.settimeout(40)
        received = b""
        try:
            while not received.endswith(data(message(b""), True)):
                more = connection.recv(1 << 16)
                if not more:
                    break
                received += more
            check(received.startswith(MAGIC), "the client begins with %r" % received[:40])
            for part in answer if isinstance(answer, list) else [answer]:
                connection.sendall(part)
            while stays and connection.recv(1 << 16):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass
        connection.close()
        listener.close()
        os.unlink(path)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def by_hand(echo):
    start = frame(SETTINGS, 0, 0)
    good = head(HEAD) + data(message(b"abc"))
    far = frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0))
    near = frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0))
    cases = [
        # What is right.
        ("OK", 3, start + good + head(OK, True)),
        ("OK", 3, [bytes([byte]) for byte in start + good + head(OK, True)]),
        ("OK", 0, start + head(HEAD) + data(message(b"")) + head(OK, True)),
        ("OK", 3, start + frame(PING, 0, 0, bytes(8)) + frame(99, 0, 0, b"unknown") + good + far + head(OK + [("x", "y")], True)),
        ("OK", 3, start + head([(":status", "103")]) + good + head(OK, True) + reset(0)),
        ("OK", 3, start + head(HEAD) + b"".join(data(bytes([byte])) for byte in message(b"abc")) + head(OK, True)),
        # Failures.
        ("ABORTED", 0, start + head(HEAD + [("grpc-status", "10"), ("grpc-message", "not%20%zz%4")], True)),
        ("ABORTED", 0, start + good + head([("grpc-status", "10")], True)),
        ("UNKNOWN", 0, start + head(HEAD + [("grpc-status", "17")], True)),
        ("UNKNOWN", 0, start + head(HEAD + [("grpc-status", "")], True)),
        ("UNKNOWN", 0, start + head(HEAD + [("grpc-status", "-1")], True)),
        ("UNKNOWN", 0, start + head(HEAD + [("grpc-status", "99999999999999999999")], True)),
        ("UNKNOWN", 0, start + good + data(b"", True)),
        ("UNKNOWN", 0, start + head([(":status", "200"), ("content-type", "text/html")]) + data(b"<html>", True)),
        ("UNAVAILABLE", 0, start + head([(":status", "503")], True)),
        ("UNIMPLEMENTED", 0, start + head([(":status", "404")]) + data(b"not found", True)),
        ("PERMISSION_DENIED", 0, start + head([(":status", "403")], True)),
        ("UNIMPLEMENTED", 0, start + head(HEAD) + head(OK, True)),
        ("UNIMPLEMENTED", 0, start + good + data(message(b"more")) + head(OK, True)),
        ("INTERNAL", 0, start + head(HEAD) + data(message(b"abc")[:-1]) + head(OK, True)),
        ("INTERNAL", 0, start + head(HEAD) + data(message(b"abc", flag=7)) + head(OK, True)),
        ("UNIMPLEMENTED", 0, start + head(HEAD) + data(message(b"abc", flag=1)) + head(OK, True)),
        ("RESOURCE_EXHAUSTED", 0, start + head(HEAD) + data(message(b"", length=MAX + 1))),
        ("CANCELLED", 0, start + reset(CANCEL)),
        ("CANCELLED", 0, start + good + reset(CANCEL)),
        ("UNAVAILABLE", 0, start + reset(REFUSED_STREAM)),
        ("RESOURCE_EXHAUSTED", 0, start + reset(11)),
        ("INTERNAL", 0, start + reset(2)),
        ("UNAVAILABLE", 0, start + data(b"before its headers")),
        ("UNAVAILABLE", 0, start + near),
    ]
    for code, length, answer in cases:
        path = scratch("hand.sock")
        thread = serve_once(path, answer, True)
        got = call(echo, path)
        check(got[:2] == (code, length), "%s is %s" % (answer, got))
        thread.join()
    # One that goes away, whatever it had said.
    whole = start + good + head(OK, True)
    for length in (0, 5, 9, 30, len(start + head(HEAD)), len(start + good), len(whole) - 1, len(whole)):
        path = scratch("gone.sock")
        thread = serve_once(path, whole[:length], False)
        got = call(echo, path)
        check(got[:2] == (("OK", 3) if length == len(whole) else ("UNAVAILABLE", 0)), "gone after %d bytes: %s" % (length, got))
        thread.join()
    # One that falls silent there.
    for length in (0, len(start), len(start + good), len(whole) - 1):
        path = scratch("silent.sock")
        thread = serve_once(path, whole[:length], True)
        got = call(echo, path, ms=SHORT)
        check(got[:2] == ("DEADLINE_EXCEEDED", 0), "silent after %d bytes: %s" % (length, got))
        thread.join()
    # And ones that are something else.
    for answer in (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", os.urandom(5000), b"220 mail ESMTP\r\n", bytes(1000)):
        path = scratch("other.sock")
        thread = serve_once(path, answer, True)
        code, length, text = call(echo, path, ms=2000)
        check(code in ("UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED") and not length, "no server of gRPC: %s %s" % (code, text))
        thread.join()


def large_and_deaf(echo):
    """A server that takes nothing of a large request: neither its window nor its socket moves."""
    for settings in (b"", struct.pack(">HI", 4, 0x7fffffff)):
        path = scratch("deaf.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)

            def work():
                connection, _ = listener.accept()
                connection.sendall(frame(SETTINGS, 0, 0, settings) + (frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)) if settings else b""))
                done.wait(40)
                connection.close()

            done = threading.Event()
            thread = threading.Thread(target=work)
            thread.start()
            got = call(echo, path, ms=SHORT, size=8 << 20)
            check(got[:2] == ("DEADLINE_EXCEEDED", 0), "a deaf server: %s" % (got,))
            done.set()
            thread.join()
        os.unlink(path)


def main():
    echo = Echo()
    before = echo.descriptors()
    for test in (nobody, by_hand, large_and_deaf, real):
        test(echo)
        wait_for("the connections to end", lambda: echo.descriptors() <= before)
    held = echo.memory()
    by_hand(echo)
    check(echo.memory() < held + (64 << 10), "memory is kept: %d, %d before" % (echo.memory(), held))
    echo.end()


main()
