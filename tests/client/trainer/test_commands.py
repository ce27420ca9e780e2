"""Commands of the control channel: which a run obeys, and what they do to it."""

import json
import logging
import subprocess
import threading
import time
import unittest

from servers import Case, until

import cascor_ingest


class Commands(Case):
    def begin(self, name, **more):
        run = cascor_ingest.init(name, redis_url=self.redis.url, **more)
        self.addCleanup(run.finish)
        self.listening(1)
        return run

    def listening(self, count):
        """Waits until so many trainers listen beside the daemon."""
        until("the trainer to listen", lambda: self.redis.client().pubsub_numsub("cascor:control")[0][1] > count)

    def send(self, payload):
        self.redis.client().publish("cascor:control", payload)

    def test_a_targeted_command_is_obeyed(self):
        run = self.begin("obeys")
        for target in "trainer", "obeys", str(run.uuid), str(run.uuid).upper():
            self.send('{"command": " Pause ", "target": "%s"}' % target)
            until("the pause", lambda: run.paused)
            self.send('{"type": "command", "data": {"command": "resume", "target": "%s"}}' % target)
            until("the resume", lambda: not run.paused)
        self.assertFalse(run.stopped)

    def test_commands_for_everyone_or_for_another_are_not_obeyed(self):
        run = self.begin("stays")
        for payload in "pause", '"pause"', '{"command": "stop"}', '{"command": "stop", "target": "ingest"}', '{"command": "stop", "target": "other"}', "{", "[1]", '{"command": 7}':
            self.send(payload)
        self.send('{"command": "pause", "target": "stays"}')
        until("the pause", lambda: run.paused)
        self.assertFalse(run.stopped)

    def test_all_means_commands_for_everyone_too(self):
        run = self.begin("all", obey="all")
        self.send('{"command": "pause", "target": "ingest"}')
        self.send("pause")
        until("the pause", lambda: run.paused)
        self.send(b"\x81\xa7command\xa6resume")  # MessagePack, for those who have its package
        self.send('"resume"')
        until("the resume", lambda: not run.paused)
        self.send('{"command": "stop"}')
        until("the stop", lambda: run.stopped)

    def hears(self, run):
        """Waits until the run has begun to listen, which nothing else says."""
        for command, holds in ("pause", lambda: run.paused), ("resume", lambda: not run.paused):
            until(f"`{command}`", lambda: self.send(json.dumps({"command": command, "target": run.id})) or holds())

    def test_commands_for_a_run_reach_its_trainer_alone(self):
        run, other = self.begin("commanded"), self.begin("bystander")
        for one in run, other:
            self.hears(one)
            one.log({"loss": 0.5})
            self.daemon.rows(one.name, 1)

        def by_command_line(command):
            said = self.daemon.cli("control", command, "--run", "comman")
            self.assertIn(f"`{command}` sent to the trainer of commanded ({run.uuid}) on cascor:control (", said)

        def by_page(command):
            receipt = self.daemon.post("/api/control", {"command": command, "target": self.daemon.run("commanded")["run_id"]})
            self.assertEqual((receipt["target"], receipt["outcome"]), (str(run.uuid), None))

        for send in by_command_line, by_page:
            send("pause")
            until("the pause", lambda: run.paused)
            send("resume")
            until("the resume", lambda: not run.paused)
        by_command_line("stop")
        until("the stop", lambda: run.stopped)
        run.finish()
        self.daemon.ended("commanded", "stopped")
        self.assertFalse(other.paused or other.stopped)
        self.assertFalse(self.daemon.get("/api/status")["paused"], "the daemon stores on")
        with self.assertRaises(subprocess.CalledProcessError) as refused:
            self.daemon.cli("control", "pause", "--run", "commanded")
        self.assertEqual(refused.exception.returncode, 1)
        self.assertIn("is stopped in the store, so no trainer of it should listen", refused.exception.stderr)

    def test_a_pause_is_waited_for(self):
        run = self.begin("waits")
        self.assertTrue(run.wait_while_paused(0), "it is not paused")
        self.send('{"command": "pause", "target": "waits"}')
        until("the pause", lambda: run.paused)
        self.assertFalse(run.wait_while_paused(0.05))
        threading.Timer(0.2, self.send, ['{"command": "resume", "target": "waits"}']).start()
        self.assertTrue(run.wait_while_paused(20))
        self.send('{"command": "pause", "target": "waits"}')
        until("the pause", lambda: run.paused)
        threading.Timer(0.2, self.send, ['{"command": "stop", "target": "waits"}']).start()
        self.assertTrue(run.wait_while_paused(20), "a stop ends the pause")
        self.assertTrue(run.stopped and not run.paused)

    def test_a_stopped_run_ends_as_stopped(self):
        for name, status, given in ("ends", "stopped", None), ("ends-otherwise", "completed", "completed"):
            run = self.begin(name)
            self.redis.command("stop", name, run)
            run.finish(given)
            self.daemon.ended(name, status)

    def test_commands_are_obeyed_again_after_redis_was_away(self):
        with self.assertLogs("cascor_ingest", logging.WARNING):
            run = self.begin("returns")
            self.redis.kill()
            time.sleep(0.3)
            self.redis.start()
            self.listening(1)
            self.redis.command("stop", "returns", run)

    def test_nothing_listens_for_a_run_that_obeys_none(self):
        run = cascor_ingest.init("deaf", redis_url=self.redis.url, obey="none")
        run.flush(20)
        self.assertFalse(run.paused or run.stopped)
        self.assertNotIn("cascor-ingest-control", [thread.name for thread in threading.enumerate() if thread.name.endswith("deaf")])
        run.finish()


if __name__ == "__main__":
    unittest.main()
