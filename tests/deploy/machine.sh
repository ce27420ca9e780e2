#!/usr/bin/env bash
# A fresh machine on which an operator follows "systemd" in deploy/README.md word for word: the real systemd as process 1 of a
# container, whose root is this machine's below an overlay that is thrown away. Every command of the page must do what the page
# says: for root, for a member of the group, for another user, with and without a login at Redis.
# In place of `cargo build --profile dist` stands the debug build of the same sources.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
skip() { echo "SKIPPED: $*"; exit 77; }
for tool in systemd-nspawn nsenter redis-server strip python3; do
    command -v "$tool" >/dev/null || skip "no $tool (Debian: apt-get install systemd-container util-linux redis-server binutils python3)"
done
[[ -x /lib/systemd/systemd && -e /lib/systemd/system/redis-server.service ]] || skip "no systemd, or no service of redis-server"
((EUID == 0)) || skip "a container needs root"

work=$(mktemp -d) container=
cleanup() {
    local status=$?
    if ((status)) && [[ -n ${init:-} ]]; then inside journalctl --no-pager -n 40 -u cascor-ingest || true; fi
    # With its first process, all processes of the container end.
    if [[ -n ${init:-} ]]; then kill -KILL "$init" 2>/dev/null || true; elif [[ -n $container ]]; then kill "$container" 2>/dev/null || true; fi
    if [[ -n $container ]]; then wait "$container" 2>/dev/null || true; fi
    if ((status)); then tail -n 20 "$work/console" 2>/dev/null || true; fi
    umount -l "$work/root" 2>/dev/null || true
    umount -l "$work/disk" 2>/dev/null || true
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
die() { echo "$*" >&2; exit 1; }

program=$(tests/parts/program.sh)

# ---------------------------------------------------------------- the machine
mkdir "$work/disk" "$work/root"
mount -t tmpfs -o size=512m tmpfs "$work/disk"
mkdir "$work/disk/upper" "$work/disk/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/disk/upper,workdir=$work/disk/work" "$work/root" 2>"$work/console" \
    || skip "no overlay over the root of this machine: $(cat "$work/console")"
root=$work/root
rm -rf "$root"/etc/systemd/system "$root"/etc/machine-id "$root"/etc/cascor-ingest "$root"/var/lib/cascor-ingest "$root"/usr/local/bin/cascor-ingest
mkdir -p "$root"/etc/systemd/system "$root"/srv/cascor-ingest/target/dist "$root"/usr/local/sbin
cp -a Cargo.toml conf deploy "$root/srv/cascor-ingest/"
strip -o "$root/srv/cascor-ingest/target/dist/cascor-ingest" "$program"
printf '#!/bin/sh\necho "stands for: cargo $*"\n' >"$root/usr/local/sbin/cargo"
chmod 0755 "$root/usr/local/sbin/cargo"
chroot "$root" useradd ann
chroot "$root" useradd bob
systemd-nspawn --quiet --register=no --keep-unit --link-journal=no --private-network --directory="$root" --boot --console=pipe \
    systemd.unit=basic.target </dev/null >"$work/console" 2>&1 &
container=$!
init=
inside() {
    nsenter --target "$init" --mount --uts --ipc --net --pid -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        bash -c 'cd /srv/cascor-ingest && exec "$@"' - "$@" </dev/null
}
for ((n = 0; n < 100; n++)); do
    init=$(pgrep -P "$container" -o systemd) || init=
    if [[ -n $init && $(inside systemctl is-system-running 2>/dev/null || true) =~ running|degraded ]]; then break; fi
    kill -0 "$container" 2>/dev/null || { cat "$work/console"; container=; skip "systemd does not start in a container here"; }
    sleep 0.2
done
((n < 100)) || skip "systemd in a container is not up after 20 s"
echo "systemd $(inside systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') is process 1 of a machine of its own"
inside systemctl start redis-server

# ---------------------------------------------------------------- the page
block() { # N: the n-th block of commands of the section
    python3 - "$1" <<'PYTHON'
import pathlib, re, sys

page = pathlib.Path("deploy/README.md").read_text()
section = page.split("\n## systemd\n", 1)[1].split("\n## ", 1)[0]
print(re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)[int(sys.argv[1]) - 1], end="")
PYTHON
}
[[ $(grep -c '^```sh' <<<"$(sed -n '/^## systemd$/,/^## Compose$/p' deploy/README.md)") == 4 ]] || die "the section has other blocks than this test follows"
as() { # USER COMMAND
    inside runuser -u "$1" -- bash -c "$2"
}
says() { # USER COMMAND TEXT: it succeeds and says that
    local text
    text=$(as "$1" "$2" 2>&1) || die "$1: \`$2\` failed: $text"
    [[ $text == *"$3"* ]] || die "$1: \`$2\` does not say \`$3\`: $text"
}
refuses() { # USER COMMAND TEXT: it fails and says that
    local text
    if text=$(as "$1" "$2" 2>&1); then die "$1: \`$2\` succeeded: $text"; fi
    [[ $text == *"$3"* ]] || die "$1: \`$2\` does not say \`$3\`: $text"
}
until_says() { # USER COMMAND TEXT: within ten seconds
    for ((n = 0; n < 50; n++)); do
        if [[ $(as "$1" "$2" 2>&1) == *"$3"* ]]; then return; fi
        sleep 0.2
    done
    says "$@"
}

echo "install"
inside bash -euo pipefail -c "$(block 1)"
inside bash -euo pipefail -c "$(block 2)"
[[ -s $root/usr/local/share/man/man1/cascor-ingest.1 && -s $root/etc/bash_completion.d/cascor-ingest ]] || die "no manual pages or completions"
inside systemctl is-active --quiet cascor-ingest
until_says root "cascor-ingest status" "OK - receiving"
until_says root "journalctl -u cascor-ingest -o cat" "http://127.0.0.1:8050/"
first=$(as root "journalctl -u cascor-ingest -o cat | grep -m1 INFO")
[[ $first == *http://127.0.0.1:8050/* ]] || die "the first line of the log does not name the dashboard: $first"
[[ $(as root "cascor-ingest check 2>&1") == "configuration is valid" ]] || die "check warns: $(as root "cascor-ingest check 2>&1")"

publish() { inside redis-cli publish cascor:training "$1" >/dev/null; }
publish '{"type": "training_start", "run_id": "page-1", "seq": 1}'
publish '{"run_id": "page-1", "seq": 2, "epoch": 1, "loss": 0.5}'
publish '{"run_id": "page-1", "seq": 4, "epoch": 2, "loss": 0.4}'
publish '{"broken'

echo "the commands of the page, for root and for a member of the group"
inside bash -c "$(sed -n 's/.*`\(usermod [^`]*\) NAME`.*/\1 ann/p' deploy/README.md)"
declare -A expected=([status]="OK - receiving" [runs]="page-1" [gaps]="sequence" ["deadletter list"]="malformed_json" ["spool status"]="waiting for the store")
found=0
while read -r command; do
    name=$(sed 's/^cascor-ingest //; s/ *#.*//' <<<"$command")
    for user in root ann; do until_says "$user" "$command" "${expected[$name]}"; done
    found=$((found + 1))
done < <(block 3)
((found == ${#expected[@]})) || die "the page has other commands than this test expects"
# On a terminal of root and of a member, the same bytes; rates and sizes of the moment aside.
for command in runs gaps "deadletter list"; do
    [[ $(as root "cascor-ingest $command") == "$(as ann "cascor-ingest $command")" ]] || die "\`$command\` differs for a member"
done
says ann "cascor-ingest runs tag page-1 keep" ""
until_says root "cascor-ingest --json runs" '"keep"'
refuses ann "cascor-ingest deadletter drop --all" "run this as root (sudo)"

echo "another user"
for command in "deadletter list" "spool status"; do
    refuses bob "cascor-ingest $command" "run this as root (sudo), or as a member of the group \`cascor-ingest\`"
done
for command in runs gaps status; do refuses bob "cascor-ingest $command" "token"; done
inside bash -c 'cascor-ingest token new bob read | tee -a /etc/cascor-ingest/http-tokens | install -m 0600 -o bob /dev/stdin /home/bob-token'
inside systemctl reload cascor-ingest
for user in bob; do until_says "$user" "CASCOR_INGEST_TOKEN_FILE=/home/bob-token cascor-ingest runs" "page-1"; done

echo "what root repairs stays the daemon's"
says root "cascor-ingest deadletter drop --all" "1 dead letter dropped"
for user in root ann; do until_says "$user" "cascor-ingest deadletter list" "no dead letters"; done
until_says root "cascor-ingest status" "OK - receiving"
stray=$(inside find /var/lib/cascor-ingest ! -user cascor-ingest)
[[ -z $stray ]] || die "not the daemon's: $stray"
loose=$(inside find /var/lib/cascor-ingest -perm /027 ! -type l)
[[ -z $loose ]] || die "open to others, or writable by the group: $loose"

echo "with a login at Redis"
inside bash -c 'echo "aclfile /etc/redis/users.acl" >>/etc/redis/redis.conf; touch /etc/redis/users.acl'
inside bash -euo pipefail -c "$(block 4 | sed '/users-acl/ { p; s/.*/chown redis \/etc\/redis\/users.acl; systemctl restart redis-server/ }')"
for user in root ann; do until_says "$user" "cascor-ingest status" "OK - receiving"; done
until_says ann "cascor-ingest deadletter list" "no dead letters"

echo "a daemon of a unit with DynamicUser"
drop_in=/etc/systemd/system/cascor-ingest.service.d/before.conf
inside bash -euo pipefail -c "mkdir -p ${drop_in%/*}; printf '[Service]\nDynamicUser=yes\n' >$drop_in; systemctl daemon-reload; systemctl restart cascor-ingest"
[[ $(inside readlink /var/lib/cascor-ingest) == private/cascor-ingest ]] || die "no private directory"
inside bash -euo pipefail -c "rm $drop_in; systemctl daemon-reload; systemctl restart cascor-ingest"
until_says ann "cascor-ingest status" "OK - receiving"
for user in root ann; do until_says "$user" "cascor-ingest runs" "page-1"; done

began=$SECONDS
inside systemctl stop cascor-ingest
((SECONDS - began < 20)) || die "stopped after $((SECONDS - began)) s"
[[ $(inside systemctl show -p Result --value cascor-ingest) == success ]] || die "ended with $(inside systemctl show -p Result cascor-ingest)"
refuses ann "cascor-ingest status" "no daemon"
echo "every command of the page does what the page says"
