# SPDX-License-Identifier: Apache-2.0
"""A terminal for tests, tmux's, and tenants that do what a test says."""
import os
import subprocess
import time

PATIENCE = int(os.environ["TEST_PATIENCE"])  # seconds for what comes sooner or later


def wait_for(what, words, get):
    """Until `what` holds of get(); then that. The last of them is told where it never does."""
    end = time.monotonic() + PATIENCE
    while True:
        seen = get()
        if what(seen):
            return seen
        if time.monotonic() > end:
            raise AssertionError("%s; the last seen:\n%s" % (words, seen))
        time.sleep(0.03)


class Terminal:
    """One window of a tmux server of its own, which stays in the foreground so that it ends with the test."""

    def __init__(self, folder, env, columns=80, lines=24):
        self.socket, self.status = os.path.join(folder, "tmux"), os.path.join(folder, "tmux-status")
        self.env = dict(env, SHELL="/bin/sh", TERM="screen-256color", ENV="", PS1="$ ", LC_ALL="C.UTF-8")
        self.env.pop("TMUX", None)
        self.server = subprocess.Popen(["tmux", "-D", "-u", "-S", self.socket, "-f", "/dev/null"], env=self.env, stdin=subprocess.DEVNULL)
        wait_for(os.path.exists, "no tmux", lambda: self.socket)
        self.tmux("set-option", "-g", "remain-on-exit", "on")
        self.size = columns, lines
        self.started = False

    def tmux(self, *words):
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(["tmux", "-u", "-S", self.socket, *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, check=False, timeout=60)
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > end or "connect" not in done.stderr:
                raise AssertionError("tmux %s: %s" % (" ".join(words), done.stderr))
            time.sleep(0.05)

    def start(self, command):
        """Run a shell command in the window, instead of what ran there. How it ends is left in a file: tmux does not always come to know it."""
        if os.path.exists(self.status):
            os.unlink(self.status)
        command = "%s\necho $? >%s.new; mv %s.new %s" % (command, *[self.status] * 3)
        if self.started:
            self.tmux("respawn-window", "-k", "-t", "test", command)
            self.tmux("clear-history", "-t", "test")
        else:
            self.tmux("new-session", "-d", "-s", "test", "-x", str(self.size[0]), "-y", str(self.size[1]), command)
            self.started = True

    def resize(self, columns, lines):
        self.tmux("resize-window", "-t", "test", "-x", str(columns), "-y", str(lines))
        self.size = columns, lines

    def keys(self, *keys):
        self.tmux("send-keys", "-t", "test", *keys)

    def type(self, text):
        self.tmux("send-keys", "-t", "test", "-l", text)

    def screen(self, escapes=False):
        """Its lines, without blanks at their ends. One that is just being drawn is not the same twice."""
        before, text = None, ""
        while text != before:
            time.sleep(0.01 if text else 0)
            before, text = text, self.tmux("capture-pane", "-p", "-t", "test", *(["-e"] if escapes else []))
        return "\n".join(line.rstrip() for line in text.split("\n"))

    def until(self, what, words=None):
        """Wait until a text is on the screen, or something holds of it."""
        if isinstance(what, str):
            return wait_for(lambda screen: what in screen, words or "expected on the screen: " + what, self.screen)
        return wait_for(what, words or "the screen is not as expected", self.screen)

    def ended(self):
        """Wait for the end of what the window runs. Its exit status, as the shell has it."""
        wait_for(os.path.exists, "it has not ended", lambda: self.status)
        with open(self.status, encoding="ascii") as status:
            return int(status.read())

    def end(self):
        self.server.kill()
        self.server.wait()


class Tenants:
    """tests/programs/tenants: memberships in a process of its own."""

    def __init__(self, build, directory, gpus):
        self.child = subprocess.Popen([os.path.join(build, "tests/programs/tenants"), directory, *gpus], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True, bufsize=1)

    def __call__(self, *words):
        self.child.stdin.write(" ".join(map(str, words)) + "\n")
        answer = self.child.stdout.readline().strip()
        if answer != "ok":
            raise AssertionError("tenants: %s: %s" % (" ".join(map(str, words)), answer))

    def end(self):
        self.child.stdin.close()
        self.child.wait()
