"""A real Redis and a real daemon, what a daemon has stored, and trainers as programs of their own.

The daemon is the program that CASCOR_TEST_BINARY names.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import redis

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parents[2] / "deploy" / "python"
sys.path.insert(0, str(PACKAGE))
BINARY = os.environ.get("CASCOR_TEST_BINARY", "cascor-ingest")
LIMIT = 30
"""Seconds."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, ask, limit=LIMIT):
    """Asks until the answer is true, and returns it."""
    deadline, last = time.monotonic() + limit, None
    while time.monotonic() < deadline:
        last = ask()
        if last:
            return last
        time.sleep(0.03)
    raise AssertionError(f"waited {limit} s for {what}; last: {last!r}")


class Redis:
    """A redis-server that can be killed and started again on its port."""

    def __init__(self, *arguments):
        self.port, self._arguments, self.process = free_port(), arguments, None
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
        until("Redis", self.answers)

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()

    def client(self):
        return redis.Redis.from_url(self.url)

    def command(self, command, target, run):
        """Sends `stop` until the run has it: nobody says when a run has begun to listen."""
        message = json.dumps({"command": command, "target": target})
        until(f"`{command}`", lambda: self.client().publish("cascor:control", message) and run.stopped)


class Daemon:
    """A daemon on SQLite, and what it says by HTTP."""

    def __init__(self, redis, instance="test", **settings):
        self.folder, self.port = pathlib.Path(tempfile.mkdtemp(prefix="cascor-trainer.")), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        lines = [
            f'instance = "{instance}"', f'state_dir = "{self.folder}/state"', f'redis.url = "{redis.url}"', 'store.kind = "sqlite"',
            f'http.listen = "127.0.0.1:{self.port}"', 'writer.flush_interval = "50ms"',
        ]
        lines += [f"{key.replace('__', '.')} = {json.dumps(value)}" for key, value in settings.items()]
        (self.folder / "config.toml").write_text("\n".join(lines) + "\n")
        self.process = None
        self.start()

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([BINARY, "run", "--config", self.folder / "config.toml"], stderr=log, stdout=log)
        until("the daemon", self.ready)

    def ready(self):
        try:
            return urllib.request.urlopen(f"{self.url}/readyz", timeout=5).status == 200
        except OSError:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(LIMIT)

    def close(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters, doseq=True)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def cli(self, *arguments):
        command = [BINARY, *arguments, "--config", str(self.folder / "config.toml")]
        return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    def run(self, name):
        """The row of a run; empty while there is none."""
        try:
            return self.get(f"/api/runs/{urllib.parse.quote(name, safe='')}")["run"]
        except urllib.error.HTTPError as error:
            assert error.code in (400, 404), error
            return {}

    def ended(self, name, status):
        """The row of a run, once it has this status."""
        return until(f"`{name}` to be {status}: {self.run(name)}", lambda: self.run(name).get("status") == status and self.run(name))

    def rows(self, name, count=None):
        """The metrics of a run, oldest first; once there are as many."""

        def ask():
            found = self.get("/api/metrics/range", run_id=name, limit=10_000, order="asc")["metrics"] if self.run(name) else []
            return found if count is None or len(found) >= count else None

        found = until(f"{count} rows of `{name}`", ask) if count else ask()
        if count is not None:
            assert len(found) == count, f"{len(found)} rows of `{name}`, and not {count}"
        return found

    def events(self, name, kind=None):
        """The events of a run; of a kind, once there is one."""

        def ask():
            found = self.get(f"/api/runs/{urllib.parse.quote(name, safe='')}/events")["events"] if self.run(name) else []
            return [event for event in found if kind in (None, event["type"])]

        return until(f"an event {kind} of `{name}`", ask) if kind else ask()

    def lost(self, name):
        """What the daemon's gap rows of the run sum up to."""
        found = self.get(f"/api/runs/{urllib.parse.quote(name, safe='')}/gaps")
        return sum(gap["lost"] or 0 for gap in found["gaps"] if gap["reason"] == "sequence" and gap["run_id"] == self.run(name)["run_id"])


class Case(unittest.TestCase):
    """Tests that share a Redis and a daemon."""

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.redis = Redis()
        cls.addClassCleanup(cls.redis.kill)
        cls.daemon = Daemon(cls.redis, **cls.settings)
        cls.addClassCleanup(cls.daemon.close)

    def trainer(self, script, *arguments, **environment):
        """Starts a program; `R` in it is the URL of Redis."""
        head = f"import os, signal, sys, time, cascor_ingest\nR = {self.redis.url!r}\n"
        folder = tempfile.mkdtemp(prefix="cascor-trainer.")
        self.addCleanup(shutil.rmtree, folder)
        path = pathlib.Path(folder) / "train.py"
        path.write_text(head + textwrap.dedent(script))
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", path, *arguments], cwd=folder, text=True,
            env={**os.environ, "PYTHONPATH": f"{PACKAGE}{os.pathsep}{HERE}", "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # A shell ignores it in what it starts in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.addCleanup(self._reap, process)
        return process

    def _reap(self, process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def train(self, script, *arguments, status=0, **environment):
        """Runs a program to its end, and returns what it printed."""
        process = self.trainer(script, *arguments, **environment)
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, status, err)
        return out + err

    def interrupt(self, process, number=signal.SIGTERM):
        """Sends a signal to a program once it has printed its first line; returns its exit status."""
        self.assertTrue(process.stdout.readline())
        process.send_signal(number)
        process.communicate(timeout=30)
        return process.returncode
