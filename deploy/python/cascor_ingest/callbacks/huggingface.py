"""Hugging Face: `Trainer(callbacks=[CascorCallback(name="spiral-7")])`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from cascor_ingest.run import Run

from .attached import Attached


class CascorCallback(TrainerCallback):
    """Publishes what the trainer logs: `loss`, `learning_rate`, `eval_loss`, ... with their step and epoch.

    Only the main process publishes. `evaluate` after the training belongs to the run when a run is given.

    Args:
        run: A run to publish to; absent: `train` begins one with `settings`, and ends it.
        settings: Arguments of `cascor_ingest.init`.
    """

    def __init__(self, run: Run | None = None, **settings: Any) -> None:
        self._attached = Attached(run, settings if run else {"all_ranks": True, **settings})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins the run."""
        if state.is_world_process_zero:
            self._attached.begin(args.to_dict())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pauses and stops."""
        if self._attached.should_stop():
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Publishes what was logged."""
        if self._attached.run is None or not state.is_world_process_zero:
            return
        logs = dict(logs or {})
        if "train_runtime" in logs and "train_loss" in logs:
            # The mean of the whole training is no point of the curve.
            logs["mean_train_loss"] = logs.pop("train_loss")
        epoch = logs.pop("epoch", state.epoch)
        self._attached.run.log(logs, epoch=epoch, step=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the run. After an exception the trainer does not come here: the program's end says so."""
        self._attached.end()
