"""A run is published on a stream of Redis when it is told so, and only then; what was accepted is there, in the form that daemons read."""

import json
import logging
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
from unittest import mock

import redis
from servers import PACKAGE, Case, Daemon, Redis, until

import cascor_ingest

STREAM = "cascor:training:stream"


class Counted(redis.Redis):
    """Counts the pipelines that are made."""

    pipelines = 0

    def pipeline(self, *args, **more):
        self.pipelines += 1
        return super().pipeline(*args, **more)


class Entries(unittest.TestCase):
    """What is in the stream; no daemon reads it."""

    def setUp(self):
        self.redis = Redis("--appendonly", "yes", "--appendfsync", "always", "--dir", self.folder())
        self.addCleanup(self.redis.kill)

    def folder(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def begin(self, name, **more):
        run = cascor_ingest.init(name, **{"redis_url": self.redis.url, "stream": STREAM, "finish_timeout": 60, **more})
        self.addCleanup(run.finish)
        return run

    def messages(self, stream=STREAM):
        """The messages of a stream, oldest first. Each entry has the field `data` alone."""
        found = []
        for _, fields in self.redis.client().xrange(stream):
            self.assertEqual(list(fields), [b"data"])
            found.append(json.loads(fields[b"data"]))
        return found

    def check_complete(self, steps):
        """Every message is there, in order; what is there twice has the same bytes, which are one row."""
        entries = [fields[b"data"] for _, fields in self.redis.client().xrange(STREAM)]
        messages = [json.loads(entry) for entry in dict.fromkeys(entries)]
        self.assertEqual([message["seq"] for message in messages], list(range(steps + 2)))

    def test_the_stream_has_the_messages_of_the_channel(self):
        with self.begin("spiral", config={"lr": 0.5}) as run:
            for step in range(1_000):
                run.log({"loss": 0.5}, epoch=1, step=step)
        messages = self.messages()
        self.assertEqual([message["seq"] for message in messages], list(range(1_002)))
        self.assertEqual([messages[0]["type"], messages[1]["type"], messages[-1]["type"]], ["training_start", "metrics", "training_end"])
        self.assertEqual(messages[0]["data"]["config"], {"lr": 0.5})
        self.assertEqual(messages[8]["data"], {"loss": 0.5, "epoch": 1, "step": 7})
        self.assertTrue(all(message["run_id"] == "spiral" and message["timestamp"] > 1e9 for message in messages))
        self.assertEqual((run.published, run.dropped), (1_002, 0))

    def test_only_what_is_told_so_goes_to_a_stream(self):
        channel = self.redis.client().pubsub(ignore_subscribe_messages=True)
        channel.subscribe("cascor:training")
        until("the subscription", lambda: self.redis.client().pubsub_numsub("cascor:training")[0][1] == 1)
        variable = {"CASCOR_REDIS_STREAM": "by:environment"}
        for name, more, environment, stream in (
            ("default", {"stream": None}, {}, None),
            ("argument", {"stream": "by:argument"}, {}, "by:argument"),
            ("environment", {"stream": None}, variable, "by:environment"),
            ("argument wins", {"stream": "by:argument"}, variable, "by:argument"),
            ("empty argument", {"stream": ""}, variable, None),
            ("empty environment", {"stream": None}, {"CASCOR_REDIS_STREAM": ""}, None),
        ):
            with self.subTest(name), mock.patch.dict(os.environ, environment):
                self.redis.client().delete("by:argument", "by:environment")
                self.begin(name, **more).finish()
                keys = {key.decode(): len(self.messages(key)) for key in self.redis.client().keys("*")}
                self.assertEqual(keys, {stream: 2} if stream else {})
                self.redis.client().publish("cascor:training", "last")
                heard = [until("the channel", lambda: channel.get_message(timeout=1))["data"]]
                while heard[-1] != b"last":
                    heard.append(until("the channel", lambda: channel.get_message(timeout=1))["data"])
                self.assertEqual(len(heard), 1 if stream else 3)

    def test_the_stream_is_trimmed_only_by_who_asks(self):
        for maxlen, least, most in (None, 3_002, 3_002), (100, 100, 250):
            with self.subTest(maxlen=maxlen):
                self.redis.client().delete(STREAM)
                with self.begin("trimmed", stream_maxlen=maxlen) as run:
                    for step in range(3_000):
                        run.log({"loss": 0.5}, step=step)
                length = self.redis.client().xlen(STREAM)
                self.assertTrue(least <= length <= most, f"{length} entries")
                self.assertEqual(self.messages()[-1]["type"], "training_end", "the oldest are trimmed")
        for maxlen in 0, -1:
            with self.assertRaisesRegex(ValueError, "`stream_maxlen` must be at least 1"):
                self.begin("bad", stream_maxlen=maxlen)

    def test_a_batch_is_one_round_trip(self):
        client = Counted.from_url(self.redis.url)
        self.addCleanup(client.close)
        with self.begin("batches", redis_client=client, obey="none") as run:
            for step in range(5_000):
                run.log({"loss": 0.5}, step=step)
        self.check_complete(5_000)
        self.assertLess(client.pipelines, 100)

    def test_redis_is_killed_and_every_message_is_an_entry(self):
        with self.assertLogs("cascor_ingest", logging.INFO) as logged:
            with self.begin("killed") as run:
                longest = 0.0
                for step in range(1_200):
                    if step in (300, 700):
                        self.redis.kill()
                    if step in (500, 900):
                        self.redis.start()
                    before = time.monotonic()
                    run.log({"loss": 0.5}, step=step)
                    longest = max(longest, time.monotonic() - before)
                    time.sleep(0.001)
        self.assertLess(longest, 0.5, "a call waited")
        self.assertEqual((run.published, run.dropped), (1_202, 0))
        self.check_complete(1_200)
        self.assertTrue(any("messages wait for it" in line for line in logged.output), logged.output)

    def test_what_a_full_queue_drops_is_counted_and_missing_by_seq(self):
        self.redis.kill()
        with self.assertLogs("cascor_ingest", logging.WARNING):
            with self.begin("full", queue_messages=200) as run:
                for step in range(500):
                    run.log({"loss": 0.5}, step=step)
                self.redis.start()
        there = {message["seq"] for message in self.messages()}
        self.assertEqual((run.dropped, len(there)), (301, 201), "the start and 199 of the steps, then the end")
        self.assertEqual(max(there), 501)

    def test_a_key_that_is_no_stream_is_said_and_messages_wait(self):
        self.redis.client().set(STREAM, "text")
        with self.assertLogs("cascor_ingest", logging.WARNING) as logged:
            with self.begin("wrong") as run:
                run.log({"loss": 0.5}, step=0)
                until("the refusal", lambda: any("WRONGTYPE" in line for line in logged.output))
                self.redis.client().delete(STREAM)
        self.assertEqual(run.dropped, 0)
        self.check_complete(1)

    def test_the_commands_of_the_page_trim_what_the_group_has_acknowledged_and_no_more(self):
        page = (PACKAGE.parent / "streams.md").read_text()
        commands = page[page.index("stream=cascor:training:stream group=") :].split("```")[0].replace("redis-cli", f"redis-cli -p {self.redis.port}")
        client, group = self.redis.client(), "cascor-ingest"

        def exit_status():
            return subprocess.run(["sh", "-eu", "-c", commands], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode

        def trim():
            self.assertEqual(exit_status(), 0)
            return [id.decode() for id, _ in client.xrange(STREAM)]

        self.assertEqual(exit_status(), 1, "there is no stream")
        client.xgroup_create(STREAM, "another", "0", mkstream=True)
        client.xadd(STREAM, {"data": "first"}, id="0-1")
        self.assertEqual((exit_status(), client.xlen(STREAM)), (1, 1), "there is no group")
        client.xdel(STREAM, "0-1")
        client.xgroup_create(STREAM, group, "0")
        ids = [f"{n}-1" for n in range(1, 2_001)]
        for id in ids:
            client.xadd(STREAM, {"data": id}, id=id)
        self.assertEqual(trim(), ids, "nothing is read yet")
        client.xreadgroup(group, "a", {STREAM: ">"}, count=1_500)
        self.assertEqual(trim(), ids, "nothing is acknowledged yet")
        client.xack(STREAM, group, *ids[:1_200], *ids[1_300:1_500])
        for what in "the oldest that is pending", "the same again":
            left = trim()
            self.assertIn(ids[1_200], left, what)
            self.assertTrue(700 < len(left) <= 900, f"{len(left)}: {what}")
        client.xack(STREAM, group, *ids[1_200:1_300])
        left = trim()
        self.assertEqual(left[-500:], ids[1_500:], "what is not read yet")
        self.assertLessEqual(len(left), 600)

    def test_the_user_for_trainers_needs_the_rule_of_the_page(self):
        page = (PACKAGE.parent / "redis" / "README.md").read_text()
        more = re.search(r"append ` (\([^`]*\+xadd[^`]*)`", page)[1]
        rule = (PACKAGE.parent / "redis" / "trainer.acl").read_text().split("\n")[0].replace("#PASSWORD", ">secret")
        folder = pathlib.Path(self.folder())
        for name, rules, lost in ("without", rule, 2), ("with", f"{rule} {more}", 0):
            (folder / name).write_text(f"{rules}\nuser default on nopass ~* &* +@all\n")
            server = Redis("--aclfile", str(folder / name))
            self.addCleanup(server.kill)
            url = server.url.replace("//", "//trainer:secret@")
            with self.assertLogs("cascor_ingest", logging.INFO) as logged:
                logging.getLogger("cascor_ingest").info("begins")
                run = self.begin(name, redis_url=url, finish_timeout=0.5 if lost else 20)
                run.finish()
            self.assertEqual((run.dropped, server.client().xlen(STREAM)), (lost, 2 - lost))
            self.assertEqual(lost > 0, "permission" in "\n".join(logged.output).lower(), logged.output)


class Stored(Case):
    """A daemon reads the stream."""

    settings = {"redis__streams": [STREAM]}

    def test_what_is_published_while_no_daemon_runs_is_stored(self):
        self.daemon.stop()
        with cascor_ingest.init("alone", redis_url=self.redis.url, stream=STREAM) as run:
            for step in range(2_000):
                run.log({"loss": 1 / (step + 1)}, step=step)
        self.assertEqual((run.published, run.dropped), (2_002, 0), "the trainer has ended, and no daemon has run")
        self.daemon.start()
        self.daemon.ended("alone", "completed")
        self.assertEqual([row["step"] for row in self.daemon.rows("alone", 2_000)], list(range(2_000)))
        self.assertEqual(self.daemon.lost("alone"), 0)

    def test_two_daemons_share_a_stream(self):
        second = Daemon(self.redis, "second", **self.settings, store__sqlite__path=f"{self.daemon.folder}/state/cascor.db")
        self.addCleanup(second.close)
        with cascor_ingest.init("shared", redis_url=self.redis.url, stream=STREAM) as run:
            for step in range(2_000):
                run.log({"loss": 1 / (step + 1)}, step=step)
        self.assertEqual(run.dropped, 0)
        self.daemon.ended("shared", "completed")
        self.assertEqual([row["step"] for row in self.daemon.rows("shared", 2_000)], list(range(2_000)))


if __name__ == "__main__":
    unittest.main()
