# SPDX-License-Identifier: Apache-2.0
"""What the tests of the gRPC transport share: grpcio wherever it is, the program they talk to, and HTTP/2 by hand."""
import atexit
import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD, TMP = os.environ["TEST_BUILD"], os.environ["TEST_TMP"]
PATIENCE = int(os.environ["TEST_PATIENCE"])  # seconds for what comes sooner or later
SYSTEM = "/usr/bin/python3"  # the one that Debian's python3-grpcio is for


def find_grpc():
    """grpcio: of this Python, of the system's, or fetched; a reason to skip where none can be had."""
    try:
        import grpc
        return grpc
    except ImportError:
        pass
    if os.path.exists(SYSTEM) and not os.environ.get("TEST_AGAIN") and \
            subprocess.run([SYSTEM, "-c", "import grpc"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        os.environ["TEST_AGAIN"] = "1"
        os.execv(SYSTEM, [SYSTEM] + sys.argv)
    fetched = subprocess.run([os.path.join(ROOT, "scripts", "python-packages"), "grpcio", "grpcio"], stdout=subprocess.PIPE, check=False, text=True)
    if fetched.returncode:
        print("grpcio is not here, neither Debian's python3-grpcio nor one that pip can fetch")
        sys.exit(77)
    sys.path.insert(0, fetched.stdout.strip())
    import grpc
    return grpc


def check(condition, what):
    if not condition:
        print("FAILED: %s" % (what,))
        sys.exit(1)


def wait_for(what, condition, seconds=PATIENCE):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    check(False, "waited in vain for " + what)
    return None


class Echo:
    """tests/plugin/echo.c on a socket of its own. At its end it has to have given everything back."""

    count = 0
    all = []

    def __init__(self, path=None, **how):
        Echo.count += 1
        self.path = path or os.path.join(TMP, "echo-%d.sock" % Echo.count)
        self.process = subprocess.Popen([os.path.join(BUILD, "tests", "plugin", "echo"), self.path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, **how)
        Echo.all.append(self)
        self.said = self.process.stdout.readline().strip()

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().rstrip("\n")
        check(answer, "the program is gone: %s" % self.process.poll())
        return answer

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def processor_time(self):
        """Seconds that it has used."""
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as stat:
            words = stat.read().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        return int(self.tell("memory"))

    def end(self):
        self.process.stdin.close()
        status = self.process.wait(timeout=PATIENCE)
        check(status == 0, "the program ended with %s" % status)
        check(not os.path.lexists(self.path), "the socket is left")


@atexit.register
def kill_all():
    for echo in Echo.all:
        if echo.process.poll() is None:
            echo.process.send_signal(signal.SIGKILL)
            echo.process.wait()


# ---- HTTP/2 by hand

MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
NO_ERROR, PROTOCOL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 6, 7, 8
GOOD = [(":method", "POST"), (":scheme", "http"), (":path", "/test.Echo/Echo"), (":authority", "/a/path.sock"),
        ("te", "trailers"), ("content-type", "application/grpc")]


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value, bits):
    """An integer of HPACK in the lower bits of its first byte."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = [most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + [value])


def hpack(headers):
    """Literals, never indexed, no Huffman code."""
    out = b""
    for name, value in headers:
        name, value = (word.encode() if isinstance(word, str) else word for word in (name, value))
        out += b"\x10" + integer(len(name), 7) + name + integer(len(value), 7) + value
    return out


def message(body, flag=0, length=None):
    return struct.pack(">BI", flag, len(body) if length is None else length) + body


def changed(**how):
    """GOOD with other values; path="/x" for :path, content_type=None takes it out."""
    out = []
    for name, value in GOOD:
        key = name.strip(":").replace("-", "_")
        if how.get(key, value) is not None:
            out.append((name, how.get(key, value)))
    return out


class Pair(ctypes.Structure):
    """nghttp2_nv"""
    _fields_ = [("name", ctypes.c_void_p), ("value", ctypes.c_void_p), ("name_length", ctypes.c_size_t), ("length", ctypes.c_size_t),
                ("flags", ctypes.c_uint8)]


class Inflater:
    """Reads the header blocks of a connection, one after the other."""

    library = ctypes.CDLL("libnghttp2.so.14")

    def __init__(self):
        self.inflater = ctypes.c_void_p()
        check(self.library.nghttp2_hd_inflate_new(ctypes.byref(self.inflater)) == 0, "no inflater")

    def read(self, block):
        headers, pair, flags = {}, Pair(), ctypes.c_int()
        inflate = self.library.nghttp2_hd_inflate_hd2
        inflate.restype = ctypes.c_ssize_t
        while True:
            taken = inflate(self.inflater, ctypes.byref(pair), ctypes.byref(flags), block, ctypes.c_size_t(len(block)), 1)
            check(taken >= 0, "not a header block: %d" % taken)
            block = block[taken:]
            if flags.value & 2:
                headers[ctypes.string_at(pair.name, pair.name_length).decode()] = ctypes.string_at(pair.value, pair.length).decode()
            if flags.value & 1:
                self.library.nghttp2_hd_inflate_end_headers(self.inflater)
                return headers


class Wire:
    """A client of HTTP/2 that does as it is told."""

    def __init__(self, path, settings=(), magic=MAGIC):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.settimeout(PATIENCE)
        self.bytes, self.inflater = b"", Inflater()
        if magic is not None:
            self.send(magic + frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings)))

    def send(self, data):
        self.socket.sendall(data)

    def request(self, stream, headers, body=None, end=True):
        """A whole call, or one without a body, or only its headers."""
        flags = END_HEADERS | (END_STREAM if end and body is None else 0)
        self.send(frame(HEADERS, flags, stream, hpack(headers)))
        if body is not None:
            self.send(frame(DATA, END_STREAM if end else 0, stream, body))

    def receive(self, length):
        while len(self.bytes) < length:
            more = self.socket.recv(1 << 16)
            if not more:
                return None
            self.bytes += more
        out, self.bytes = self.bytes[:length], self.bytes[length:]
        return out

    def next(self):
        """The next frame: kind, flags, stream, payload. None at the end."""
        head = self.receive(9)
        if head is None:
            return None
        payload = self.receive(int.from_bytes(head[:3], "big"))
        return None if payload is None else (head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    def wait(self, kind, stream=None):
        """The next frame of that kind; the others on the way are dropped. None at the end."""
        while True:
            got = self.next()
            if got is None or (got[0] == kind and stream in (None, got[2])):
                return got

    def answer(self, stream):
        """What a call comes to: headers and trailers, body, and the code of RST_STREAM, if one came before their end."""
        headers, body = {}, b""
        while True:
            got = self.next()
            check(got is not None, "the connection ended before the stream did")
            kind, flags, of, payload = got
            if of != stream:
                continue
            if kind == HEADERS:
                headers.update(self.inflater.read(payload))
            elif kind == DATA:
                body += payload
            elif kind == RST_STREAM:
                return headers, body, int.from_bytes(payload, "big")
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return headers, body, None

    def until_end(self):
        """All frames until the server closes."""
        frames = []
        try:
            for got in iter(self.next, None):
                frames.append(got)
        except ConnectionResetError:
            pass
        return frames

    def close(self):
        self.socket.close()


def scratch(name):
    path = os.path.join(TMP, name)
    if os.path.isdir(path):
        shutil.rmtree(path)
    return path
