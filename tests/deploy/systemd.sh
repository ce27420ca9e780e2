#!/usr/bin/env bash
# The units are what systemd understands, and expose next to nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if ! command -v systemd-analyze >/dev/null; then
    echo "SKIPPED: no systemd-analyze (Debian and Ubuntu: apt-get install systemd)"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for unit in cascor-ingest.service cascor-ingest@.service; do
    # The program must exist for `verify`; a template is verified as an instance.
    copy=$work/${unit/@/@a}
    sed 's#/usr/local/bin/cascor-ingest#/bin/true#' "deploy/systemd/$unit" >"$copy"
    if [[ $unit == *@* ]]; then install -D -m 0644 deploy/systemd/shared-sqlite.conf "$copy.d/shared-sqlite.conf"; fi
    systemd-analyze verify --man=no --recursive-errors=yes "$copy"
    systemd-analyze security --offline=true --threshold=15 --no-pager "$copy" >"$work/security" || { cat "$work/security"; exit 1; }
    echo "$unit: $(grep -o 'Overall exposure.*[0-9.]*' "$work/security" | grep -oE '[0-9]+\.[0-9]+') of 1.5 exposure"
    # What the daemon relies on.
    for line in Type=notify WatchdogSec= User=cascor-ingest StateDirectory= StateDirectoryMode=0750 LoadCredential=redis-password: LoadCredential=http-tokens: LoadCredential=http-session-key: Restart=always; do
        grep -q "^$line" "deploy/systemd/$unit" || { echo "$unit lacks $line"; exit 1; }
    done
done
# The template differs from the unit only where an instance must.
common() { sed '1,/^\[Unit\]/d; /^#/d; s/ (%i)//; s/%i\.toml/config.toml/; s/\.%i\././; s/-%i$//; s#/%i$##; /^Environment=/d' "$1"; }
diff <(common deploy/systemd/cascor-ingest.service) <(common deploy/systemd/cascor-ingest@.service)
