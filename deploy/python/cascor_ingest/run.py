"""A run: what a trainer calls."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from . import endings, values
from .control import Commands
from .endings import COMPLETED, Ending
from .publisher import MESSAGE_MAX, Publisher

logger = logging.getLogger("cascor_ingest")

NAMESPACE = uuid.UUID("f0c853b7-6794-4685-b2f5-43019da8836b")
"""In which a run id that is no UUID becomes one."""

write_json = json.JSONEncoder().encode
"""`json.dumps` without looking at its options, which takes as long as a small message does."""

REFUSED_MAX = 1_000
"""Names that were refused and said; further ones are refused silently."""


class Run:
    """A run that is being published. Made by `cascor_ingest.init`.

    No method but `flush`, `finish` and `wait_while_paused` waits, and none raises because of what it is given.

    Attributes:
        id: The run id in every message.
        uuid: The UUID under which the daemon stores the run.
        name: What the run is called.
    """

    def __init__(
        self,
        id: str,
        name: str | None = None,
        *,
        publisher: Publisher | None = None,
        commands: Commands | None = None,
        finish_timeout: float = 10.0,
    ) -> None:
        self.id, self.name = id, name or id
        self.uuid = stored_id(id)
        self._publisher, self._commands = publisher, commands
        self._finish_timeout = finish_timeout
        self._refused: set[str] = set()
        self._finished = False

    # ------------------------------------------------------------ what happens in the run

    def log(
        self,
        metrics: Mapping[str, Any] | None = None,
        *,
        epoch: float | None = None,
        step: int | None = None,
        phase: str | None = None,
    ) -> None:
        """Publishes metrics.

        Args:
            metrics: Names and numbers; nested dictionaries are joined with dots. Values are read now, so later changes to
                arrays do not matter. What is no number is left out, and said once by name.
            epoch: Counted from 0 or 1, as you like. A fraction is kept.
            step: Steps since the start of the run.
            phase: Such as `output` or `candidate`.
        """
        if self._publisher is None:
            return
        try:
            if metrics is not None and not hasattr(metrics, "items"):
                self._refuse("metrics", f"it is a {type(metrics).__name__}, and no dictionary")
                return
            data = values.metrics(metrics or {}, self._refuse)
            if not values.has_number(data):
                return
            if epoch is not None:
                values.add("epoch", epoch, data, self._refuse)
            if step is not None:
                values.add("step", step, data, self._refuse)
            if phase is not None:
                data["phase"] = values.text(phase)
            self._put("metrics", data)
        except Exception as error:
            self._refuse("metrics", f"log failed: {error!r}")

    def topology(
        self,
        *,
        input_size: int | None = None,
        output_size: int | None = None,
        hidden_units: Any = None,
        nodes: Any = None,
        connections: Any = None,
        epoch: int | None = None,
        **more: Any,
    ) -> None:
        """Publishes the network.

        Args:
            input_size: Number of input units.
            output_size: Number of output units.
            hidden_units: The number of hidden units, or a list of them.
            nodes: A list of objects with an `id`.
            connections: A list of objects with `from`, `to` and `weight`.
            epoch: When the network had this form.
            more: Further fields; they are kept.
        """
        known = {"input_size": input_size, "output_size": output_size, "hidden_units": hidden_units,
                 "nodes": nodes, "connections": connections, "epoch": epoch}  # fmt: skip
        self._send("topology", {**known, **more})

    def unit_added(self, index: int, *, correlation: float | None = None, epoch: int | None = None, **more: Any) -> None:
        """Publishes that a hidden unit was installed.

        Args:
            index: Of the unit, from 0.
            correlation: Of the candidate that was chosen with the remaining error, 0 to 1.
            epoch: When it was installed.
            more: Further fields; they are kept.
        """
        known = {"hidden_unit_index": index, "correlation": correlation, "epoch": epoch, "total_hidden_units": None}
        with contextlib.suppress(TypeError, ValueError):
            known["total_hidden_units"] = int(index) + 1
        self._send("cascade_add", {**known, **more})

    def event(self, type: str, *, epoch: int | None = None, **details: Any) -> None:
        """Publishes an event of any other type, with its details."""
        self._send("event", {"event_type": values.text(type), "details": {"epoch": epoch, **details}})

    # ------------------------------------------------------------ commands

    @property
    def paused(self) -> bool:
        """Whether a command asks the training to pause."""
        return self._commands is not None and self._commands.paused

    @property
    def stopped(self) -> bool:
        """Whether a command asks the training to stop. The run then ends as `stopped`, unless `finish` says otherwise."""
        return self._commands is not None and self._commands.stopped

    def wait_while_paused(self, timeout: float | None = None) -> bool:
        """Waits until the training may go on, or should stop; False after `timeout` seconds (None: waits for ever)."""
        return self._commands is None or self._commands.wait_while_paused(timeout)

    # ------------------------------------------------------------ counts and the end

    @property
    def active(self) -> bool:
        """Whether this process publishes this run: not after its end, in a forked child or in `mode="disabled"`."""
        return self._publisher is not None and not self._finished

    @property
    def published(self) -> int:
        """Messages that were sent."""
        return self._publisher.published if self._publisher else 0

    @property
    def dropped(self) -> int:
        """Messages that were dropped: what the daemon counts as lost. Those of the end that could not be sent count, too."""
        return self._publisher.dropped if self._publisher else 0

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until everything so far is sent; False after `timeout` seconds (None: waits for ever)."""
        return self._publisher is None or self._publisher.flush(timeout)

    def finish(self, status: str | None = None) -> None:
        """Ends the run, and waits until everything is sent, but not longer than `finish_timeout` of `init`.

        Args:
            status: `completed`, `failed` or `stopped`; absent: `stopped` after the command `stop`, else `completed`.
        """
        self.end(COMPLETED if status is None else Ending(values.text(status)), given=status is not None)

    def end(self, ending: Ending, given: bool = False) -> None:
        """Ends the run in this way; a run that has ended stays as it is."""
        if self._publisher is None or self._finished:
            return
        self._finished = True
        endings.remove(self)
        if ending is COMPLETED and self.stopped and not given:
            ending = Ending("stopped", "command")
        details = {name: value for name, value in ending._asdict().items() if value is not None}
        self._publisher.put("training_end", json.dumps(values.plain(details)), always=True)
        if self._commands is not None:
            self._commands.end()
        self._publisher.close(self._finish_timeout)

    def forget(self) -> None:
        """Makes the copy of a forked child do nothing: the run is its parent's."""
        if self._publisher is not None:
            self._publisher.forget()
        if self._commands is not None:
            self._commands.forget()
        self._publisher, self._finished = None, True

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(COMPLETED if error is None else endings.of_exception(error))

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the run publishes nothing."""
        return Run, (self.id, self.name)

    # ------------------------------------------------------------ inside

    def _send(self, kind: str, data: dict[str, Any]) -> None:
        if self._publisher is None:
            return
        try:
            self._put(kind, {name: values.plain(value) for name, value in data.items() if value is not None})
        except Exception as error:
            self._refuse(kind, f"it cannot be sent: {error!r}")

    def _put(self, kind: str, data: dict[str, Any]) -> None:
        if self._finished:
            self._refuse(kind, "the run has ended")
            return
        written = write_json(data)
        if len(written) > MESSAGE_MAX - 4_096:
            self._refuse(kind, f"it has {len(written)} bytes; a daemon takes at most {MESSAGE_MAX}")
        elif self._publisher is not None:
            self._publisher.put(kind, written)

    def _refuse(self, name: str, why: str) -> None:
        if name not in self._refused and len(self._refused) < REFUSED_MAX:
            self._refused.add(name)
            logger.warning("run `%s`: `%s` is left out: %s (said once)", self.name, name, why)


def stored_id(id: str) -> uuid.UUID:
    """The UUID under which a daemon stores a run."""
    try:
        return uuid.UUID(id.strip())
    except ValueError:
        return uuid.uuid5(NAMESPACE, id)
