"""What is logged arrives as it was meant: numbers of any kind, topologies, events, by Redis, HTTP and files."""

import argparse
import dataclasses
import decimal
import fractions
import json
import logging
import math
import os
import pathlib
import tempfile
import unittest
import uuid

from servers import PACKAGE, Case, Daemon, Redis, until

import cascor_ingest


class Scalar:
    """Like a number of NumPy or PyTorch."""

    def __init__(self, value, size=1):
        self.value, self.size = value, size

    def item(self):
        if self.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self.value


@dataclasses.dataclass
class Settings:
    lr: float
    layers: tuple


class Messages(Case):
    def begin(self, name, **more):
        run = cascor_ingest.init(name, **{"redis_url": self.redis.url, **more})
        self.addCleanup(run.finish)
        return run

    def test_the_start_says_what_the_run_is(self):
        config = {"lr": Scalar(0.5), "path": pathlib.Path("/data"), "nested": argparse.Namespace(a=1, b=None), "s": Settings(0.1, (1, 2))}
        dataset = {"name": "two_spirals", "num_samples": 194}
        run = self.begin("starts", config=config, dataset=dataset, tags=["a", "b"], notes="first", user="ada")
        run.finish()
        row = self.daemon.ended("starts", "completed")
        self.assertEqual((row["dataset_name"], row["dataset_size"], row["tags"], row["notes"], row["created_by"]), ("two_spirals", 194, ["a", "b"], "first", "ada"))
        stored = row["config_json"] if isinstance(row["config_json"], dict) else json.loads(row["config_json"])
        self.assertEqual(stored, {"lr": 0.5, "path": "/data", "nested": {"a": 1, "b": None}, "s": {"lr": 0.1, "layers": [1, 2]}})
        self.assertEqual(row["run_id"], str(run.uuid))

    def test_the_id_is_the_id_else_the_name_else_a_new_one(self):
        given = str(uuid.uuid4())
        for run, expected in (
            (self.begin("named"), str(uuid.uuid5(uuid.UUID("f0c853b7-6794-4685-b2f5-43019da8836b"), "named"))),
            (self.begin("named", id=given), given),
            (self.begin(None), None),
        ):
            run.log({"loss": 1})
            run.finish()
            self.daemon.ended(run.id, "completed")
            self.assertEqual(str(run.uuid), expected or str(uuid.UUID(run.id)))

    def test_numbers_of_any_kind_are_numbers(self):
        run = self.begin("numbers")
        values = {
            "loss": Scalar(0.5), "a": 1, "b": True, "c": decimal.Decimal("0.25"), "d": fractions.Fraction(1, 4), "e": 2**80,
            "f": float("nan"), "g": float("inf"), "inner": {"x": 1.5, "deeper": {"y": Scalar(2)}}, "absent": None,
        }
        run.log(values, epoch=0.5, step=7, phase="output")
        run.finish()
        (row,) = self.daemon.rows("numbers", 1)
        self.assertEqual((row["train_loss"], row["epoch"], row["step"], row["phase"]), (0.5, 0, 7, "output"))
        extra = {name: value for name, value in row["extra"].items() if value is not None}
        self.assertEqual(extra, {"a": 1, "b": 1, "c": 0.25, "d": 0.25, "e": float(2**80), "inner.x": 1.5, "inner.deeper.y": 2, "epoch": 0.5})
        self.assertEqual(row["non_finite"], ["f", "g"])

    def test_what_is_no_number_is_refused_by_name_once_and_the_rest_is_logged(self):
        run = self.begin("refused")
        loop = {}
        loop["loop"] = loop
        with self.assertLogs("cascor_ingest", logging.WARNING) as logged:
            for step in range(3):
                run.log({"loss": 0.5, "word": "low", "list": [1, 2], "tensor": Scalar(0, size=2), "seq": 9, "n": {"o": object()}, **loop}, step=step)
            run.log({"word": "alone"}, step=3)
            run.log("no dictionary")
        said = "\n".join(logged.output)
        for name in "`word`", "`list`", "`tensor`", "`seq`", "`n.o`", "`metrics`":
            self.assertEqual(said.count(name), 1, said)
        self.assertIn("`metrics` is left out: it is a str, and no dictionary", said)
        run.finish()
        rows = self.daemon.rows("refused", 3)
        self.assertEqual([row["seq"] for row in rows], [1, 2, 3], "no `seq` is lost by what is refused")
        self.assertEqual(self.daemon.lost("refused"), 0)

    def test_a_topology_a_unit_and_an_event_are_theirs(self):
        run = self.begin("grows")
        connections = [{"from": 0, "to": 2, "weight": Scalar(0.5)}, {"from": 1, "to": 2, "weight": -0.5}]
        run.topology(input_size=2, output_size=1, hidden_units=1, connections=connections, nodes=[{"id": 0}], epoch=3)
        run.unit_added(0, correlation=Scalar(0.9), epoch=3, pool=8)
        run.event("learning_rate_changed", epoch=4, to=0.001, why={"plateau": True})
        run.finish()
        self.daemon.ended("grows", "completed")
        (topology,) = until("the topology", lambda: self.daemon.get("/api/runs/grows/topology")["topology"])
        self.assertEqual([topology[name] for name in ("input_size", "output_size", "hidden_units", "total_parameters", "epoch")], [2, 1, 1, 2, 3])
        (unit,) = self.daemon.events("grows", "cascade_add")
        self.assertEqual(unit["epoch"], 3)
        self.assertIn("0.9", str(unit))
        (event,) = self.daemon.events("grows", "learning_rate_changed")
        self.assertEqual(event["epoch"], 4)
        self.assertIn("plateau", str(event))

    def test_log_records_are_events(self):
        run = self.begin("logs")
        logger, handler = logging.getLogger("spirals"), cascor_ingest.LogHandler(run)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        logger.info("not this one")
        try:
            raise ValueError("out of memory")
        except ValueError:
            logger.exception("epoch %s failed", 3)
        run.finish()
        (event,) = self.daemon.events("logs", "log")
        for part in "epoch 3 failed", "ERROR", "spirals", "out of memory":
            self.assertIn(part, str(event))

    def test_bad_arguments_are_refused_by_name(self):
        for more, word in ({"mode": "on"}, "mode"), ({"obey": "me"}, "obey"), ({"url": "localhost:1"}, "url"), ({"redis_url": "nothing"}, "Redis"):
            with self.assertRaisesRegex(ValueError, word):
                self.begin("bad", **{"redis_url": self.redis.url, **more})

    def test_a_disabled_run_does_nothing(self):
        with self.begin("disabled", mode="disabled") as run:
            run.log({"loss": 1})
            run.topology(input_size=1)
            self.assertFalse(run.active or run.stopped or run.paused or run.dropped)
        self.assertEqual(self.daemon.run("disabled"), {})

    def test_a_file_is_imported_as_the_same_rows(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "offline.ndjson")
        with self.begin("offline", mode="offline", path=path, config={"lr": 1}) as run:
            for step in range(100):
                run.log({"loss": 1 / (step + 1), "odd": math.nan}, step=step)
        for _ in range(2):
            self.daemon.cli("import", path)
        self.daemon.ended("offline", "completed")
        self.assertEqual([row["step"] for row in self.daemon.rows("offline", 100)], list(range(100)))
        self.assertEqual(self.daemon.lost("offline"), 0)

    def test_a_full_disk_tears_no_line(self):
        from cascor_ingest.transports import FileTransport

        transport = FileTransport("/dev/full")
        sent = transport.send([b"{}"])
        self.assertEqual((sent.undelivered, bool(sent.problem)), ([b"{}"], True))
        self.assertRaises(OSError, transport.close)


class Http(Case):
    token = "publish-token-0123456789"

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        tokens = pathlib.Path(folder.name) / "tokens"
        tokens.write_text(f"ann publish {cls.token}\n")
        tokens.chmod(0o600)
        cls.settings = {"http__tokens_file": str(tokens), "http__anonymous_read": "loopback", "http__max_messages": 40}
        super().setUpClass()

    def test_a_run_is_published_by_http(self):
        with cascor_ingest.init("by-http", url=self.daemon.url, token=self.token) as run:
            for step in range(100):  # more than the daemon takes at once
                run.log({"loss": 0.5, "odd": math.nan}, step=step)
        self.daemon.ended("by-http", "completed")
        self.daemon.rows("by-http", 100)
        self.assertEqual((run.published, run.dropped, self.daemon.lost("by-http")), (102, 0, 0))

    def test_a_wrong_token_is_said_and_ends_within_the_timeout(self):
        with self.assertLogs("cascor_ingest", logging.WARNING) as logged:
            with cascor_ingest.init("refused", url=self.daemon.url, token="wrong", finish_timeout=0.5) as run:
                run.log({"loss": 0.5})
        self.assertIn("HTTP 401", "\n".join(logged.output))
        self.assertNotIn("wrong", "\n".join(logged.output))
        self.assertEqual((run.published, run.dropped), (0, 3))

    def test_what_the_daemon_rejects_is_said_and_counted(self):
        with self.assertLogs("cascor_ingest", logging.WARNING) as logged:
            with cascor_ingest.init("rejected", url=self.daemon.url, token=self.token) as run:
                run.log({"loss": 0.5}, step=0)
                run.event("dataset", samples=194)  # a dataset without a name
                run.log({"loss": 0.5}, step=1)
        self.daemon.rows("rejected", 2)
        self.assertEqual((run.published, run.dropped), (4, 1))
        self.assertIn("invalid_field", "\n".join(logged.output))
        until("the gap", lambda: self.daemon.lost("rejected") == 1)

    def test_a_daemon_that_restarts_gets_all(self):
        with cascor_ingest.init("restart", url=self.daemon.url, token=self.token) as run:
            run.log({"loss": 0.5}, step=0)
            run.flush(30)
            self.daemon.stop()
            run.log({"loss": 0.5}, step=1)
            self.daemon.start()
        self.daemon.rows("restart", 2)
        self.assertEqual(run.dropped, 0)


class Rights(unittest.TestCase):
    def test_the_user_for_trainers_may_all_that_a_run_needs(self):
        rule = (PACKAGE.parent / "redis" / "trainer.acl").read_text().split("\n")[0]
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        users = pathlib.Path(folder.name) / "users.acl"
        users.write_text(rule.replace("#PASSWORD", ">secret") + "\nuser default on nopass ~* &* +@all\n")
        redis = Redis("--aclfile", str(users))
        self.addCleanup(redis.kill)
        daemon = Daemon(redis)
        self.addCleanup(daemon.close)
        with cascor_ingest.init("allowed", redis_url=redis.url.replace("//", "//trainer:secret@")) as run:
            run.log({"loss": 1})
            redis.command("stop", "allowed", run)
        daemon.ended("allowed", "stopped")


if __name__ == "__main__":
    unittest.main()
