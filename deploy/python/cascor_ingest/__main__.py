"""`python -m cascor_ingest`: converts runs of other tools to a file for `cascor-ingest import`."""

from __future__ import annotations

import argparse
import contextlib
import sys

from .convert import mlflow, tensorboard


def main() -> int:
    """Runs the command; its status is 0 when all was read, 1 when something was left out, 2 when nothing could be done."""
    parser = argparse.ArgumentParser(prog="python -m cascor_ingest", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    board = commands.add_parser("tensorboard", help="the scalars of TensorBoard's event files, one run for each folder")
    board.add_argument("folder", metavar="LOGDIR", help="the folder that TensorBoard is started with")
    board.add_argument(
        "--status",
        default="completed",
        choices=["completed", "failed", "stopped"],
        help="how the runs ended, which TensorBoard does not record (default: %(default)s)",
    )
    flow = commands.add_parser("mlflow", help="runs of MLflow's file store")
    flow.add_argument("folder", metavar="DIR", help="the store (mlruns), or one of its experiments")
    for command in (board, flow):
        command.add_argument("-o", "--output", metavar="FILE", help="where the messages go (default: standard output)")
    arguments = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(open(arguments.output, "w", encoding="utf-8")) if arguments.output else sys.stdout
            if arguments.command == "tensorboard":
                problems = tensorboard.convert(arguments.folder, out, arguments.status)
            else:
                problems = mlflow.convert(arguments.folder, out)
    except OSError as error:
        print(f"cascor_ingest: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"cascor_ingest: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
