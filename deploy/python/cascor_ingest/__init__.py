"""Publishes training runs to cascor-ingest.

`init` begins a run, `Run.log` publishes metrics, and the end of the program ends the run. README.md has examples.
"""

from .logs import LogHandler
from .run import Run
from .start import init

__all__ = ["LogHandler", "Run", "init"]
__version__ = "0.1.0"
