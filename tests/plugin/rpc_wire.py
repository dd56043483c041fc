#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gRPC server of the device plugin, byte by byte: clients that break the rules, go half-way, flood, or do not read. Others are served meanwhile, and
what the server holds stays bounded."""
# timeout: 240
import os
import random
import resource
import socket
import struct
import threading
import time

from rpc_helper import (ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, GOAWAY, GOOD, HEADERS, MAGIC, NO_ERROR, PADDED, PING,
                        PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, Echo, Wire, changed, check, frame, hpack,
                        message, wait_for)

CONNECTIONS, STREAMS = 64, 32  # of plugin/rpc_internal.h
UNIMPLEMENTED, INVALID_ARGUMENT, INTERNAL, EXHAUSTED = "12", "3", "13", "8"
WATCH = changed(path="/test.Echo/Watch")


def serves(echo):
    wire = Wire(echo.path)
    wire.request(1, GOOD, message(b"still there"))
    headers, body, reset = wire.answer(1)
    check((headers.get("grpc-status"), body, reset) == ("0", message(b"still there"), None), "no service: %s %s %s" % (headers, body, reset))
    wire.close()


def call(echo, headers, body=None):
    wire = Wire(echo.path)
    wire.request(1, headers, body)
    answer = wire.answer(1)
    wire.close()
    return answer


# ---- the rules of gRPC

def good_ways(echo):
    many = [("x-%d" % i, "y" * 50) for i in range(100)]
    for headers in (GOOD, changed(authority=None), changed(te=None), changed(content_type="application/grpc+proto"),
                    changed(content_type="application/grpc;charset=utf-8"), changed(content_type="application/grpc+proto ; x=y"),
                    GOOD + [("grpc-timeout", "1S"), ("grpc-encoding", "identity"), ("x-bin", b"\0\xff"), ("", "")], GOOD + many):
        got, body, reset = call(echo, headers, message(b"abc"))
        check((got.get(":status"), got.get("content-type"), got.get("grpc-status"), body, reset) == ("200", "application/grpc", "0", message(b"abc"), None),
              "%s: %s %s %s" % (headers, got, body, reset))


def wrong_calls(echo):
    for headers, http, code in ((changed(method="GET"), "405", INTERNAL), (changed(method=""), "405", INTERNAL),
                                (changed(content_type="text/html"), "415", INVALID_ARGUMENT), (changed(content_type=None), "415", INVALID_ARGUMENT),
                                (changed(content_type="application/grpc+json"), "415", INVALID_ARGUMENT),
                                (changed(content_type="application/grpcx"), "415", INVALID_ARGUMENT),
                                (changed(path=""), "200", UNIMPLEMENTED), (changed(path="/test.Echo/Ech"), "200", UNIMPLEMENTED),
                                (changed(path="/test.Echo/Echo/"), "200", UNIMPLEMENTED), (changed(path="x" * 9000), "200", UNIMPLEMENTED)):
        for body in (message(b"abc"), None):
            got, data, reset = call(echo, headers, body)
            check((got.get(":status"), got.get("grpc-status"), data, reset) == (http, code, b"", None), "%s: %s %s %s" % (headers, got, data, reset))


def wrong_pseudo_headers(echo):
    path = (":path", "/test.Echo/Echo")
    for headers in (changed(path=None), changed(method=None), changed(scheme=None), [path] + GOOD, [(":path", "/other")] + GOOD,
                    [(":method", "POST")] + GOOD, [(":authority", "x")] + GOOD, [(":status", "200")] + GOOD, [(":", "")] + GOOD,
                    GOOD + [path], changed(path=None) + [path], [("x", "y")] + GOOD, []):
        got, data, reset = call(echo, headers, message(b"abc"))
        check((got, data, reset) == ({}, b"", PROTOCOL_ERROR), "%s: %s %s %s" % (headers, got, data, reset))


def wrong_messages(echo):
    whole = message(b"abc")
    cases = [(whole * 2, UNIMPLEMENTED), (whole + b"\0", UNIMPLEMENTED), (message(b"") * 2, UNIMPLEMENTED), (b"", UNIMPLEMENTED),
             (message(b"abc", flag=1), UNIMPLEMENTED), (message(b"abc", flag=2), INTERNAL), (message(b"abc", flag=255), INTERNAL),
             (message(b"abc", length=4), INTERNAL), (message(b"", length=1), INTERNAL), (message(b"abc", length=(4 << 20) + 1), EXHAUSTED),
             (message(b"abc", length=0xffffffff), EXHAUSTED)] + [(whole[:length], INTERNAL) for length in range(1, len(whole))]
    for body, code in cases:
        got, data, reset = call(echo, GOOD, body)
        check((got.get(":status"), got.get("grpc-status"), data, reset) == ("200", code, b"", None), "%s: %s %s %s" % (body, got, data, reset))
    # Without its end, the answer comes all the same where it is clear, and the client is told to stop.
    for body, code in ((message(b"abc", flag=1), UNIMPLEMENTED), (message(b"", length=1 << 30), EXHAUSTED)):
        wire = Wire(echo.path)
        wire.request(1, GOOD, body, end=False)
        got, data, reset = wire.answer(1)
        check((got.get("grpc-status"), data, reset) == (code, b"", None), "an early answer: %s %s" % (got, reset))
        check(wire.wait(RST_STREAM)[3] == struct.pack(">I", NO_ERROR), "told to stop")
        wire.send(frame(DATA, END_STREAM, 1, bytes(1000)))
        wire.request(3, GOOD, whole)
        check(wire.answer(3)[1] == whole, "the connection goes on")
        wire.close()


def pieces(echo):
    """A message in frames of a byte, with empty ones and padding between; headers in pieces; everything in sends of a byte."""
    whole, block = message(b"abcdefgh"), hpack(GOOD)
    body = b""
    for byte in whole:
        body += frame(DATA, 0, 1, bytes([byte])) + frame(DATA, 0, 1) + frame(DATA, PADDED, 1, b"\3\0\0\0")
    body += frame(DATA, END_STREAM, 1)
    wire = Wire(echo.path)
    wire.send(frame(HEADERS, 0, 1, block[:20]) + frame(CONTINUATION, 0, 1, block[20:-20]) + frame(CONTINUATION, END_HEADERS, 1, block[-20:]) + body)
    check(wire.answer(1)[1] == whole, "a message in pieces")
    wire.close()
    wire = Wire(echo.path, magic=None)
    for byte in MAGIC + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block) + body:
        wire.send(bytes([byte]))
    check(wire.answer(1)[1] == whole, "a message byte by byte")
    # The end as trailers of the client's.
    wire.request(3, GOOD, whole, end=False)
    wire.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, hpack([("x", "y"), (":path", "/z")])))
    check(wire.answer(3)[1] == whole, "trailers of a client's")
    wire.close()


# ---- the rules of HTTP/2

def breakers(echo):
    """What is not HTTP/2, or breaks it, ends its connection and no other."""
    start = MAGIC + frame(SETTINGS, 0, 0)
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /test.Echo/Echo HTTP/1.1\r\n\r\n", bytes(100), os.urandom(4096), b"\x16\x03\x01" + bytes(200),
                 MAGIC[:-1] + b"x", MAGIC + b"x" * 100, start + os.urandom(20000), start + frame(PING, 0, 0, bytes(7)),
                 start + frame(DATA, 0, 1, b"x"), start + frame(HEADERS, END_HEADERS, 2, hpack(GOOD)),
                 start + frame(HEADERS, END_HEADERS, 0, hpack(GOOD)), start + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
                 start + frame(WINDOW_UPDATE, 0, 0, bytes(4)), start + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)),
                 start + frame(HEADERS, 0, 1, hpack(GOOD)) + frame(DATA, 0, 1, b"x"), start + frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + hpack(GOOD)),
                 start + b"\xff\xff\xff" + bytes([DATA, 0, 0, 0, 0, 1]) + bytes(50000)):
        wire = Wire(echo.path, magic=None)
        try:
            wire.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        frames = wire.until_end()  # it ends, or this test does not
        check(all(got[0] in (SETTINGS, GOAWAY, RST_STREAM) for got in frames), "an answer to garbage: %s" % frames)
        wire.close()
        serves(echo)
    wire = Wire(echo.path)
    wire.send((16385).to_bytes(3, "big") + bytes([DATA, 0, 0, 0, 0, 1]))
    check(int.from_bytes(wire.wait(GOAWAY)[3][4:8], "big") == FRAME_SIZE_ERROR, "a frame that is too large")
    wire.close()


def halves(echo, before):
    """A call that is cut off at each of its bytes."""
    data = MAGIC + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, hpack(GOOD)) + frame(DATA, END_STREAM, 1, message(b"abc"))
    for length in range(len(data)):
        wire = Wire(echo.path, magic=None)
        wire.send(data[:length])
        wire.close()
    for length in range(0, len(data), 7):  # and only its sending side
        wire = Wire(echo.path, magic=None)
        wire.send(data[:length])
        wire.socket.shutdown(socket.SHUT_WR)
        wire.until_end()
        wire.close()
    wait_for("all of them to be gone", lambda: echo.descriptors() <= before)
    serves(echo)


def garbage(echo):
    """Frames of which some are whole, from one seed after the other."""
    for seed in range(150):
        dice = random.Random(seed)
        wire = Wire(echo.path)
        try:
            for _ in range(30):
                payload = dice.choice((hpack(GOOD), hpack(WATCH), message(b"abc"), dice.randbytes(dice.randrange(40)), b""))
                wire.send(frame(dice.randrange(11), dice.choice((0, 1, 4, 5, 8, 0x25, dice.randrange(256))), dice.choice((0, 1, 1, 3, 5, 2)), payload))
        except (BrokenPipeError, ConnectionResetError):
            pass
        wire.close()
    serves(echo)


def pings(echo):
    wire = Wire(echo.path)
    wire.send(frame(PING, 0, 0, b"12345678"))
    while True:
        got = wire.wait(PING)
        check(got is not None, "no answer to a ping")
        if got[1] & ACK:
            check(got[3] == b"12345678", "a ping is answered with other bytes")
            break
    wire.close()


def many_streams(echo):
    wire = Wire(echo.path)
    for i in range(STREAMS + 1):
        wire.request(2 * i + 1, GOOD, end=False)
    got = wire.wait(RST_STREAM)
    check((got[2], got[3]) == (2 * STREAMS + 1, struct.pack(">I", REFUSED_STREAM)), "one stream too many: %s" % (got,))
    for i in range(STREAMS):
        wire.send(frame(DATA, END_STREAM, 2 * i + 1, message(b"%d" % i)))
        check(wire.answer(2 * i + 1)[1] == message(b"%d" % i), "a stream of many")
    wire.request(101, GOOD, message(b"room"))
    check(wire.answer(101)[1] == message(b"room"), "room for another stream")
    wire.close()


# ---- clients that take too much

def opened(echo, **how):
    wire = Wire(echo.path, **how)
    wire.request(1, WATCH, message(b"first"))
    wire.wait(HEADERS, 1)
    return wire


def slow_stream(echo):
    """A stream whose client gives no window: of 2,000 messages it gets what had begun, and the last."""
    size = 100000
    idle = opened(echo)
    wire = opened(echo, settings=[(4, 0)])
    held = echo.memory()
    for i in range(2000):
        echo.tell("fill %d" % size)
    echo.tell("send last")
    check(echo.memory() < held + 8 * size, "memory of a slow reader: %d, %d before" % (echo.memory(), held))
    serves(echo)
    wire.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)) + frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1 << 30)))
    body = b""
    while not body.endswith(message(b"last")):
        body += wire.wait(DATA, 1)[3]
    check(body in (message(b"last"), message(b"first") + message(b"last")), "what a slow reader gets: %d bytes" % len(body))
    for one in (idle, wire):
        one.close()


def flood(echo, before):
    """Clients that ask and never read: the server stops reading what they send."""
    for data in (frame(PING, 0, 0, bytes(8)) * 1000, frame(SETTINGS, 0, 0) * 1000,
                 b"".join(frame(RST_STREAM, 0, 1, struct.pack(">I", CANCEL)) for _ in range(1000)), None):
        held = echo.memory()
        wire = Wire(echo.path)
        wire.request(1, GOOD, message(b""))
        wire.socket.setblocking(False)
        sent, stream = 0, 3
        try:
            while sent < 32 << 20:
                if data:
                    sent += wire.socket.send(data)
                    continue
                more = b"".join(frame(HEADERS, END_HEADERS, i, hpack(GOOD)) + frame(RST_STREAM, 0, i, struct.pack(">I", CANCEL))
                                for i in range(stream, stream + 200, 2))
                stream += 200
                check(wire.socket.send(more) == len(more) or True, "")
                sent += len(more)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        serves(echo)
        check(echo.memory() < held + (1 << 20), "memory of a flood: %d, %d before" % (echo.memory(), held))
        wire.close()
        wait_for("the flood to be gone", lambda: echo.descriptors() <= before)


def stuck(echo):
    """A client that gives all the window there is, and does not read its socket; 64 MiB are sent to it."""
    wire = opened(echo, settings=[(4, 0x7fffffff)])
    wire.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fff0000)))
    held = echo.memory()
    for _ in range(64):
        echo.tell("fill 1000000")
        serves(echo)
    check(echo.memory() < held + (4 << 20), "memory of a client that is stuck: %d, %d before" % (echo.memory(), held))
    echo.tell("send last")
    tail = b""
    while not tail.endswith(message(b"last")):
        tail = (tail + wire.wait(DATA, 1)[3])[-20:]
    wire.close()


def unread_replies(echo):
    """Calls, and calls, whose replies nobody reads: the server takes no more of them, until they are read."""
    body, held = message(bytes(1000000)), echo.memory()
    wire = Wire(echo.path, settings=[(4, 0x7fffffff)])
    calls = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fff0000))
    for stream in range(1, 2 * STREAMS, 2):
        calls += frame(HEADERS, END_HEADERS, stream, hpack(GOOD))
        calls += b"".join(frame(DATA, 0, stream, body[at:at + 16000]) for at in range(0, len(body), 16000)) + frame(DATA, END_STREAM, stream)
    wire.socket.setblocking(False)
    sent, until = 0, time.monotonic() + 2
    while sent < len(calls) and time.monotonic() < until:  # what it does not take in that time, it does not take
        try:
            sent += wire.socket.send(calls[sent:sent + 100000])
        except BlockingIOError:
            time.sleep(0.01)
    check(echo.memory() < held + (8 << 20), "memory of unread replies: %d, %d before" % (echo.memory(), held))
    check(sent < len(calls), "all calls were taken")
    serves(echo)
    wire.socket.settimeout(40)
    rest = threading.Thread(target=wire.send, args=(calls[sent:],))
    rest.start()
    got = 0
    while got < STREAMS * len(body):
        got += len(wire.wait(DATA)[3])
    rest.join()
    wire.close()


def large_requests(echo, before):
    """Requests that begin and do not end: there is a bound for all of them together, and what they held is there again after them."""
    part, wires, refused = bytes(16000), [], 0
    for _ in range(20):
        wire = Wire(echo.path)
        wires.append(wire)
        wire.send(frame(HEADERS, END_HEADERS, 1, hpack(GOOD)) + frame(DATA, 0, 1, message(b"", length=4 << 20)))
        sent, window, total = 0, 65535 - 5, 65535 - 5
        while sent + len(part) < 4 << 20:
            while min(window, total) < len(part):
                got = wire.next()
                if got[0] == WINDOW_UPDATE:
                    more = int.from_bytes(got[3], "big")
                    window, total = (window + more, total) if got[2] else (window, total + more)
                elif got[0] == HEADERS:
                    check(wire.inflater.read(got[3])["grpc-status"] == EXHAUSTED, "another answer than that it is too much")
                    break
            else:
                wire.send(frame(DATA, 0, 1, part))
                sent, window, total = sent + len(part), window - len(part), total - len(part)
                continue
            refused += 1
            break
    check(0 < refused < len(wires), "%d of %d large requests were refused" % (refused, len(wires)))
    check(echo.memory() < 150 << 20, "memory of large requests: %d" % echo.memory())
    for wire in wires:
        wire.close()
    wait_for("them to be gone", lambda: echo.descriptors() <= before)
    serves(echo)


def crowded(echo, before):
    """More clients than there is room for: the one that has been idle for longest goes; where none is, the next one waits."""
    idle = [Wire(echo.path) for _ in range(CONNECTIONS)]
    for one in idle[:1]:
        one.request(1, GOOD, message(b""))
        one.answer(1)
    for one in idle[1:]:
        one.wait(SETTINGS)
    idle[0].request(3, GOOD, message(b""))  # the first is the newest now
    idle[0].answer(3)
    serves(echo)
    got = idle[1].wait(GOAWAY)
    check(got is not None and not idle[1].until_end(), "the one that was idle for longest is told and ended")
    for one in idle[2:] + idle[:1]:
        one.request(5, GOOD, message(b""))
        check(one.answer(5)[1] == message(b""), "the others are served")
    for one in idle:
        one.close()
    wait_for("them to be gone", lambda: echo.descriptors() <= before)
    busy = [opened(echo) for _ in range(CONNECTIONS)]
    late = Wire(echo.path)
    late.request(1, GOOD, message(b"late"))
    echo.tell("send all")
    for one in busy:
        check(one.wait(DATA, 1)[3] == message(b"first") and one.wait(DATA, 1)[3] == message(b"all"), "all that are in are served")
    check(echo.descriptors() == before + CONNECTIONS, "nobody else is let in")
    late.socket.setblocking(False)
    try:
        check(late.socket.recv(1) and False, "the late one is served too early")
    except BlockingIOError:
        late.socket.settimeout(40)
    busy[7].close()
    check(late.answer(1)[1] == message(b"late"), "the late one has its turn")
    late.close()
    for one in busy:
        one.close()
    wait_for("them to be gone", lambda: echo.descriptors() <= before)


def no_descriptors():
    """The process has none left: it waits, does not spin, and goes on when there are some."""
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))

    echo = Echo(preexec_fn=few)
    before = echo.descriptors()
    wires = []
    while echo.descriptors() < 12:
        count = echo.descriptors()
        wires.append(opened(echo))
        check(echo.descriptors() == count + 1, "a connection takes one descriptor")
    late = Wire(echo.path)
    late.request(1, GOOD, message(b"late"))
    used = echo.processor_time()
    time.sleep(1)
    check(echo.processor_time() - used < 0.1, "%g s of work in one of waiting" % (echo.processor_time() - used))
    echo.tell("send on")
    check(wires[0].wait(DATA, 1)[3] == message(b"first") and wires[0].wait(DATA, 1)[3] == message(b"on"), "those who are in are served")
    wires.pop().close()
    check(late.answer(1)[1] == message(b"late"), "served when there is room")
    for wire in wires + [late]:
        wire.close()
    wait_for("them to be gone", lambda: echo.descriptors() <= before)
    echo.end()


def main():
    echo = Echo()
    before = echo.descriptors()
    for test in (good_ways, wrong_calls, wrong_pseudo_headers, wrong_messages, pieces, breakers, garbage, pings, many_streams, slow_stream, stuck,
                 unread_replies):
        test(echo)
        wait_for("the connections of %s to end" % test.__name__, lambda: echo.descriptors() <= before)
    for test in (halves, flood, large_requests, crowded):
        test(echo, before)
    echo.end()
    no_descriptors()


main()
