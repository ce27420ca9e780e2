"""What may be logged: numbers of any kind, nested dictionaries of them, and plain data for configurations and events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Callable, Union

Number = Union[int, float]

INT_MAX = 2**63
"""Integers from here on are sent as floating-point numbers, because JSON readers cut them."""

DEPTH_MAX = 16
"""Dictionaries and lists that are nested deeper are refused; the daemon refuses messages deeper than 64."""

RESERVED = frozenset({"run_id", "seq", "timestamp", "type"})
"""Fields that every message has already."""

TEXTS = frozenset({"phase", "cascade_phase", "training_phase"})
"""The metrics that are texts."""


class Refused(Exception):
    """A value that cannot be sent. The message says why."""


def number(value: Any) -> Number:
    """Converts a number of any kind: Python's, or one with `.item()` or `__float__` (NumPy, PyTorch, JAX, Decimal).

    Raises:
        Refused: It is no number, or an array of more than one.
    """
    if type(value) is int and -INT_MAX <= value < INT_MAX:  # epochs and steps
        return value
    if not isinstance(value, (int, float)):
        item = getattr(value, "item", None)
        try:
            if callable(item):
                value = item()
            if not isinstance(value, (int, float)):
                if not hasattr(type(value), "__float__"):
                    raise Refused(f"it is a {type(value).__name__}, and no number")
                value = float(value)
        except Refused:
            raise
        except Exception as error:  # whatever a foreign type raises
            raise Refused(f"its {type(value).__name__} cannot be read as one number: {error}") from None
    if isinstance(value, int):
        whole = int(value)  # True is 1
        if -INT_MAX <= whole < INT_MAX:
            return whole
    try:
        return float(value)
    except OverflowError:
        raise Refused("the integer is too large for a floating-point number") from None


def metrics(values: Mapping[Any, Any], refuse: Callable[[str, str], None]) -> dict[str, Any]:
    """Converts what is logged, and calls `refuse(name, why)` for each value that is left out.

    A nested dictionary stays nested; the daemon joins the names with dots. `None` means absent.
    """
    return _metrics(values, refuse, "", DEPTH_MAX)


def _metrics(values: Mapping[Any, Any], refuse: Callable[[str, str], None], above: str, depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        name = text(key)
        if type(value) is float:  # nearly all of them
            kept[name] = value
        elif isinstance(value, Mapping):
            if depth == 0:
                refuse(above + name, f"it is nested deeper than {DEPTH_MAX} levels")
            elif inner := _metrics(value, refuse, f"{above}{name}.", depth - 1):
                kept[name] = inner
        elif isinstance(value, str) and name in TEXTS:
            kept[name] = text(value)
        elif value is not None:
            add(name, value, kept, refuse, above)
    if not above and not RESERVED.isdisjoint(kept):
        for name in RESERVED.intersection(kept):
            del kept[name]
            refuse(name, "the name is reserved: every message has a field of this name")
    return kept


def add(name: str, value: Any, kept: dict[str, Any], refuse: Callable[[str, str], None], above: str = "") -> None:
    """Adds one number of any kind to what is kept, or calls `refuse` with its name below `above`."""
    try:
        kept[name] = number(value)
    except Refused as error:
        refuse(above + name, str(error))


def has_number(values: Mapping[str, Any]) -> bool:
    """Whether a converted dictionary holds a metric: a message of none would be refused."""
    for name, value in values.items():
        if isinstance(value, dict):
            if has_number(value):
                return True
        elif name not in TEXTS and name not in ("epoch", "step"):
            return True
    return False


def plain(value: Any, depth: int = DEPTH_MAX) -> Any:
    """Converts a configuration or the details of an event to what JSON has; what is not data becomes its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, (int, float)):
        return number(value) if abs(value) < 1e300 else text(value)
    if depth == 0:
        return text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif type(value).__name__ == "Namespace":  # argparse
        value = vars(value)
    if isinstance(value, Mapping):
        return {text(key): plain(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner, depth - 1) for inner in value]
    if callable(getattr(value, "tolist", None)):  # an array
        return plain(value.tolist(), depth - 1)
    try:
        return number(value)
    except Refused:
        return text(value)


def text(value: Any) -> str:
    """The text of anything, as valid UTF-8."""
    written = value if type(value) is str else str(value)
    return written if written.isascii() else written.encode("utf-8", "replace").decode()
