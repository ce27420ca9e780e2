#!/usr/bin/env bash
# deploy/systemd/overlap-restart with real daemons and a real Redis, and a stand-in for systemctl: what it starts and stops,
# in which order, and that it leaves somebody listening when something goes wrong. systemd itself is not tested here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
for tool in redis-server redis-cli curl flock python3; do
    command -v "$tool" >/dev/null || { echo "SKIPPED: no $tool"; exit 77; }
done
program=$(tests/parts/program.sh)
work=$(mktemp -d)
cleanup() {
    trap - EXIT
    local file
    for file in "$work"/run/*.pid "$work/redis.pid"; do
        if [[ -s $file ]]; then kill -KILL "$(cat "$file")" 2>/dev/null || true; fi
    done
    rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work"/{bin,conf,state,run}
port=${CASCOR_TEST_OVERLAP_PORT:-$((30000 + $$ % 2000))}
redis-server --port "$port" --bind 127.0.0.1 --save '' --daemonize yes --pidfile "$work/redis.pid" --dir "$work" >/dev/null

export CASCOR_BIN=$program CASCOR_CONFIG_DIR=$work/conf \
    CASCOR_STATE_ROOT=$work/state CASCOR_LOCK=$work/lock WORK=$work PATH=$work/bin:$PATH
cat >"$work/bin/systemctl" <<'STUB'
#!/usr/bin/env bash
# Starts and stops real daemons; enabled is a file.
set -euo pipefail
verb=$1 unit=${!#} name=${unit#*@}
name=${name%.service} pid=$WORK/run/${unit#*@}.pid
alive() { [[ -s $pid ]] && kill -0 "$(cat "$pid")" 2>/dev/null; }
[[ $verb == is-* ]] || echo "$verb $name" >>"$WORK/calls"
case $verb in
is-active) alive ;;
is-enabled) [[ -e $WORK/enabled.$name ]] ;;
enable) touch "$WORK/enabled.$name" ;;
disable) rm -f "$WORK/enabled.$name" ;;
start)
    STATE_DIRECTORY=$WORK/state/$name CASCOR_INGEST__INSTANCE=host-$name "$CASCOR_BIN" run \
        --config "$WORK/conf/$name.toml" >>"$WORK/$name.log" 2>&1 9>&- &
    echo $! >"$pid"
    ;;
stop)
    if [[ -e $WORK/break.$name ]]; then kill -KILL "$(cat "$WORK/run/$(cat "$WORK/break.$name").service.pid")"; fi
    if alive; then kill "$(cat "$pid")"; fi
    while alive; do sleep 0.02; done
    ;;
esac
STUB
chmod +x "$work/bin/systemctl"

configure() { # INSTANCE LINE...
    printf '%s\n' "redis.url = \"redis://127.0.0.1:$port/0\"" "store.sqlite.path = \"$work/shared.db\"" \
        "${@:2}" >"$work/conf/$1.toml"
}
good() {
    configure a "http.listen = \"127.0.0.1:$((port + 1))\""
    configure b "http.listen = \"127.0.0.1:$((port + 2))\""
}
expect() { # STATUS TEXT-OF-THE-OUTPUT CALLS [ARGUMENTS...]
    : >"$work/calls"
    local status=0
    deploy/systemd/overlap-restart "${@:4}" >"$work/out" 2>&1 || status=$?
    local calls
    calls=$(paste -sd, "$work/calls")
    if [[ $status != "$1" || $calls != "$3" ]] || ! grep -q "$2" "$work/out"; then
        printf 'expected %s, "%s", %s; got %s, %s:\n' "$1" "$2" "$3" "$status" "$calls"
        cat "$work/out"
        tail -n 5 "$work"/*.log
        exit 1
    fi
    echo "ok: $2"
}
listeners() { redis-cli -p "$port" pubsub numsub cascor:training | tail -n 1; }

good
expect 0 "neither ran before; a does now" "start a"
touch "$work/enabled.a"
expect 0 "b has taken over from a" "start b,stop a,enable b,disable a"
[[ -e $work/enabled.b && ! -e $work/enabled.a && $(listeners) == 1 ]]
expect 0 "a has taken over from b" "start a,stop b,enable a,disable b"

# Each of these leaves the one that listens alone.
configure b "http.listen = \"127.0.0.1:$((port + 2))\"" "nonsense = 1"
expect 1 "the settings of b are wrong" ""
configure b "http.listen = \"127.0.0.1:$((port + 1))\""
expect 1 "is the same: give each a port" ""
python3 -m http.server --bind 127.0.0.1 $((port + 3)) >/dev/null 2>&1 &
echo $! >"$work/run/other.pid"
for _ in {1..100}; do if curl --silent --noproxy '*' --output /dev/null "http://127.0.0.1:$((port + 3))/"; then break; fi; sleep 0.1; done
configure b "http.listen = \"127.0.0.1:$((port + 3))\""
expect 1 "something else answers" ""
configure b "http.listen = \"\""
expect 1 "cannot be asked" ""
configure b "http.listen = \"127.0.0.1:$((port + 2))\"" "redis.training_channels = [\"x\", \"y\"]"
expect 1 "redis.training_channels. of a and b differ" ""
good
sed -i 's/shared/another/' "$work/conf/b.toml"
expect 1 "store.sqlite.path. of a and b differ" ""
good
expect 2 "overlap-restart" "" --timeout soon
flock "$work/lock" sleep 2 &
sleep 0.5
expect 1 "another hand-over is under way" ""
wait $!

# It starts, and may not listen to one channel: never ready. The roll back stops it, and only it.
configure b "http.listen = \"127.0.0.1:$((port + 2))\"" 'redis.username = "half"' 'redis.password = "x"'
redis-cli -p "$port" acl setuser half on '>x' '~*' '&cascor:control' +@all >/dev/null
expect 1 "rolled back: a goes on" "start b,stop b" --timeout 3
[[ $(listeners) == 1 ]]
good

# The new one dies while the old one ends: the old one is started again.
echo b >"$work/break.a"
expect 1 "b is no longer ready" "start b,stop a,start a" --timeout 2
rm "$work/break.a"
until curl -sf --noproxy '*' -o /dev/null "http://127.0.0.1:$((port + 1))/readyz"; do sleep 0.1; done

# Where both run, one after the other.
systemctl start cascor-ingest@b.service
until curl -sf --noproxy '*' -o /dev/null "http://127.0.0.1:$((port + 2))/readyz"; do sleep 0.1; done
expect 0 "b is ready" "stop a,start a,stop b,start b"
[[ $(listeners) == 2 ]]

# And nothing that was published meanwhile is missed.
systemctl stop cascor-ingest@b.service
(
    seq=0
    while [[ ! -e $work/enough ]]; do
        printf 'PUBLISH cascor:training "{\\"run_id\\":\\"r\\",\\"seq\\":%s,\\"epoch\\":%s,\\"loss\\":0.5,\\"timestamp\\":%s}"\n' \
            "$seq" "$seq" "$(date +%s.%6N)"
        seq=$((seq + 1))
    done | redis-cli -p "$port" >"$work/published"
) &
producer=$!
expect 0 "b has taken over from a" "start b,stop a,enable b,disable a"
expect 0 "a has taken over from b" "start a,stop b,enable a,disable b"
touch "$work/enough"
wait "$producer"
systemctl stop cascor-ingest@a.service
published=$(wc -l <"$work/published")
answer=$("$CASCOR_BIN" --config "$work/conf/a.toml" --state-dir "$work/state/a" gaps --run r)
grep -q "seq 0 to $((published - 1)): $published stored, 0 missing" <<<"$answer" || { echo "$published published: $answer"; exit 1; }
echo "ok: $published published across two hand-overs, none missed"
