# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for tests of pages: started for one test, driven through the DevTools protocol on two pipes, nothing but the standard library."""
import base64
import json
import os
import select
import subprocess
import tempfile
import time


class BrowserError(Exception):
    pass


class Browser:
    """One browser with one tab. `events` is what it said by itself, in order."""

    PATIENCE = 60

    def __init__(self, width=1280, height=900):
        self.profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        ours, theirs = os.pipe(), os.pipe()  # it reads file descriptor 3 and writes 4
        self.write, self.read = ours[1], theirs[0]
        shell = 'exec 3<&%d 4>&%d; exec "$@"' % (ours[0], theirs[1])
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "SOFTSLICE_", "SOFTSIM_"))}
        environment.update(HOME=self.profile.name, XDG_CONFIG_HOME=self.profile.name, XDG_CACHE_HOME=self.profile.name)
        self.log = open(os.path.join(self.profile.name, "log"), "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "browser", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--no-proxy-server",
             "--hide-scrollbars", "--force-color-profile=srgb", "--font-render-hinting=none", "--remote-debugging-pipe",
             "--user-data-dir=" + self.profile.name, "--window-size=%d,%d" % (width, height), "about:blank"],
            pass_fds=(ours[0], theirs[1]), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=environment, start_new_session=True)
        os.close(ours[0])
        os.close(theirs[1])
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.wait_for(lambda: [t["targetId"] for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"])[0]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(domain + ".enable")
        self.size(width, height)

    def __enter__(self):
        return self

    def __exit__(self, exception, *_):
        if exception:
            try:
                print("The page shows:\n" + self.eval("document.body.innerText") + "\nand its console: %s" % self.complaints(), flush=True)
            except (BrowserError, OSError):
                pass
        try:
            self.session = None
            self.call("Browser.close")
        except (BrowserError, OSError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        os.close(self.write)
        os.close(self.read)
        self.log.close()
        self.profile.cleanup()

    # ---- the protocol: JSON and a 0

    def receive(self, deadline):
        """The next message, or None at the deadline."""
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0, deadline - time.monotonic()))[0]:
                return None
            piece = os.read(self.read, 1 << 16)
            if not piece:
                self.log.seek(0)
                raise BrowserError("the browser has ended: " + self.log.read()[-2000:])
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.PATIENCE
        while True:
            answer = self.receive(deadline)
            if answer is None:
                raise BrowserError("no answer to " + method)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise BrowserError("%s: %s" % (method, answer["error"]["message"]))
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def listen(self, seconds=0.05):
        """Take what it says meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            message = self.receive(deadline)
            if message is None:
                return
            if "method" in message:
                self.events.append(message)

    def wait_for(self, condition, patience=PATIENCE):
        """What `condition` gives as soon as it is true."""
        deadline = time.monotonic() + patience
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise BrowserError("waited %d s in vain" % patience)
            self.listen()

    # ---- pages

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_for(lambda: any(e["method"] == "Page.loadEventFired" for e in self.events))

    def eval(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError("%s: %s" % (expression[:200], json.dumps(result["exceptionDetails"])[:1000]))
        return result["result"].get("value")

    def until(self, expression, patience=PATIENCE):
        return self.wait_for(lambda: self.eval(expression), patience)

    def size(self, width, height, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)

    def media(self, **features):
        """prefers_color_scheme="dark", ..."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": k.replace("_", "-"), "value": v} for k, v in features.items()])

    def press(self, key, modifiers=0):
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code={" ": "Space"}.get(key, key), windowsVirtualKeyCode=code, modifiers=modifiers,
                      **({"text": {"Enter": "\r"}.get(key, key)} if kind == "keyDown" and key != "Tab" else {}))

    def tree(self):
        """The accessibility tree: (role, name) of everything that is not ignored."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]

    def requests(self):
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self):
        """Errors and warnings on the console, exceptions, what a policy refused."""
        found = [e["params"]["exceptionDetails"].get("exception", {}).get("description", "exception") for e in self.events
                 if e["method"] == "Runtime.exceptionThrown"]
        entries = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        found += [entry["text"] for entry in entries if entry["level"] in ("error", "warning")]
        return found + [str([a.get("value") for a in e["params"]["args"]]) for e in self.events
                        if e["method"] == "Runtime.consoleAPICalled" and e["params"]["type"] in ("error", "warning", "assert")]

    def screenshot(self, path, whole=False):
        box = self.call("Page.getLayoutMetrics")["cssContentSize"] if whole else None
        clip = {"clip": {"x": 0, "y": 0, "width": box["width"], "height": box["height"], "scale": 1}} if whole else {}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
