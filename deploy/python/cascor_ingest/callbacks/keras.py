"""Keras: `model.fit(..., callbacks=[CascorCallback(name="spiral-7")])`."""

from __future__ import annotations

from typing import Any

import keras

from cascor_ingest.run import Run

from .attached import Attached


class CascorCallback(keras.callbacks.Callback):
    """Publishes the metrics of each epoch, and obeys commands between batches.

    Epochs count from 0, as in Keras' own logs.

    Args:
        run: A run to publish to; absent: `fit` begins one with `settings`, and ends it.
        every: Also publish the metrics of every so many batches; 0: of none. Those of a batch are named `batch.loss`, ...,
            because Keras' values there are means of the epoch so far.
        settings: Arguments of `cascor_ingest.init`.
    """

    def __init__(self, run: Run | None = None, *, every: int = 0, **settings: Any) -> None:
        super().__init__()
        self._attached, self._every, self._step, self._epoch = Attached(run, settings), every, 0, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins the run."""
        self._step = 0
        config: dict[str, Any] = {**(self.params or {}), "model": getattr(self.model, "name", None)}
        optimizer: Any = getattr(self.model, "optimizer", None)
        if hasattr(optimizer, "get_config"):
            config["optimizer"] = optimizer.get_config()
        self._attached.begin(config)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch, for the batches."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Publishes the metrics of a batch, if wanted; pauses and stops."""
        self._step += 1
        run = self._attached.run
        if run is not None and self._every and self._step % self._every == 0:
            run.log({"batch": dict(logs or {})}, epoch=self._epoch, step=self._step)
        if self._attached.should_stop():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Publishes the metrics of the epoch."""
        if self._attached.run is not None:
            self._attached.run.log(logs, epoch=epoch, step=self._step)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends the run. After an exception Keras does not come here: the program's end says so."""
        self._attached.end()
