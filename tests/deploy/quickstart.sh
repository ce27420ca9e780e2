#!/usr/bin/env bash
# deploy/quickstart shows that the main job works, and says so with its status; Ctrl-C ends its parts in order.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
program=$(tests/parts/program.sh)
trainer=()
if "${CASCOR_TEST_PYTHON:-python3}" -c 'import redis' 2>/dev/null; then
    trainer=(--trainer)
    export CASCOR_PYTHON=${CASCOR_TEST_PYTHON:-python3} PYTHONDONTWRITEBYTECODE=1
fi
CASCOR_BIN=$program deploy/quickstart --private "${trainer[@]}" --for 15s

for wrong in --for "--for 0s" "--for 2x"; do
    if CASCOR_BIN=$program deploy/quickstart --private $wrong 2>/dev/null; then echo "took $wrong" >&2; exit 1; fi
done

# Ctrl-C: a terminal sends SIGINT to the whole group. The runs of the demo are ended, and stored.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
set -m
CASCOR_BIN=$program deploy/quickstart --private --state "$dir/state" >"$dir/out" 2>&1 </dev/null &
quickstart=$!
set +m
for ((i = 0; i < 300; i++)); do grep -q 'hidden units' "$dir/out" && break; sleep 0.1; done
sleep 2
kill -INT -- "-$quickstart"
status=0
wait "$quickstart" || status=$?
runs=$("$program" runs --json --state-dir "$dir/state")
ended=$(grep -o '"status": *"stopped"' <<<"$runs" | wc -l)
if ((status != 130 || ended != 2)); then
    echo "status $status, $ended of 2 runs ended" >&2
    cat "$dir/out" >&2
    printf '%s\n' "$runs" >&2
    exit 1
fi
