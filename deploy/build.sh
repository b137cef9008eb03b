#!/usr/bin/env bash
# build.sh: lorafleet's two images from the project's Dockerfile, built and brought to the cluster's nodes as local/lorafleet-*:TAG
# (TAG: `test` unless set). MinIO and PostgreSQL for dev use are pulled where the nodes reach a registry; DEV_IMAGES=build makes them here.
# kind and minikube get torch for CPUs, a tenth of the size of the one for GPUs: `TORCH_INDEX=` takes that.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/.." && pwd)
# shellcheck source=deploy/images.sh
. "$here/images.sh"

# What Docker is told beside the target, in words. Other builders' caches would not outlive a label that changes with each commit.
arguments() {
    case $(cluster_kind) in kind | minikube) ;; *) return ;; esac
    echo "--build-arg REVISION=$(git -C "$repository" rev-parse HEAD 2>/dev/null || true)"
    local index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
    [ "$1" != trainer ] || [ -z "$index" ] || echo "--build-arg TORCH_INDEX=$index"
}

for target in ${TARGETS:-service trainer}; do
    read -ra more <<<"$(arguments "$target" | tr '\n' ' ')"
    build_image "local/lorafleet-$target:${TAG:-test}" "$repository" --target "$target" "${more[@]}"
done
[ "${DEV_IMAGES:-build}" != build ] || "$repository/tests/k8s/images/build.sh" minio postgresql
