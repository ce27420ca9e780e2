"""How a run ends when its program does: normally, by an exception, by a signal, or not at all because it is a forked child."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
from types import FrameType, TracebackType
from typing import Any, NamedTuple, NoReturn, Protocol

TEXT_MAX = 16_384
"""Characters of an exception's text and of its traceback; the daemon takes texts of up to 64 KiB."""


class Ending(NamedTuple):
    """How a run ended."""

    status: str
    reason: str | None = None
    error: str | None = None
    traceback: str | None = None


class Endable(Protocol):
    """What ends with the program: a run."""

    def end(self, ending: Ending) -> None:
        """Ends the run."""

    def forget(self) -> None:
        """Makes a forked child's copy of the run do nothing."""


COMPLETED = Ending("completed")

_open: list[Endable] = []
_installed = False
_signal: Ending | None = None
"""The signal that ends this program."""
_program = COMPLETED
"""How this program ends, as far as is known."""


def of_exception(error: BaseException) -> Ending:
    """The ending of a run whose program is left by this exception."""
    if _signal is not None:
        return _signal
    if isinstance(error, SystemExit):
        return _of_status(error.code)
    if not isinstance(error, Exception):  # KeyboardInterrupt, a cancelled task
        return Ending("stopped", type(error).__name__)
    try:
        text = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:  # an exception whose text raises
        text, trace = type(error).__name__, ""
    return Ending("failed", None, text[:TEXT_MAX], trace[-TEXT_MAX:])


def _of_status(code: Any) -> Ending:
    if code is None or code == 0:
        return COMPLETED
    return Ending("failed", None, f"exit status {code}"[:TEXT_MAX])


def add(run: Endable, signals: bool) -> None:
    """Ends the run with the program; `signals`: also when SIGTERM ends it."""
    _install()
    if signals:
        _install_signal()
    _open.append(run)


def remove(run: Endable) -> None:
    """The run has ended by itself."""
    if run in _open:
        _open.remove(run)


def _install() -> None:
    global _installed
    if _installed:
        return
    _installed = True
    atexit.register(_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)
    hook, leave = sys.excepthook, sys.exit

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        global _program
        _program = of_exception(error)
        hook(kind, error, trace)

    # Nothing else tells the status of a program that leaves without an exception of its own.
    def exit(code: Any = None) -> NoReturn:  # noqa: A001
        global _program
        if threading.current_thread() is threading.main_thread():
            _program = _of_status(code)
        leave(code)

    sys.excepthook, sys.exit = excepthook, exit


def _at_exit() -> None:
    for run in list(_open):
        run.end(_signal or _program)


def _in_child() -> None:
    for run in _open:
        run.forget()
    _open.clear()
    try:
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except ValueError:  # not in the main thread
        pass


def _install_signal() -> None:
    """Takes SIGTERM where it would end the process without a word. A handler of the program's own stays."""
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:  # only the main thread may
        pass


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    global _signal
    if not _open:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    _signal = Ending("stopped", "SIGTERM")
    # Unwinds the program, so that files are closed and `finally` runs.
    raise SystemExit(128 + number)
