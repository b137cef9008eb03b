#!/usr/bin/env bash
# check.sh: everything that can be said of the code without running it. Expects the tools of .venv in PATH.
# Runs all checks, also after one has failed, and names those that did.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=()
check() {
    local name=$1
    shift
    echo "== $name"
    "$@" || failed+=("$name")
}

stubs_are_fresh() {
    local out status=0
    out=$(mktemp -d)
    scripts/generate-protos.sh python "$out"
    diff -r --exclude=__pycache__ "$out/lorafleet/v1" lorafleet/v1 || status=1
    rm -rf "$out"
    [ "$status" = 0 ] || echo 'lorafleet/v1 differs from protos/: run make protos'
    return "$status"
}

sync_client_is_fresh() {
    local out status=0
    out=$(mktemp -d)
    python scripts/make_sync_client.py "$out"
    diff -r --exclude=__pycache__ "$out" lorafleet/sync || status=1
    rm -rf "$out"
    [ "$status" = 0 ] || echo 'lorafleet/sync differs from lorafleet/aio: run make sync-client'
    return "$status"
}

schema_is_fresh() {
    diff <(lorafleet schema) docs/spec.schema.json || { echo 'docs/spec.schema.json is old: run make schema'; return 1; }
}

shell_scripts() {
    git ls-files --cached --others --exclude-standard '*.sh' .ci/run
}

check 'format' ruff format --check --quiet .
check 'lint' ruff check --quiet .
check 'types' basedpyright
check 'imports' lint-imports
check 'protos' buf lint
check 'stubs' stubs_are_fresh
check 'sync client' sync_client_is_fresh
check 'schema' schema_is_fresh
check 'chart' scripts/check-chart.sh
check 'image' hadolint Dockerfile
mapfile -t scripts < <(shell_scripts)
check 'shell' shellcheck "${scripts[@]}"

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
echo 'all checks passed'
