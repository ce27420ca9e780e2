#!/usr/bin/env bash
# The Python package passes ruff and mypy, its wheel is built, and installed from in a new environment it has the command and types.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${CASCOR_TEST_PYTHON:-python3}
if ! "$python" -c 'import mypy, ruff, redis' 2>/dev/null; then
    echo "SKIPPED: no ruff, mypy or redis (pip install ruff mypy redis)"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export RUFF_CACHE_DIR=$work/ruff MYPY_CACHE_DIR=$work/mypy PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
tests=(tests/client/trainer tests/client/libraries)
"$python" -m ruff check --quiet deploy/python
"$python" -m ruff format --quiet --check deploy/python
"$python" -m ruff check --quiet --isolated --select E9,F --ignore F403,F405 "${tests[@]}"
(cd deploy/python && "$python" -m mypy --no-error-summary)
echo "ruff and mypy find nothing"
# Syntax of the oldest Python that the package promises.
"$python" - <<'PYTHON'
import ast, pathlib

for path in pathlib.Path("deploy/python").rglob("*.py"):
    ast.parse(path.read_text(), str(path), feature_version=(3, 9))
PYTHON

# A build leaves files behind, so it has a copy.
cp -r deploy/python "$work/source"
if ! "$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$work/source" </dev/null 2>"$work/log"; then
    grep -qiE 'connection|resolve|no matching distribution' "$work/log" || { cat "$work/log"; exit 1; }
    echo "SKIPPED: setuptools could not be had to build the wheel"
    exit 77
fi
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "$work"/cascor_ingest-*.whl </dev/null
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import cascor_ingest, importlib.resources, sys

assert cascor_ingest.__file__.startswith(sys.prefix), cascor_ingest.__file__
assert (importlib.resources.files(cascor_ingest) / "py.typed").is_file(), "py.typed is missing"
with cascor_ingest.init("wheel", mode="offline", path="wheel.ndjson") as run:
    run.log({"loss": 0.5}, epoch=1)
assert len(open("wheel.ndjson").readlines()) == 3
PYTHON
"$work/venv/bin/python" -m cascor_ingest --help >/dev/null
# What users of a type checker see.
cat >"$work/use.py" <<'PYTHON'
import cascor_ingest

with cascor_ingest.init(name="spiral-7", config={"lr": 0.01}, tags=["sweep"]) as run:
    run.log({"loss": 0.5, "inner": {"f1": 1}}, epoch=1)
    stopped: bool = run.stopped
PYTHON
"$python" -m mypy --strict --no-error-summary --python-executable "$work/venv/bin/python" "$work/use.py"
echo "$(basename "$work"/cascor_ingest-*.whl): built, installed, typed"
