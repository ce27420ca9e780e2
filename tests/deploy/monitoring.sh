#!/usr/bin/env bash
# deploy/monitoring beside a real daemon: /metrics is valid OpenMetrics and follows Prometheus' conventions; its table, the alerts,
# their tests, the runbook and the dashboard fit it; a real Prometheus scrapes it, answers the dashboard's queries and fires the
# alerts of faults.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${CASCOR_TEST_PYTHON:-python3}
cached=${CASCOR_TEST_CACHE:-$HOME/.cache/cascor-ingest}/prometheus/usr/bin
if [[ -x $cached/promtool ]]; then PATH=$cached:$PATH; fi
for tool in redis-server redis-cli curl promtool prometheus; do
    command -v "$tool" >/dev/null || { echo "SKIPPED: no $tool (Debian: apt-get install prometheus, redis-server, curl)"; exit 77; }
done
"$python" -c 'import prometheus_client, yaml' 2>/dev/null \
    || { echo "SKIPPED: no prometheus_client and yaml for Python (pip install prometheus_client pyyaml)"; exit 77; }
program=$(tests/parts/program.sh)
work=$(mktemp -d) pids=()
cleanup() {
    trap - EXIT
    if ((${#pids[@]})); then kill -KILL "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "FAILED: $*"; tail -n 5 "$work"/*.log; exit 1; }
port=${CASCOR_TEST_MONITORING_PORT:-$((33000 + $$ % 2000 * 3))}
url=http://127.0.0.1:$((port + 1)) prometheus=http://127.0.0.1:$((port + 2))
page() { curl --silent --fail --noproxy '*' "$url/metrics"; }
ready() { curl --silent --fail --noproxy '*' --output /dev/null "$1"; }
wait_for() { # WHAT COMMAND...
    local limit=$((SECONDS + 10))
    until "${@:2}"; do if ((SECONDS > limit)); then fail "$1 did not come"; fi; sleep 0.1; done
}
start_redis() {
    redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$work" >>"$work/redis.log" 2>&1 &
    redis=$! pids+=($!)
    wait_for "Redis" redis-cli -p "$port" ping >/dev/null 2>&1
}
checks() { "$python" tests/deploy/monitoring.py "$@"; }

start_redis
CASCOR_INGEST__STATE_DIR=$work/state CASCOR_INGEST__REDIS__URL=redis://127.0.0.1:$port/0 CASCOR_INGEST__HTTP__LISTEN=${url#http://} \
    CASCOR_INGEST__REDIS__STREAMS="[\"cascor:training:stream\"]" \
    "$program" run >>"$work/daemon.log" 2>&1 &
daemon=$! pids+=($!)
wait_for "the daemon" ready "$url/readyz"
publish() { redis-cli -p "$port" publish cascor:training "{\"run_id\":\"r\",\"epoch\":$1,\"loss\":0.5,\"timestamp\":$(date +%s.%6N)}" >/dev/null; }
publish 1
stored() { page | grep -q '^cascor_writer_rows_total{table="training_metrics".* 1$'; }
wait_for "the row" stored

# What the files say.
page >"$work/page"
checks check "$work/page"
checks text "$work/page" >"$work/text"
promtool check metrics <"$work/text" || fail "names, units or help texts of /metrics"
promtool check config deploy/monitoring/prometheus.yaml >"$work/promtool.log" 2>&1 || fail "prometheus.yaml"
promtool check rules deploy/monitoring/alerts.yaml >"$work/promtool.log" 2>&1 || fail "alerts.yaml"
promtool test rules deploy/monitoring/alerts_test.yaml >"$work/promtool.log" 2>&1 || { cat "$work/promtool.log"; fail "alerts_test.yaml"; }
checks queries >"$work/queries.yaml"
promtool check rules "$work/queries.yaml" >"$work/promtool.log" 2>&1 || fail "the queries of grafana.json"

# What a Prometheus makes of them: the example with this daemon, and everything within seconds.
sed "s/127.0.0.1:8050/${url#http://}/; s/_interval: 15s/_interval: 1s/" deploy/monitoring/prometheus.yaml >"$work/prometheus.yaml"
sed 's/for: [0-9]*m$/for: 1s/' deploy/monitoring/alerts.yaml >"$work/alerts.yaml"
prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/tsdb" --web.listen-address="${prometheus#http://}" \
    --log.level=warn >>"$work/prometheus.log" 2>&1 &
pids+=($!)
wait_for "Prometheus" ready "$prometheus/-/ready"
answered() { checks ask "$prometheus" >"$work/asked" 2>&1; }
wait_for "answers to the dashboard's queries" answered || { cat "$work/asked"; exit 1; }
cat "$work/asked"
firing() {
    curl --silent --fail --noproxy '*' --data-urlencode 'query=ALERTS{alertstate="firing"}' "$prometheus/api/v1/query" \
        | grep -o '"alertname":"[^"]*"' | cut -d'"' -f4 | sort -u || true
}
[[ -z $(firing) ]] || fail "while all is well: $(firing | paste -sd' ')"
is_firing() { firing | grep -qx "$1"; }
kill -KILL "$redis" && wait "$redis" 2>/dev/null || true
wait_for "CascorNotSubscribed without Redis" is_firing CascorNotSubscribed
start_redis
not_firing() { ! is_firing "$1"; }
wait_for "the end of CascorNotSubscribed" not_firing CascorNotSubscribed
wait_for "CascorGap" is_firing CascorGap
kill -KILL "$daemon" && wait "$daemon" 2>/dev/null || true
wait_for "CascorDown without the daemon" is_firing CascorDown
echo "fired with their faults: CascorNotSubscribed, CascorGap, CascorDown; none before"
