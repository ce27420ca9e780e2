"""What the callbacks have in common: they publish to a run that they are given, or begin one and end it."""

from __future__ import annotations

from typing import Any

from cascor_ingest import endings
from cascor_ingest.run import Run
from cascor_ingest.start import init


class Attached:
    """The run of a callback.

    Args:
        run: A run that the caller ends; None: each training begins and ends one of its own.
        settings: Arguments of `init` for such a run.
    """

    def __init__(self, run: Run | None, settings: dict[str, Any]) -> None:
        if run is not None and settings:
            raise ValueError("give a run, or the arguments to begin one, not both")
        self._given, self._settings = run, settings
        self.run: Run | None = run

    def begin(self, config: Any = None) -> None:
        """The training begins; `config` is what the framework knows of it."""
        if self._given is None:
            self.end()
            self.run = init(**{"config": config, **self._settings})

    def end(self, error: BaseException | None = None) -> None:
        """The training has ended: by this exception, or normally."""
        run, self.run = self.run, self._given
        if run is not None and self._given is None:
            run.end(endings.COMPLETED if error is None else endings.of_exception(error))

    def should_stop(self) -> bool:
        """Waits while a command pauses the run; returns whether a command stops it."""
        if self.run is None:
            return False
        self.run.wait_while_paused()
        return self.run.stopped
