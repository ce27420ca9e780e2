"""TensorBoard's event files: TFRecords of protocol buffers, read without TensorFlow.

A folder with event files is a run, named by its path below LOGDIR. Scalars of one step become one message.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO, Union

from .messages import Writer

RECORD_MAX = 1 << 30
"""Bytes; a longer record is damage."""

DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT64 = 1, 2, 3, 9
"""Element types of a tensor."""
FORMATS = {DT_FLOAT: "<f", DT_DOUBLE: "<d", DT_INT32: "<i", DT_INT64: "<q"}

Field = Union[int, bytes]


class Damaged(Exception):
    """A file is no event file, or is torn at this place."""


class Scalar(NamedTuple):
    """One point of a curve."""

    time: float
    step: int
    tag: str
    value: float


def convert(logdir: str, out: TextIO, status: str) -> list[str]:
    """Writes the messages of all runs below a folder; returns what could not be read.

    Raises:
        FileNotFoundError: There is no event file below the folder.
    """
    folders: dict[Path, list[Path]] = {}
    for path in sorted(Path(logdir).rglob("*tfevents*")):
        if path.is_file():
            folders.setdefault(path.parent, []).append(path)
    if not folders:
        raise FileNotFoundError(f"no file with `tfevents` in its name is below {logdir}")
    problems: list[str] = []
    for folder, files in folders.items():
        name = os.path.relpath(folder, logdir)
        _run(Path(logdir).resolve().name if name == "." else name, files, Output(out, status, problems))
    return problems


class Output(NamedTuple):
    """Where messages and problems go."""

    out: TextIO
    status: str
    problems: list[str]


def _run(name: str, files: list[Path], output: Output) -> None:
    writer = Writer(name, output.out)
    point: dict[str, float] = {}
    begun, last = False, Scalar(0.0, 0, "", 0.0)
    for path in files:
        try:
            for scalar in scalars(path):
                if not begun:
                    writer.start(scalar.time, tags=["tensorboard"])
                    begun = True
                elif scalar.step != last.step or scalar.tag in point:
                    writer.metrics(last.time, last.step, point)
                    point = {}
                point[scalar.tag] = scalar.value
                last = scalar
        except Damaged as error:
            output.problems.append(f"{path}: {error}; what is before that is converted")
        except OSError as error:
            output.problems.append(f"{path}: {error}")
    if begun:
        writer.metrics(last.time, last.step, point)
        writer.end(last.time, output.status)
    else:
        output.problems.append(f"{name}: it has no scalars")
    output.problems.extend(f"{name}: `{tag}` is left out: {why}" for tag, why in writer.skipped.items())


def scalars(path: Path) -> Iterator[Scalar]:
    """The scalars of a file, in its order.

    Raises:
        Damaged: Where the file is torn, which a writer that was killed leaves at its end.
    """
    with open(path, "rb") as file:
        while head := file.read(12):
            if len(head) < 12:
                raise Damaged("its last record is torn")
            (length,) = struct.unpack("<Q", head[:8])
            if length > RECORD_MAX:
                raise Damaged(f"at byte {file.tell() - 12} there is no record")
            record = file.read(length + 4)
            if len(record) < length + 4:
                raise Damaged("its last record is torn")
            try:
                yield from _event(record[:length])
            except (IndexError, struct.error, UnicodeDecodeError, TypeError) as error:
                raise Damaged(f"the record before byte {file.tell()} is no event ({error})") from None


def _event(record: bytes) -> Iterator[Scalar]:
    """Event: 1 wall_time, 2 step, 5 summary; Summary: 1 value (repeated)."""
    time, step, summaries = 0.0, 0, []
    for number, value in fields(record):
        if number == 1:
            (time,) = struct.unpack("<d", _bytes(value))
        elif number == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif number == 5:
            summaries.append(_bytes(value))
    for summary in summaries:
        for number, value in fields(summary):
            if number == 1:
                tag, scalar = _value(_bytes(value))
                if scalar is not None:
                    yield Scalar(time, step, tag, scalar)


def _value(record: bytes) -> tuple[str, float | None]:
    """Value: 1 tag, 2 simple_value, 8 tensor. Images, histograms and texts have no scalar."""
    tag, scalar = "", None
    for number, value in fields(record):
        if number == 1:
            tag = _bytes(value).decode()
        elif number == 2:
            (scalar,) = struct.unpack("<f", _bytes(value))
        elif number == 8:
            scalar = _tensor(_bytes(value))
    return tag, scalar


def _tensor(record: bytes) -> float | None:
    """TensorProto: 1 dtype, 4 tensor_content, 5 float_val, 6 double_val, 7 int_val, 10 int64_val; of one element."""
    kind, content, given = 0, b"", None
    for number, value in fields(record):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 4:
            content = _bytes(value)
        elif number in (5, 6):
            packed = _bytes(value)
            form = "<f" if number == 5 else "<d"
            given = struct.unpack(form, packed)[0] if len(packed) == struct.calcsize(form) else None
        elif number in (7, 10):
            given = float(value) if isinstance(value, int) else float(_varint(value, 0)[0])
    if content and kind in FORMATS and len(content) == struct.calcsize(FORMATS[kind]):
        return float(struct.unpack(FORMATS[kind], content)[0])
    return given


def fields(record: bytes) -> Iterator[tuple[int, Field]]:
    """The fields of a protocol buffer: a number for a varint, else bytes."""
    at = 0
    while at < len(record):
        key, at = _varint(record, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(record, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(record, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise TypeError(f"field {number} has the unknown wire type {wire}")
        if at + length > len(record):
            raise IndexError(f"field {number} is cut")
        yield number, record[at : at + length]
        at += length


def _varint(record: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = record[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(value: Field) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number stands where bytes should")
    return value
