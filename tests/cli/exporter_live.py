# SPDX-License-Identifier: Apache-2.0
"""Tenants that work on the simulated GPU, and the exporter that tells of them: for the test of the page and for its pictures."""
import json
import os
import queue
import subprocess
import sys
import threading
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 60


class Process:
    """A program that answers by lines."""

    def __init__(self, command, environment, stderr=subprocess.DEVNULL):
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def answer(self):
        line = self.lines.get(timeout=PATIENCE)
        if line is None:
            raise RuntimeError("%s has ended: %s" % (self.process.args, self.process.wait()))
        return line

    def end(self):
        self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Worker(Process):
    """worker.py on a GPU: in a tenant of that name with these options of `softslice run`, or without softslice."""

    def __init__(self, command, environment, name=None, gpu=0, **limits):
        self.name = name
        run = [command, "run", "--tenant", name] + [word for key, value in limits.items() for word in ("--" + key, value)] + ["--"] if name else []
        super().__init__(run + [sys.executable, os.path.join(HERE, "worker.py"), str(gpu)], environment)
        if self.answer() != "ready":
            raise RuntimeError("the worker is not ready")

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()


class Exporter(Process):
    def __init__(self, command, environment, address="127.0.0.1:0"):
        super().__init__([command, "exporter", "--listen", address], environment)
        self.url = self.answer().split()[-1]

    def get(self, path=""):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def status(self):
        return json.loads(self.get("api/v1/status"))
