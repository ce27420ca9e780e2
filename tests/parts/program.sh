#!/usr/bin/env bash
# Builds the daemon for checks that are no Rust tests, and prints its path. CASCOR_TEST_BINARY names another one instead.
#
# Built together with a test: alone, cargo would give tokio other features than the tests have, and compile whatever depends on it
# a second time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [[ -n ${CASCOR_TEST_BINARY:-} ]]; then
    program=$(realpath "$CASCOR_TEST_BINARY")
else
    cargo build --locked --quiet --bin cascor-ingest --test faults_hostile >&2
    program=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/cascor-ingest
fi
[[ -x $program ]] || { echo "no program at $program" >&2; exit 1; }
echo "$program"
