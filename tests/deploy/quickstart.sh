#!/usr/bin/env bash
# deploy/quickstart shows that the main job works, and says so with its status.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
program=$(tests/parts/program.sh)
trainer=()
if "${CASCOR_TEST_PYTHON:-python3}" -c 'import redis' 2>/dev/null; then
    trainer=(--trainer)
    export CASCOR_PYTHON=${CASCOR_TEST_PYTHON:-python3} PYTHONDONTWRITEBYTECODE=1
fi
CASCOR_BIN=$program deploy/quickstart --private "${trainer[@]}" --for 15s
