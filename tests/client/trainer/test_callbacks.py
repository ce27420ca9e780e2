"""The callbacks of frameworks, called by small stand-ins as the frameworks do; tests/client/libraries has the real ones."""

import json
import pathlib
import sys
import unittest

from servers import Case

sys.path.insert(0, str(pathlib.Path(__file__).parent / "standins"))

import keras  # noqa: E402
import lightning.pytorch  # noqa: E402
import transformers  # noqa: E402

import cascor_ingest  # noqa: E402
from cascor_ingest.callbacks.huggingface import CascorCallback as HuggingFace  # noqa: E402
from cascor_ingest.callbacks.keras import CascorCallback as Keras  # noqa: E402
from cascor_ingest.callbacks.lightning import CascorCallback as Lightning  # noqa: E402


class Callbacks(Case):
    def column(self, name, column, count=None):
        return [row[column] for row in self.daemon.rows(name, count) if row[column] is not None]

    def config(self, name):
        stored = self.daemon.run(name)["config_json"]
        return json.loads(stored) if isinstance(stored, str) else stored

    def stops(self, name, callback):
        """What a training calls on each step: sends the stop on the third."""
        calls = []

        def each(*_):
            calls.append(0)
            if len(calls) == 3:
                self.redis.command("stop", name, callback._attached.run)

        return each

    def test_keras(self):
        keras.Model().fit(3, [Keras(name="keras", redis_url=self.redis.url)])
        self.daemon.ended("keras", "completed")
        rows = self.daemon.rows("keras", 3)
        found = [(row["epoch"], row["step"], row["train_loss"], row["val_loss"], round(row["train_accuracy"], 2)) for row in rows]
        self.assertEqual(found, [(0, 4, 1, 2, 0), (1, 8, 0.5, 1, 0.33), (2, 12, 1 / 3, 2 / 3, 0.67)])
        self.assertEqual(self.config("keras"), {"epochs": 3, "steps": 4, "verbose": 0, "model": "two_spirals", "optimizer": {"name": "adam", "learning_rate": 0.5}})

    def test_keras_batches_are_curves_of_their_own(self):
        keras.Model().fit(2, [Keras(name="batches", every=2, redis_url=self.redis.url)])
        rows = self.daemon.rows("batches", 6)
        self.assertEqual([row["step"] for row in rows if row["extra"]], [2, 4, 6, 8])
        self.assertEqual([row["train_loss"] for row in rows if row["train_loss"] is not None], [1, 0.5])

    def test_keras_stops(self):
        callback = Keras(name="keras-stops", redis_url=self.redis.url)
        keras.Model().fit(9, [callback], each=self.stops("keras-stops", callback))
        self.daemon.ended("keras-stops", "stopped")
        self.daemon.rows("keras-stops", 1)

    def test_keras_in_a_run_of_the_caller(self):
        with cascor_ingest.init("caller", redis_url=self.redis.url) as run:
            for _ in range(2):
                keras.Model().fit(1, [Keras(run)])
            self.assertTrue(run.active)
        self.daemon.ended("caller", "completed")
        self.daemon.rows("caller", 2)
        with self.assertRaises(ValueError):
            Keras(run, name="both")

    def test_lightning(self):
        trainer = lightning.pytorch.Trainer(Lightning(name="lightning", redis_url=self.redis.url))
        trainer.fit(2)
        self.daemon.ended("lightning", "completed")
        rows = self.daemon.rows("lightning", 10)
        self.assertEqual([(row["step"], row["train_loss"]) for row in rows if row["train_loss"]], [(step, 1 / (step + 1)) for step in range(8)])
        self.assertEqual([(row["epoch"], row["val_loss"], row["val_accuracy"]) for row in rows if row["val_loss"]], [(0, 1, 0.5), (1, 0.5, 0.5)])
        self.assertEqual((self.config("lightning"), trainer.loggers), ({"hidden": 8}, []))

    def test_lightning_fails_and_is_interrupted(self):
        for error, status in (ValueError("NaN"), "failed"), (KeyboardInterrupt(), "stopped"):
            name = f"lightning-{status}"

            def each(*_):
                raise error

            with self.assertRaises(type(error)):
                lightning.pytorch.Trainer(Lightning(name=name, redis_url=self.redis.url)).fit(1, each=each)
            self.daemon.ended(name, status)

    def test_lightning_stops(self):
        callback = Lightning(name="lightning-stops", redis_url=self.redis.url)
        lightning.pytorch.Trainer(callback).fit(9, each=self.stops("lightning-stops", callback))
        self.daemon.ended("lightning-stops", "stopped")

    def test_hugging_face(self):
        transformers.Trainer(HuggingFace(name="hf", redis_url=self.redis.url)).train(8)
        self.daemon.ended("hf", "completed")
        rows = self.daemon.rows("hf", 6)
        self.assertEqual([(row["step"], row["epoch"], row["train_loss"]) for row in rows if row["train_loss"]], [(2, 0, 0.5), (4, 1, 0.25), (6, 1, 1 / 6), (8, 2, 0.125)])
        self.assertEqual([(row["val_loss"], row["val_accuracy"]) for row in rows if row["val_loss"]], [(0.25, 0.75)])
        self.assertEqual(rows[0]["extra"], {"grad_norm": 2, "epoch": 0.5})
        self.assertEqual(rows[-1]["extra"], {"train_runtime": 1.5, "mean_train_loss": 0.9})
        self.assertEqual(self.config("hf"), {"learning_rate": 0.5, "output_dir": "out"})

    def test_hugging_face_stops(self):
        callback = HuggingFace(name="hf-stops", redis_url=self.redis.url)
        transformers.Trainer(callback).train(50, each=self.stops("hf-stops", callback))
        self.daemon.ended("hf-stops", "stopped")

    def test_other_ranks_publish_nothing(self):
        transformers.Trainer(HuggingFace(name="rank-1", redis_url=self.redis.url), process_zero=False).train(4)
        lightning.pytorch.Trainer(Lightning(name="rank-1", redis_url=self.redis.url), is_global_zero=False).fit(2)
        self.assertEqual(self.daemon.run("rank-1"), {})


if __name__ == "__main__":
    unittest.main()
