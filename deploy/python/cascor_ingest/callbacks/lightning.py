"""Lightning: `Trainer(callbacks=[CascorCallback(name="spiral-7")])`."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers.logger import Logger
except ImportError:
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers.logger import Logger

from cascor_ingest.run import Run

from .attached import Attached


class CascorCallback(Callback):
    """Publishes what the module logs, as a logger of Lightning gets it, and obeys commands between batches.

    Only the process of rank 0 publishes. Names, epochs and steps are Lightning's own, from 0.

    Args:
        run: A run to publish to; absent: `fit` begins one with `settings`, and ends it.
        settings: Arguments of `cascor_ingest.init`.
    """

    def __init__(self, run: Run | None = None, **settings: Any) -> None:
        super().__init__()
        # Lightning's launchers set `RANK` only in some cases; `is_global_zero` always knows.
        self._attached = Attached(run, settings if run else {"all_ranks": True, **settings})
        self._logger: RunLogger | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begins the run. The logger joins now, when the folder of checkpoints is decided, which depends on loggers."""
        if not trainer.is_global_zero:
            return
        self._attached.begin(dict(getattr(pl_module, "hparams", None) or {}) or None)
        if self._attached.run is not None:
            self._logger = RunLogger(self._attached.run)
            trainer.loggers = [*trainer.loggers, self._logger]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Pauses and stops."""
        if self._attached.should_stop():
            trainer.should_stop = True

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends the run."""
        self._end(trainer, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Ends the run as failed, or as stopped when it was interrupted."""
        self._end(trainer, exception)

    def _end(self, trainer: Any, error: BaseException | None) -> None:
        trainer.loggers = [logger for logger in trainer.loggers if logger is not self._logger]
        self._attached.end(error)


class RunLogger(Logger):
    """Passes what Lightning logs to a run."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    @property
    def name(self) -> str:
        """What the run is called."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run id."""
        return self._run.id

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Publishes metrics; Lightning's have the epoch among them."""
        self._run.log(metrics, step=step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The start of the run has them already."""
