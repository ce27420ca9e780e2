"""The messages of a converted run."""

from __future__ import annotations

import json
from typing import Any, TextIO

from cascor_ingest import values


class Writer:
    """Writes the messages of one run, one a line; `seq` counts from its start."""

    def __init__(self, run_id: str, out: TextIO) -> None:
        self._run_id, self._out, self._seq = run_id, out, 0
        self.skipped: dict[str, str] = {}
        """Names that were left out, and why."""

    def start(self, timestamp: float, **fields: Any) -> None:
        """The run began."""
        self._write("training_start", timestamp, values.plain({k: v for k, v in fields.items() if v is not None}))

    def metrics(self, timestamp: float, step: int, found: dict[str, float]) -> None:
        """The metrics of a step."""
        data = values.metrics(found, self.skipped.__setitem__)
        if values.has_number(data):
            self._write("metrics", timestamp, {**data, "step": step})

    def end(self, timestamp: float, status: str) -> None:
        """The run has ended."""
        self._write("training_end", timestamp, {"status": status})

    def _write(self, kind: str, timestamp: float, data: dict[str, Any]) -> None:
        message = {"type": kind, "run_id": self._run_id, "seq": self._seq, "timestamp": timestamp, "data": data}
        self._out.write(json.dumps(message) + "\n")
        self._seq += 1
