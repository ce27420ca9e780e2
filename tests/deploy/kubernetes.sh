#!/usr/bin/env bash
# The manifests match the schemas of Kubernetes, strictly, and each other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${CASCOR_TEST_PYTHON:-python3}
if ! "$python" -c 'import kubernetes_validate, yaml' 2>/dev/null; then
    echo "SKIPPED: no kubernetes-validate (pip install kubernetes-validate pyyaml)"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if command -v kustomize >/dev/null; then
    kustomize build deploy/kubernetes >"$work/all.yaml"
elif command -v kubectl >/dev/null; then
    kubectl kustomize deploy/kubernetes >"$work/all.yaml"
else
    echo "no kustomize or kubectl: built by tests/deploy/kubernetes.py"
    "$python" tests/deploy/kubernetes.py build deploy/kubernetes >"$work/all.yaml"
fi
"$python" -m kubernetes_validate --help >/dev/null 2>&1 && validate=("$python" -m kubernetes_validate) \
    || validate=("$(dirname "$python")/kubernetes-validate")
"${validate[@]}" --strict --quiet "$work/all.yaml"
"$python" tests/deploy/kubernetes.py check "$work/all.yaml"
