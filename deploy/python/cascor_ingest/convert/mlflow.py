"""MLflow's file store (`mlruns/`): runs with their parameters, tags and metrics.

A run is called by its name in MLflow and the first eight digits of its id there, because names repeat.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TextIO

from .messages import Writer

STATUS = {"3": "completed", "FINISHED": "completed", "4": "failed", "FAILED": "failed", "5": "stopped", "KILLED": "stopped"}
"""Of MLflow's run states, those that are an end."""

NOTES = "mlflow.note.content"


def convert(folder: str, out: TextIO) -> list[str]:
    """Writes the messages of all runs below a folder; returns what could not be read.

    Raises:
        FileNotFoundError: There is no run below the folder.
    """
    metas = [path for path in sorted(Path(folder).rglob("meta.yaml")) if "run_id" in meta(path) or "run_uuid" in meta(path)]
    if not metas:
        raise FileNotFoundError(f"no meta.yaml of a run is below {folder}")
    problems: list[str] = []
    for path in metas:
        found = meta(path)
        if found.get("lifecycle_stage") == "deleted":
            problems.append(f"{path.parent}: it is deleted in MLflow, and left out")
            continue
        _run(path.parent, found, out, problems)
    return problems


def _run(folder: Path, found: dict[str, str], out: TextIO, problems: list[str]) -> None:
    tags = _texts(folder / "tags")
    points, last_step, last_time = _points(folder / "metrics", problems), 0, 0.0
    begin = _seconds(found.get("start_time")) or min((time for time, _ in points), default=0.0)
    if not begin:
        problems.append(f"{folder}: neither its meta.yaml nor its metrics have a time")
        return
    run_id = found.get("run_id") or found["run_uuid"]
    name = found.get("run_name") or tags.get("mlflow.runName")
    writer = Writer(f"{name}-{run_id[:8]}" if name else run_id, out)
    labels = [f"{key}={value}" for key, value in tags.items() if not key.startswith("mlflow.")]
    writer.start(
        begin,
        config={**_texts(folder / "params"), "mlflow.run_id": run_id},
        tags=["mlflow", *labels],
        notes=tags.get(NOTES),
        created_by=found.get("user_id") or tags.get("mlflow.user"),
    )
    for (last_time, last_step), values in sorted(points.items()):
        writer.metrics(last_time, last_step, values)
    if status := STATUS.get(found.get("status", "")):
        writer.end(_seconds(found.get("end_time")) or max(begin, last_time), status)
    problems += [f"{folder}: `{metric}` is left out: {why}" for metric, why in writer.skipped.items()]


def _points(folder: Path, problems: list[str]) -> dict[tuple[float, int], dict[str, float]]:
    """Metrics by time and step; their files have lines of milliseconds, value and step."""
    points: dict[tuple[float, int], dict[str, float]] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            try:
                time, value, *rest = line.split()
                point = points.setdefault((int(time) / 1000, int(rest[0]) if rest else 0), {})
                point[name] = float(value)
            except ValueError:
                problems.append(f"{path}: line {number} is no metric")
    return points


def meta(path: Path) -> dict[str, str]:
    """The flat keys of a meta.yaml, as texts; `null` and empty ones are left out."""
    found = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        if match := re.match(r"(\w+):\s*(.*?)\s*$", line):
            value = match[2]
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1].replace("''", "'")
            if value not in ("", "null", "~"):
                found[match[1]] = value
    return found


def _texts(folder: Path) -> dict[str, str]:
    """The files of a folder and their texts: parameters and tags."""
    if not folder.is_dir():
        return {}
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8", "replace") for path in paths}


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds and milliseconds.isdigit() else None
