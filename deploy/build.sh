#!/usr/bin/env bash
# build.sh: lorafleet's two images from the project's Dockerfile, built and brought to the cluster's nodes as local/lorafleet-*:TAG
# (TAG: `test` unless set). MinIO and PostgreSQL for dev use are pulled where the nodes reach a registry; DEV_IMAGES=build makes them here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/.." && pwd)
# shellcheck source=deploy/images.sh
. "$here/images.sh"

for target in ${TARGETS:-service trainer}; do
    build_image "local/lorafleet-$target:${TAG:-test}" "$repository" --target "$target"
done
[ "${DEV_IMAGES:-build}" != build ] || "$repository/tests/k8s/images/build.sh" minio postgresql
