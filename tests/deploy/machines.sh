#!/usr/bin/env bash
# The commands of deploy/several-machines.md, in order, on three network namespaces that stand for the machines. Each machine has its
# own /etc/redis, /etc/cascor-ingest and /etc/cascor-ca.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
skip() { echo "SKIPPED: $*"; exit 77; }
((EUID == 0)) || skip "only root makes network namespaces"
for tool in ip nft openssl redis-server redis-cli unshare; do
    command -v "$tool" >/dev/null || skip "no $tool (Debian and Ubuntu: iproute2, nftables, openssl, redis-server, util-linux)"
done
binary=$(tests/parts/program.sh)
work=$(mktemp -d)
id=$$
machines=(A B C)
finish() {
    for machine in "${machines[@]}"; do ip netns pids "cascor$id$machine" 2>/dev/null | xargs -r kill || true; done
    wait
    for machine in "${machines[@]}"; do ip netns del "cascor$id$machine" 2>/dev/null || true; done
    ip netns del "cascor$id" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
ip netns add "cascor$id" 2>/dev/null || skip "this machine has no network namespaces"

# A bridge in a namespace of its own joins the three.
ip -n "cascor$id" link add lan type bridge
ip -n "cascor$id" link set lan up
for n in 1 2 3; do
    machine=${machines[n - 1]}
    ip netns add "cascor$id$machine"
    ip -n "cascor$id" link add "to$machine" type veth peer name eth0 netns "cascor$id$machine"
    ip -n "cascor$id" link set "to$machine" master lan up
    ip -n "cascor$id$machine" address add "10.77.0.$n/24" dev eth0
    ip -n "cascor$id$machine" link set eth0 up
    ip -n "cascor$id$machine" link set lo up
    mkdir -p "$work/$machine"/etc/{redis/tls,cascor-ingest,cascor-ca}
done
mkdir -p "$work/bin" /etc/redis /etc/cascor-ingest /etc/cascor-ca
ln -s "$(realpath "$binary")" "$work/bin/cascor-ingest"

# Runs a script on a machine.
on() {
    local machine=$1
    shift
    ip netns exec "cascor$id$machine" unshare --mount env -i PATH="$work/bin:$PATH" HOME="$work" ROOT="$work/$machine" bash -euo pipefail -c '
        for name in redis cascor-ingest cascor-ca; do mount --bind "$ROOT/etc/$name" "/etc/$name"; done
        eval "$1"' - "$*"
}
# Between machines.
scp() {
    local arguments=() argument
    for argument; do arguments+=("$work/${argument%%:*}/${argument#*:}"); done
    cp "${arguments[@]}"
}
await() { for ((n = 0; n < 200; n++)); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; echo "waited 20 s for: $*"; "$@" || tail -n 20 "$work"/*.log; exit 1; }

start_redis() {
    on B "exec redis-server /etc/redis/cascor.conf --dir $work --save ''" >"$work/redis.log" 2>&1 &
    # shellcheck disable=SC2016
    await on B 'redis-cli --tls --cacert /etc/redis/tls/ca.pem -h 10.77.0.2 --user ingest --pass "$(cat /etc/redis/passwords/ingest)" --no-auth-warning PING | grep -q PONG'
}
start_daemon() {
    on C "exec cascor-ingest --config /etc/cascor-ingest/config.toml --state-dir $work/state run" >"$work/daemon.log" 2>&1 &
    await on C 'curl -sf --cacert /etc/cascor-ingest/ca.pem https://10.77.0.3:8050/readyz'
}

# Every block of the page: its machine, then its commands.
python3 - "$work" <<'END'
import pathlib, re, sys
blocks = re.findall(r"^```sh (\w+)\n(.*?)^```$", pathlib.Path("deploy/several-machines.md").read_text(), re.M | re.S)
for n, (machine, script) in enumerate(blocks):
    pathlib.Path(sys.argv[1], f"block{n:02}.{machine}").write_text(script)
END
for block in "$work"/block*; do
    machine=${block##*.}
    script=$(cat "$block")
    # What the page says in words.
    if [[ $script == *PUBLISH* ]]; then start_redis; start_daemon; fi
    case $machine in
        copy) eval "$script" ;;
        *) on "$machine" "$script" >"$work/output" 2>&1 || { cat "$work/output"; echo "failed on $machine: $script"; tail -n 5 "$work"/*.log; exit 1; } ;;
    esac
    if [[ $script == *cascor-ingest\ runs* ]]; then
        await grep -q first "$work/output" || true
        for ((n = 0; n < 50; n++)); do if grep -q first "$work/output"; then break; fi; sleep 0.1; on "$machine" "$script" >"$work/output"; done
        grep -q first "$work/output" || { echo "A does not see the run: $(cat "$work/output")"; exit 1; }
    fi
done
# What must not work: another machine's address, and a connection without a login.
on A 'ip address del 10.77.0.1/24 dev eth0; ip address add 10.77.0.9/24 dev eth0'
reaches() { on A "timeout 2 bash -c 'exec 3<>/dev/tcp/$1'" 2>/dev/null; }
reaches 10.77.0.3/8050 || { echo "HTTPS of C is not reached from the network"; exit 1; }
if reaches 10.77.0.2/6379; then echo "the firewall of B lets 10.77.0.9 in"; exit 1; fi
on A 'ip address del 10.77.0.9/24 dev eth0; ip address add 10.77.0.1/24 dev eth0'
answer=$(on A 'redis-cli --tls --cacert /etc/cascor-ingest/ca.pem -h 10.77.0.2 PING' 2>&1 || true)
[[ $answer == *NOAUTH* ]] || { echo "without a login: $answer"; exit 1; }
echo "every command of several-machines.md works; B takes connections from A and C alone, by TLS, with a login"
