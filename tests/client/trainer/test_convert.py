"""TensorBoard's and MLflow's files, made here byte for byte, become runs by way of `cascor-ingest import`."""

import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from servers import PACKAGE, Case

NOW = float(int(time.time()) - 1_000)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def single(number, value):
    return varint(number << 3 | 5) + struct.pack("<f", value)


def record(event):
    """A TFRecord; its checksums are not read."""
    return struct.pack("<QI", len(event), 0) + event + struct.pack("<I", 0)


def scalar(step, tag, value, at=None):
    entry = field(1, tag.encode()) + single(2, value)
    return record(field(1, NOW + step if at is None else at) + field(2, step) + field(5, field(1, entry)))


def tensor(step, tag, body):
    """As TensorFlow 2 writes scalars."""
    return record(field(1, NOW + step) + field(2, step) + field(5, field(1, field(1, tag.encode()) + field(8, body))))


HEAD = record(field(1, NOW) + field(3, b"brain.Event:2"))


class Convert(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, path, content):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def convert(self, *arguments, status=0):
        """Converts and imports; returns what was said."""
        out = str(self.folder / "out.ndjson")
        command = [sys.executable, "-m", "cascor_ingest", *arguments, "-o", out]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True)
        self.assertEqual(done.returncode, status, done.stderr)
        if status < 2:
            self.daemon.cli("import", out)
        return done.stderr

    def test_tensorboard(self):
        points = b"".join(scalar(step, "train/loss", 1 / (step + 1)) + scalar(step, "gan/d_loss", float(step)) for step in range(5))
        self.write("logs/tb-a/events.out.tfevents.1.host", HEAD + points)
        later = scalar(5, "train/loss", 0.125) + tensor(5, "val/loss", field(1, 1) + field(4, struct.pack("<f", 0.25)))
        later += tensor(6, "lr", field(1, 1) + field(5, struct.pack("<f", 0.5))) + tensor(7, "count", field(1, 9) + field(10, 7))
        later += tensor(7, "image", field(1, 7) + field(4, b"PNG")) + tensor(7, "many", field(1, 1) + field(4, bytes(8)))
        self.write("logs/tb-a/events.out.tfevents.2.host", HEAD + later)
        self.write("logs/tb-b/deep/events.out.tfevents.1.host", HEAD + scalar(0, "loss", float("nan")))
        self.assertEqual(self.convert("tensorboard", str(self.folder / "logs")), "")
        self.daemon.ended("tb-a", "completed")
        rows = self.daemon.rows("tb-a", 8)
        self.assertEqual([row["step"] for row in rows], list(range(8)))
        self.assertEqual([row["train_loss"] for row in rows], [1, 0.5, struct.unpack("<f", struct.pack("<f", 1 / 3))[0], 0.25, struct.unpack("<f", struct.pack("<f", 0.2))[0], 0.125, None, None])
        self.assertEqual((rows[3]["extra"], rows[5]["val_loss"], rows[6]["learning_rate"], rows[7]["extra"]), ({"gan/d_loss": 3}, 0.25, 0.5, {"count": 7}))
        self.assertTrue(rows[0]["timestamp"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW))), rows[0])
        self.daemon.ended("tb-b/deep", "completed")

    def test_a_torn_file_is_converted_up_to_there(self):
        whole = HEAD + scalar(0, "loss", 0.5) + scalar(1, "loss", 0.25)
        for name, content in ("torn-body", whole + scalar(2, "loss", 1.0)[:-9]), ("torn-head", whole + b"\x01\x02"), ("noise", whole + bytes(range(200, 256)) * 9):
            self.write(f"torn/{name}/events.out.tfevents.1", content)
        said = self.convert("tensorboard", str(self.folder / "torn"), "--status", "failed", status=1)
        self.assertEqual(said.count("what is before that is converted"), 3, said)
        for name in "torn-body", "torn-head", "noise":
            self.daemon.ended(name, "failed")
            self.daemon.rows(name, 2)

    def test_nothing_to_convert_is_said(self):
        for tool in "tensorboard", "mlflow":
            self.assertIn(str(self.folder), self.convert(tool, str(self.folder), status=2))

    def test_mlflow(self):
        begin = int(NOW * 1000)
        for number, (name, state, status) in enumerate([("'bold: fish'", 3, "completed"), ("null", 5, "stopped"), ("sad-cat", 4, "failed")]):
            run_id = f"{number:02}" + "abcdef0123456789abcdef01234567"
            folder = f"mlruns/0/{run_id}"
            self.write(f"{folder}/meta.yaml", f"artifact_uri: file:///x\nend_time: {begin + 9000}\nentry_point_name: ''\nlifecycle_stage: active\nrun_id: {run_id}\nrun_name: {name}\nstart_time: {begin}\nstatus: {state}\nuser_id: ada\n")
            self.write(f"{folder}/metrics/train/loss", "".join(f"{begin + step * 10} {1 / (step + 1)} {step}\n" for step in range(5)))
            self.write(f"{folder}/metrics/f1", f"{begin} NaN 0\n{begin + 10} 0.5 1\n")
            self.write(f"{folder}/params/lr", "0.01")
            self.write(f"{folder}/tags/team", "blue")
            self.write(f"{folder}/tags/mlflow.note.content", "a note")
        self.write("mlruns/0/meta.yaml", "experiment_id: '0'\nname: Default\n")
        self.write("mlruns/0/gone/meta.yaml", "run_id: gone\nlifecycle_stage: deleted\n")
        self.assertIn("deleted", self.convert("mlflow", str(self.folder / "mlruns"), status=1))
        for name, status in ("bold: fish-00abcdef", "completed"), ("01abcdef0123456789abcdef01234567", "stopped"), ("sad-cat-02abcdef", "failed"):
            row = self.daemon.ended(name, status)
            self.assertEqual((row["duration_seconds"], row["notes"], row["created_by"], row["tags"]), (9, "a note", "ada", ["mlflow", "team=blue"]))
            self.assertIn("0.01", str(row["config_json"]))
            rows = self.daemon.rows(name, 5)
            self.assertEqual([(row["step"], row["train_loss"]) for row in rows], [(step, 1 / (step + 1)) for step in range(5)])
            self.assertEqual(rows[1]["extra"], {"f1": 0.5})


if __name__ == "__main__":
    unittest.main()
