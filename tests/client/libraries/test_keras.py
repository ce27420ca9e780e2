"""The callback of Keras with the real one, on JAX: XOR is learnt, and the API shows the curves that Keras reports."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "trainer"))

import keras  # noqa: E402
import numpy as np  # noqa: E402
from servers import Case  # noqa: E402

from cascor_ingest.callbacks.keras import CascorCallback  # noqa: E402


def model():
    keras.utils.set_random_seed(1)
    made = keras.Sequential([keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1, activation="sigmoid")])
    made.compile(optimizer=keras.optimizers.Adam(0.05), loss="binary_crossentropy", metrics=["accuracy"])
    return made


X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 8, dtype="float32")
Y = np.array([[0], [1], [1], [0]] * 8, dtype="float32")


class Keras(Case):
    def test_curves_are_those_of_the_history(self):
        callback = CascorCallback(name="keras", every=2, redis_url=self.redis.url)
        history = model().fit(X, Y, epochs=5, batch_size=8, validation_split=0.25, verbose=0, callbacks=[callback]).history
        row = self.daemon.ended("keras", "completed")
        rows = [row for row in self.daemon.rows("keras", 5 + 7) if row["train_loss"] is not None]
        self.assertEqual([row["epoch"] for row in rows], list(range(5)))
        for column, name in ("train_loss", "loss"), ("train_accuracy", "accuracy"), ("val_loss", "val_loss"), ("val_accuracy", "val_accuracy"):
            np.testing.assert_allclose([row[column] for row in rows], history[name], rtol=1e-6)
        self.assertIn("0.05", str(row["config_json"]), "the optimizer's learning rate")

    def test_a_stop_ends_the_training(self):
        callback = CascorCallback(name="stops", redis_url=self.redis.url)
        stop = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 2 and self.redis.command("stop", "stops", callback._attached.run))
        history = model().fit(X, Y, epochs=50, verbose=0, callbacks=[stop, callback])
        self.assertEqual(len(history.epoch), 3)
        self.daemon.ended("stops", "stopped")

    def test_early_stopping_is_completed(self):
        early = keras.callbacks.EarlyStopping(monitor="loss", patience=0, min_delta=10)
        model().fit(X, Y, epochs=50, verbose=0, callbacks=[early, CascorCallback(name="early", redis_url=self.redis.url)])
        self.daemon.ended("early", "completed")


if __name__ == "__main__":
    unittest.main()
