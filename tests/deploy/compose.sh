#!/usr/bin/env bash
# The compose file loads with the loader of Docker Compose itself, which wants Go; its names fit together in any case.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
files=(deploy/compose/compose.yaml deploy/compose/sqlite.yaml)
python=${CASCOR_TEST_PYTHON:-python3}
if "$python" -c 'import yaml' 2>/dev/null; then
    "$python" - "${files[@]}" <<'PYTHON'
import pathlib, sys, yaml

problems = []


def services_of(file):
    """The services of a file, with what they extend."""
    services = yaml.safe_load(file.read_text())["services"]
    extended = lambda one: services_of(file.parent / one["extends"]["file"])[one["extends"]["service"]] if "extends" in one else {}
    return {name: {**extended(one), **one} for name, one in services.items()}


def check(file, name, service):
    services, volumes = services_of(file), set(yaml.safe_load(file.read_text())["volumes"])
    for other in service.get("depends_on", []):
        if other not in services:
            problems.append(f"{name} depends on {other}, which is not there")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            if not (file.parent / source).is_dir():
                problems.append(f"{name} mounts {source}, which is not there")
        elif source not in volumes:
            problems.append(f"{name} mounts {volume}, which is not declared")
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:"):
            problems.append(f"{name} publishes {port} to everyone")
    if "build" in service:
        context = (file.parent / service["build"]["context"]).resolve()
        if not (context / service["build"]["dockerfile"]).is_file():
            problems.append(f"{name} is built from a file that is not there")
for file in map(pathlib.Path, sys.argv[1:]):
    for name, service in services_of(file).items():
        check(file, name, service)
print("\n".join(problems) or "the services fit together")
sys.exit(bool(problems))
PYTHON
else
    echo "not checked with PyYAML (pip install pyyaml)"
fi
if ! command -v go >/dev/null; then
    echo "SKIPPED: no Go for Docker Compose's own loader"
    exit 77
fi
cache=${CASCOR_TEST_CACHE:-$HOME/.cache/cascor-ingest}/compose-check
if [[ ! -x $cache/compose-check ]]; then
    mkdir -p "$cache"
    cat >"$cache/go.mod" <<'MOD'
module check

go 1.23

require github.com/compose-spec/compose-go/v2 v2.4.7
MOD
    cat >"$cache/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true))
	if err == nil {
		_, err = options.LoadProject(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
GO
    if ! (cd "$cache" && go mod tidy && go build -o compose-check .) >"$cache/log" 2>&1; then
        tail -n 3 "$cache/log"
        echo "SKIPPED: Docker Compose's own loader could not be had"
        exit 77
    fi
fi
for file in "${files[@]}"; do "$cache/compose-check" "$PWD/$file"; done
echo "loads with compose-go"
