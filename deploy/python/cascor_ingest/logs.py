"""Log records as events of a run."""

from __future__ import annotations

import logging

from .run import Run


class LogHandler(logging.Handler):
    """Publishes log records as events of type `log`: `logging.getLogger().addHandler(LogHandler(run))`.

    Args:
        run: The run.
        level: Records below it are left out.
    """

    def __init__(self, run: Run, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self.run = run

    def emit(self, record: logging.LogRecord) -> None:
        """Publishes one record; this package's own are left out, because each could cause the next."""
        if record.name == "cascor_ingest" or record.name.startswith("cascor_ingest."):
            return
        try:
            self.run.event(
                "log", level=record.levelname, logger=record.name, message=self.format(record)[:32_768], line=record.lineno
            )
        except Exception:  # a record whose text raises
            self.handleError(record)
