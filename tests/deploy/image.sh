#!/usr/bin/env bash
# The image `FROM scratch` is built without a registry, and runs as the compose files say: read-only root, a user without rights,
# ready, signed in with the token of `token ensure`, stopped within its grace.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
skip() { echo "SKIPPED: $*"; exit 77; }
for tool in buildah runc redis-server redis-cli strip curl python3; do
    command -v "$tool" >/dev/null || skip "no $tool (Debian: apt-get install buildah runc redis-server binutils curl python3)"
done
((EUID == 0)) || skip "buildah and runc need root here"

work=$(mktemp -d)
stores=(--root "$work/storage" --runroot "$work/runroot" --storage-driver vfs)
redis=
cleanup() {
    local status=$?
    runc --root "$work/runc" delete --force cascor >/dev/null 2>&1 || true
    if [[ -n $redis ]]; then kill "$redis" 2>/dev/null || true; wait "$redis" 2>/dev/null || true; fi
    if ((status)); then cat "$work"/*.log 2>/dev/null || true; fi
    buildah "${stores[@]}" umount --all >/dev/null 2>&1 || true
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { # SECONDS COMMAND: until it succeeds
    local until=$((SECONDS + $1))
    until "${@:2}" >/dev/null 2>&1; do
        ((SECONDS < until)) || { echo "not within $1 s: ${*:2}"; return 1; }
        sleep 0.1
    done
}

program=$(tests/parts/program.sh)
strip -o "$work/cascor-ingest" "$program"
deploy/docker/scratch-context "$work/cascor-ingest" "$work/context"
buildah "${stores[@]}" bud --isolation chroot -f deploy/docker/Dockerfile.scratch -t cascor-ingest:test "$work/context" >"$work/build.log" 2>&1
container=$(buildah "${stores[@]}" from --pull-never cascor-ingest:test)
root=$(buildah "${stores[@]}" mount "$container")
buildah "${stores[@]}" inspect --type image cascor-ingest:test >"$work/image.json"

# A bundle of runc, from the image and from what compose.yaml says of its containers.
redis_port=$(free_port) port=$(free_port)
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no >"$work/redis.log" 2>&1 &
redis=$!
wait_for 5 redis-cli -p "$redis_port" ping
install -d -m 0700 -o 65532 -g 65532 "$work/state"
bundle() { # ARGUMENTS of the program
    mkdir -p "$work/bundle"
    (cd "$work/bundle" && rm -f config.json && runc spec)
    python3 - "$work" "$root" "CASCOR_INGEST__REDIS__URL=redis://127.0.0.1:$redis_port/0" "CASCOR_INGEST__HTTP__LISTEN=127.0.0.1:$port" \
        CASCOR_INGEST__HTTP__TOKENS_FILE=/var/lib/cascor-ingest/http-tokens -- "$@" <<'PYTHON'
import json, pathlib, sys

work, root, *rest = sys.argv[1:]
environment, arguments = rest[:rest.index("--")], rest[rest.index("--") + 1:]
image = json.loads(pathlib.Path(work, "image.json").read_text())["OCIv1"]["config"]
assert image["User"] == "65532:65532", image
file = pathlib.Path(work, "bundle/config.json")
spec = json.loads(file.read_text())
spec["root"] = {"path": root, "readonly": True}
process = spec["process"]
process.update(terminal=False, args=image["Entrypoint"] + (arguments or image["Cmd"]), env=image["Env"] + environment, cwd="/")
process.update(user={"uid": 65532, "gid": 65532}, noNewPrivileges=True)
process["capabilities"] = {kind: [] for kind in process["capabilities"]}
spec["mounts"].append({"destination": "/var/lib/cascor-ingest", "type": "bind", "source": f"{work}/state", "options": ["bind", "rw"]})
# The loopback of this machine has the Redis.
spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "network"]
file.write_text(json.dumps(spec))
PYTHON
}
run() { runc --root "$work/runc" run --bundle "$work/bundle" cascor; }

bundle token ensure /var/lib/cascor-ingest/http-tokens
said=$(run)
token=${said##*: }
[[ ${#token} -ge 32 ]] || { echo "no token in: $said"; exit 1; }
[[ $(run) == "$said" ]] || { echo "another token at the second start"; exit 1; }

bundle
run >"$work/daemon.log" 2>&1 &
daemon=$!
wait_for 20 curl --silent --fail --noproxy '*' "http://127.0.0.1:$port/readyz"
grep -q "http://127.0.0.1:$port/" "$work/daemon.log" || { echo "the log does not name the dashboard"; exit 1; }
status() { curl --silent --noproxy '*' --output "$work/answer" --write-out '%{http_code}' "$@"; }
[[ $(status "http://127.0.0.1:$port/api/status") == 401 ]] || { echo "answers without a token"; exit 1; }
[[ $(status -H "Authorization: Bearer $token" "http://127.0.0.1:$port/api/status") == 200 ]] || { echo "the token is refused"; exit 1; }
redis-cli -p "$redis_port" publish cascor:training '{"run_id": "image", "epoch": 1, "loss": 0.5}' >/dev/null
has_run() { status -H "Authorization: Bearer $token" "http://127.0.0.1:$port/api/runs" >/dev/null && grep -q '"run_name":"image"' "$work/answer"; }
wait_for 10 has_run
pid=$(runc --root "$work/runc" state cascor | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
[[ $(awk '/^CapEff/ {print $2} /^NoNewPrivs/ {print $2}' "/proc/$pid/status" | tr '\n' ' ') =~ 0000000000000000.*1|1.*0000000000000000 ]] || { echo "it has rights"; exit 1; }
[[ $(awk '/^Uid/ {print $2}' "/proc/$pid/status") == 65532 ]] || { echo "another user"; exit 1; }
if touch "/proc/$pid/root/written" 2>/dev/null; then echo "its root can be written"; exit 1; fi

began=$(date +%s%N)
runc --root "$work/runc" kill cascor TERM
code=0
wait "$daemon" || code=$?
took=$((($(date +%s%N) - began) / 1000000))
((code == 0 && took < 20000)) || { echo "ended with $code after $took ms"; exit 1; }
echo "built, ready as user 65532 on a read-only root, signed in, stopped in $took ms"
