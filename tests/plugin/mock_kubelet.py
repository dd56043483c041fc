# SPDX-License-Identifier: Apache-2.0
"""What the tests of the device plugin share: a kubelet of grpcio's, the plugin, and the wire format of the few messages between them."""
import atexit
import os
import queue
import re
import signal
import subprocess
import threading
import time
from concurrent import futures

from rpc_helper import PATIENCE, check, find_grpc, wait_for

grpc = find_grpc()
BUILD, TMP = os.environ["TEST_BUILD"], os.environ["TEST_TMP"]
PLUGIN = os.path.join(BUILD, "softslice-device-plugin")
SERVICE = "/v1beta1.DevicePlugin/"
started = []


# ---- protobuf's wire format


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def encode(*fields):
    """(number, int | str | bytes), ... as a message."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def decode(data):
    """{number: [int | bytes, ...]}"""
    at, fields = 0, {}

    def take():
        nonlocal at
        shift = number = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(data):
        key = take()
        if key & 7 == 0:
            value = take()
        else:
            assert key & 7 == 2, "a wire type that none of these messages has"
            length = take()
            value, at = data[at:at + length], at + length
        fields.setdefault(key >> 3, []).append(value)
    return fields


def texts(fields, number):
    return [value.decode() for value in fields.get(number, [])]


def text(fields, number):
    return (texts(fields, number) or [""])[0]


class Answer:
    """A ContainerAllocateResponse."""

    def __init__(self, data):
        fields = decode(data)
        entries = [decode(entry) for entry in fields.get(1, [])]
        self.envs = {text(entry, 1): text(entry, 2) for entry in entries}
        mounts = [decode(mount) for mount in fields.get(2, [])]
        self.mounts = [(text(m, 1), text(m, 2), bool(m.get(3, [0])[0])) for m in mounts]  # container, host, read-only
        devices = [decode(device) for device in fields.get(3, [])]
        self.devices = [(text(d, 1), text(d, 2), text(d, 3)) for d in devices]
        self.annotations = fields.get(4, [])
        self.cdi = [text(decode(device), 1) for device in fields.get(5, [])]

    def host(self, container):
        return {path: host for path, host, _ in self.mounts}[container]

    @property
    def name(self):
        """Of the budget."""
        return os.path.basename(self.host("/run/softslice"))

    @property
    def ini(self):
        with open(self.host("/etc/softslice") + "/softslice.ini", encoding="ascii") as file:
            return file.read()


# ---- the kubelet


class Endpoint:
    """A plugin's socket, as the kubelet uses it."""

    def __init__(self, path):
        self.path = path
        # Channels to one address share their back-off otherwise: a plugin that was away would be waited for.
        self.channel = grpc.insecure_channel("unix://" + path, [("grpc.use_local_subchannel_pool", 1)])
        self.lists = queue.Queue()
        self.stream = None

    def call(self, method, request=b"", timeout=20):
        return self.channel.unary_unary(SERVICE + method)(request, timeout=timeout)

    def status(self, method, request=b""):
        """(code, details) of a call that has to fail."""
        try:
            self.call(method, request)
        except grpc.RpcError as error:
            return error.code(), error.details()
        check(False, method + " succeeded")
        return None

    def watch(self):
        self.stream = self.channel.unary_stream(SERVICE + "ListAndWatch")(b"")

        def read():
            try:
                for message in self.stream:
                    self.lists.put({text(d, 1): text(d, 2) for d in map(decode, decode(message).get(1, []))})
            except grpc.RpcError:
                self.lists.put(None)

        threading.Thread(target=read, daemon=True).start()

    def list_of(self, what, condition, seconds=PATIENCE):
        """The first list for which it holds: {id: health}."""
        until = time.monotonic() + seconds
        while True:
            try:
                listed = self.lists.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                check(False, "no list came: " + what)
            check(listed is not None, "the stream ended while waiting for " + what)
            if condition(listed):
                return listed

    def allocate(self, *containers):
        response = self.call("Allocate", allocate_request(*containers))
        return [Answer(one) for one in decode(response).get(1, [])]

    def refuse(self, *containers):
        return self.status("Allocate", allocate_request(*containers))

    def prefer(self, size, available, must=()):
        one = encode(*[(1, i) for i in available], *[(2, i) for i in must], (3, size))
        response = self.call("GetPreferredAllocation", encode((1, one)))
        return texts(decode(decode(response)[1][0]), 1)

    def close(self):
        self.channel.close()


def allocate_request(*containers):
    return encode(*[(1, encode(*[(1, i) for i in ids])) for ids in containers])


class Kubelet:
    """Registration, as a kubelet of 1.27 does it: it asks the plugin for its options before it answers Register."""

    def __init__(self, directory):
        self.directory = directory
        self.registered = queue.Queue()
        self.refusals = 0
        self.server = None

    def start(self):
        for name in os.listdir(self.directory):
            os.unlink(os.path.join(self.directory, name))
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.method_handlers_generic_handler("v1beta1.Registration",
                                                       {"Register": grpc.unary_unary_rpc_method_handler(self.register)})
        self.server.add_generic_rpc_handlers((handler,))
        self.server.add_insecure_port("unix://" + os.path.join(self.directory, "kubelet.sock"))
        self.server.start()

    def stop(self):
        self.server.stop(0).wait()
        path = os.path.join(self.directory, "kubelet.sock")
        if os.path.exists(path):
            os.unlink(path)

    def register(self, request, context):
        fields = decode(request)
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now\nplease")
        options = decode(fields[4][0])
        endpoint = Endpoint(os.path.join(self.directory, text(fields, 2)))
        check(text(fields, 1) == "v1beta1", "version")
        check(decode(endpoint.call("GetDevicePluginOptions")) == options, "the options of Register and of the plugin differ")
        check(options == {2: [1]}, "get_preferred_allocation_available and nothing else")
        self.registered.put((text(fields, 3), endpoint))
        return b""

    def endpoints(self, *resources):
        """Wait until these are registered, and watch them."""
        found = {}
        while set(resources) - set(found):
            try:
                name, endpoint = self.registered.get(timeout=PATIENCE)
            except queue.Empty:
                check(False, "not registered: %s" % (set(resources) - set(found)))
            if name in found:
                found[name].close()
            found[name] = endpoint
        for endpoint in found.values():
            endpoint.watch()
        return [found[name] for name in resources]


class Pods:
    """PodResourcesLister of a kubelet: `pods` is [(namespace, pod, container, resource, ids)]."""

    def __init__(self, path):
        self.path, self.pods, self.asked = path, [], 0
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": grpc.unary_unary_rpc_method_handler(self.list)})
        self.server.add_generic_rpc_handlers((handler,))
        self.server.add_insecure_port("unix://" + path)
        self.server.start()

    def list(self, _request, _context):
        out = []
        for namespace, pod, container, resource, ids in self.pods:
            devices = encode((1, resource), *[(2, i) for i in ids])
            out.append((1, encode((1, pod), (2, namespace), (3, encode((1, container), (2, devices))))))
        self.asked += 1
        return encode(*out)

    def stop(self):
        self.server.stop(0).wait()


# ---- the plugin


class Plugin:
    def __init__(self, directory, name="plugin", config=None, env=None, options=()):
        self.root = os.path.join(TMP, name + "-root")
        self.saved = os.path.join(TMP, name + "-saved")
        self.log_path = os.path.join(TMP, name + ".log")
        self.config = os.path.join(TMP, name + ".ini")
        if config is not None:
            self.configure(config)
        words = [PLUGIN, "--kubelet-dir", directory, "--root", self.root, "--save-dir", self.saved, "--library", os.environ["TEST_LIB"]]
        words += ["--config", self.config] if config is not None else []
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(words + list(options), stderr=log, env={**os.environ, **(env or {})})
        started.append(self.process)

    def configure(self, config):
        with open(self.config + ".new", "w", encoding="ascii") as file:
            file.write(config)
        os.rename(self.config + ".new", self.config)

    @property
    def log(self):
        with open(self.log_path, "rb") as file:
            return file.read().decode()

    def logged(self, pattern, count=1):
        wait_for("'%s' in the log (%d times):\n%s" % (pattern, count, self.log_path),
                 lambda: len(re.findall(pattern, self.log)) >= count or self.process.poll() is not None)
        check(len(re.findall(pattern, self.log)) >= count, "not in the log: %s\n%s" % (pattern, self.log))

    def budgets(self):
        return {name for name in os.listdir(self.root) if name.startswith("k8s-")} if os.path.isdir(self.root) else set()

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(20)

    def check_log(self):
        """Each line whole, dated, and clean."""
        for line in self.log.splitlines():
            check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warning|error) [^\x00-\x1f\x7f-\xa0]+", line), "a log line: %r" % line)


@atexit.register
def end_all():
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
