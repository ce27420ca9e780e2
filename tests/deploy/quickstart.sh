#!/usr/bin/env bash
# deploy/quickstart shows that the main job works, and says so with its status.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo build --locked --quiet
CASCOR_BIN=${CARGO_TARGET_DIR:-$PWD/target}/debug/cascor-ingest deploy/quickstart --private --for 15s
