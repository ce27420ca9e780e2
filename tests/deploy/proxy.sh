#!/usr/bin/env bash
# The examples of deploy/proxy with the real nginx and the real Caddy: the dashboard, its sessions, live events and the command line
# work behind each, under a path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
skip() { echo "SKIPPED: $*"; exit 77; }
for tool in redis-server curl openssl python3; do command -v "$tool" >/dev/null || skip "no $tool"; done
proxies=()
for proxy in nginx caddy; do
    if command -v "$proxy" >/dev/null; then proxies+=("$proxy"); else echo "no $proxy (Debian and Ubuntu: apt-get install $proxy)"; fi
done
((${#proxies[@]})) || skip "neither nginx nor caddy"

binary=$(tests/parts/program.sh)
work=$(mktemp -d)
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
await() { for ((n = 0; n < 300; n++)); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; echo "waited 30 s for: $*"; tail -n 20 "$work"/*.log; exit 1; }
fail() { echo "$proxy: $*"; tail -n 20 "$work"/*.log; exit 1; }

redis=$(free)
redis-server --port "$redis" --bind 127.0.0.1 --save "" --dir "$work" >"$work/redis.log" & pids+=($!)
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
{
    # shellcheck disable=SC2086
    openssl req -x509 $key -keyout "$work/ca.key" -out "$work/ca.pem" -days 2 -subj /CN=ca
    # shellcheck disable=SC2086
    openssl req $key -keyout "$work/key.pem" -out "$work/request" -subj /CN=dash.example
    openssl x509 -req -in "$work/request" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 -out "$work/cert.pem" \
        -extfile <(echo subjectAltName=DNS:dash.example,DNS:localhost)
} 2>"$work/openssl.log"
token=admin-token-0123456789
echo "ann admin $token" >"$work/tokens"
chmod 600 "$work/tokens"
daemon=$(free)
cat >"$work/config.toml" <<END
state_dir = "$work/state"
redis.url = "redis://127.0.0.1:$redis/0"
http.listen = "127.0.0.1:$daemon"
http.tokens_file = "$work/tokens"
http.trusted_hosts = ["dash.example"]
END
env -i PATH="$PATH" HOME="$work" "$binary" --config "$work/config.toml" run >"$work/daemon.log" 2>&1 & pids+=($!)
await curl -sf "http://127.0.0.1:$daemon/readyz"

start_nginx() {
    mkdir -p "$work/nginx"
    sed -e "s/127.0.0.1:8050/127.0.0.1:$daemon/; s/listen 443/listen 127.0.0.1:$port/" \
        -e "s#/etc/nginx/dash.example.pem#$work/cert.pem#; s#/etc/nginx/dash.example.key#$work/key.pem#" \
        -e "s/server_name dash.example/server_name dash.example localhost/" deploy/proxy/nginx.conf >"$work/site.conf"
    cat >"$work/nginx.conf" <<END
daemon off; pid $work/nginx/pid; error_log $work/nginx.log; worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path $work/nginx/body; proxy_temp_path $work/nginx/proxy; fastcgi_temp_path $work/nginx/fastcgi;
    uwsgi_temp_path $work/nginx/uwsgi; scgi_temp_path $work/nginx/scgi;
    include $work/site.conf;
}
END
    nginx -e "$work/nginx.log" -t -q -c "$work/nginx.conf"
    nginx -e "$work/nginx.log" -c "$work/nginx.conf" & proxy_pid=$!
}

start_caddy() {
    sed -e "s/127.0.0.1:8050/127.0.0.1:$daemon/" -e "s#^dash.example {#dash.example:$port, localhost:$port {\n\tbind 127.0.0.1\n\ttls $work/cert.pem $work/key.pem#" \
        deploy/proxy/Caddyfile >"$work/Caddyfile"
    # No port of its own but this one.
    { printf '{\n\tadmin off\n\tauto_https disable_redirects\n}\n'; cat "$work/Caddyfile"; } >"$work/Caddyfile.all"
    HOME=$work XDG_DATA_HOME=$work XDG_CONFIG_HOME=$work caddy validate --adapter caddyfile --config "$work/Caddyfile.all" >"$work/caddy.log" 2>&1 \
        || { cat "$work/caddy.log"; exit 1; }
    HOME=$work XDG_DATA_HOME=$work XDG_CONFIG_HOME=$work caddy run --adapter caddyfile --config "$work/Caddyfile.all" >>"$work/caddy.log" 2>&1 & proxy_pid=$!
}

publish() { redis-cli -p "$redis" PUBLISH cascor:training "{\"run_id\": \"$1\", \"epoch\": 1, \"loss\": 0.5}" >/dev/null; }

check() {
    port=$(free)
    "start_$proxy"
    pids+=("$proxy_pid")
    local site=https://dash.example:$port
    curl() { command curl -sS --cacert "$work/ca.pem" --resolve "dash.example:$port:127.0.0.1" "$@"; }
    await curl -f -o /dev/null "$site/cascor/healthz"
    # Without the slash: a redirect to the same name and port.
    [[ $(curl -o /dev/null -L -w '%{http_code} %{url_effective}' "$site/cascor") == "200 $site/cascor/" ]] || fail "the redirect"
    # The page, and every file that it names, by addresses relative to it.
    curl "$site/cascor/" >"$work/page"
    grep -q '<html' "$work/page" || fail "no page"
    if grep -E '(href|src)="/' "$work/page"; then fail "the page names an absolute path"; fi
    for file in $(grep -oE '(href|src)="assets/[^"]*' "$work/page" | cut -d'"' -f2); do
        curl -f -o /dev/null "$site/cascor/$file" || fail "$file"
    done
    [[ $(curl -o /dev/null -w '%{http_code}' "$site/api/runs") == 404 || $proxy == caddy ]] || fail "there is something outside the prefix"
    [[ $(curl -o /dev/null -w '%{http_code}' "$site/cascor/api/runs") == 401 ]] || fail "a request through the proxy counts as local"
    # A session: the cookie is for TLS and this host; a change needs the session's CSRF value.
    curl -c "$work/jar" -D "$work/head" -H "Origin: $site" -H 'Content-Type: application/json' -d "{\"token\": \"$token\"}" \
        "$site/cascor/api/session" >"$work/session"
    grep -qi '^set-cookie: __Host-cascor_session=.*; Path=/;.* Secure;.*SameSite=Strict' "$work/head" || fail "the cookie: $(cat "$work/head")"
    [[ $(curl -b "$work/jar" -o /dev/null -w '%{http_code}' "$site/cascor/api/runs") == 200 ]] || fail "the session is not taken"
    # Live events arrive at once.
    local run=11111111-6794-4685-b2f5-43019da8836b
    if [[ $proxy == caddy ]]; then run=22222222-6794-4685-b2f5-43019da8836b; fi
    curl -N --max-time 6 -b "$work/jar" "$site/cascor/api/stream" >"$work/stream" 2>/dev/null & local stream=$!
    await grep -q . "$work/stream"
    publish "$run"
    for ((n = 0; n < 20; n++)); do if grep -q "$run" "$work/stream"; then break; fi; sleep 0.1; done
    grep -q "$run" "$work/stream" || fail "a live event is held back for 2 s"
    wait "$stream" || true
    # A large body, and the document, whose server is relative.
    python3 -c 'import json; print("\n".join(json.dumps({"run_id": "large", "epoch": n, "loss": 0.5, "note": "x" * 4000}) for n in range(1500)))' >"$work/body"
    [[ $(curl -H "Authorization: Bearer $token" -H 'Content-Type: application/x-ndjson' --data-binary "@$work/body" "$site/cascor/api/messages") == *'"accepted":1500'* ]] \
        || fail "6 MB of messages are not taken"
    curl "$site/cascor/api/openapi.json" -H "Authorization: Bearer $token" | python3 -c 'import json, sys; assert json.load(sys.stdin)["servers"] == [{"url": ".."}]' || fail "OpenAPI"
    # The command line, by the name that the certificate has.
    env -i PATH="$PATH" HOME="$work" CASCOR_INGEST_TOKEN=$token "$binary" runs --url "https://localhost:$port/cascor" --ca "$work/ca.pem" >"$work/runs"
    grep -q "${run%%-*}" "$work/runs" || fail "the command line: $(cat "$work/runs")"
    unset -f curl
    kill "$proxy_pid"
    echo "$proxy: the dashboard, a session, live events, large messages and the command line work below /cascor/"
}

for proxy in "${proxies[@]}"; do check; done
((${#proxies[@]} == 2)) || skip "only ${proxies[*]} was tried"
