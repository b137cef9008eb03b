#!/usr/bin/env bash
# build.sh [minio|postgresql|fast-trainer]...: builds these test images (all of them when none is named) as local/NAME:test, the
# trainer as local/lorafleet-fast-trainer:TAG, and brings them to the cluster, by the cluster kind's own way: CLUSTER=onenode, kind or minikube (see deploy/images.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../../.." && pwd)
# shellcheck source=deploy/images.sh
. "$repository/deploy/images.sh"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

lay_out_minio() {
    local minio
    minio=$("$repository/scripts/get-minio.sh")
    cp "$minio" "$here/minio/Dockerfile" "$1/"
}

lay_out_postgresql() {
    cp "$here/postgresql/"* "$1/"
}

# The trainer's own reporter and data path, and beside them a run.py that trains nothing.
lay_out_fast_trainer() {
    mkdir -p "$1/trainer"
    cp "$here/fast-trainer/Dockerfile" "$repository/constraints.txt" "$1/"
    cp -r "$repository/lorafleet" "$1/lorafleet"
    cp "$repository"/trainer/{__init__,eviction,listing,report,run_log,storage}.py "$here/fast-trainer/trainer/"*.py "$1/trainer/"
    find "$1" -name __pycache__ -prune -exec rm -rf {} +
}

[ $# -gt 0 ] || set -- minio postgresql fast-trainer
for name in "$@"; do
    mkdir -p "$stage/$name"
    "lay_out_${name//-/_}" "$stage/$name"
    tag=local/$name:test
    [ "$name" != fast-trainer ] || tag=local/lorafleet-fast-trainer:${TAG:-test}
    build_image "$tag" "$stage/$name"
done
