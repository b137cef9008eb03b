#!/usr/bin/env bash
# test-k8s.sh [PYTEST ARGUMENT...]: the tests of tests/k8s on a real cluster: the one of KUBECONFIG, else one that onenode starts here,
# where its script is at hand (ONENODE, or ../shared/tools/onenode/onenode beside the checkout). Without either, or when that one
# does not start: exit code 2.
#
# Builds the images that the cluster lacks; their tags tell what they are made of. With IMAGES=given it builds none, and the nodes pull
# SERVICE_IMAGE, TRAINER_IMAGE, FAST_TRAINER_IMAGE, MINIO_IMAGE and POSTGRESQL_IMAGE from where these say. What it starts it ends: a cluster that was there
# keeps running. LORAFLEET_TEST_K8S=keep leaves the release (and the cluster) for the next run.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
# shellcheck source=deploy/images.sh
. deploy/images.sh

untested=
started=

nothing_tested() {
    untested=1
    echo "no cluster: $1. Nothing was tested." >&2
    exit 2
}

# Exit code 2 is for a missing cluster alone, whatever a command here ends with.
on_exit() {
    local status=$?
    [ -z "$started" ] || "$ONENODE" down
    [ "$status" != 2 ] || [ -n "$untested" ] || exit 1
}
trap on_exit EXIT

find_onenode() {
    local path=${ONENODE:-$repository/../shared/tools/onenode/onenode}
    [ -x "$path" ] && realpath "$path"
}

start_onenode() {
    local was_up=
    # shellcheck disable=SC1090
    . <("$ONENODE" env)
    kubectl get --raw /readyz >/dev/null 2>&1 && was_up=1
    if [ -z "$was_up" ]; then
        [ "${LORAFLEET_TEST_K8S:-}" = keep ] || started=1
        "$ONENODE" up || nothing_tested "$ONENODE up failed: see above"
        # shellcheck disable=SC1090
        . <("$ONENODE" env)
    fi
    kubectl get crd rayjobs.ray.io >/dev/null 2>&1 || "$ONENODE" kuberay || nothing_tested "$ONENODE kuberay failed: see above"
    export CLUSTER=onenode VOLUMES_DIR=${VOLUMES_DIR:-/var/tmp/lorafleet-test-k8s}
}

is_there() {
    kubectl get nodes -o jsonpath='{.items[*].status.images[*].names}' | grep -qF "$1"
}

# Whether any of the tests that were asked for trains for real: only then is the large image needed.
needs_torch() {
    [[ " $* " != *smoke* ]] && { [[ " $* " != *test_* ]] || [[ " $* " == *test_h_* ]]; }
}

make_images() {
    local service trainer fast
    service=$(content_tag Dockerfile .dockerignore pyproject.toml constraints.txt lorafleet service)
    trainer=$(content_tag Dockerfile .dockerignore pyproject.toml constraints.txt lorafleet trainer)
    fast=$(content_tag tests/k8s/images constraints.txt lorafleet trainer)
    export SERVICE_IMAGE=${SERVICE_IMAGE:-local/lorafleet-service:$service}
    export TRAINER_IMAGE=${TRAINER_IMAGE:-local/lorafleet-trainer:$trainer}
    export FAST_TRAINER_IMAGE=${FAST_TRAINER_IMAGE:-local/lorafleet-fast-trainer:$fast}
    is_there "$SERVICE_IMAGE" || TARGETS=service TAG=$service DEV_IMAGES=no deploy/build.sh
    is_there "$FAST_TRAINER_IMAGE" || TAG=$fast tests/k8s/images/build.sh fast-trainer
    for name in minio postgresql; do
        is_there "local/$name:test" || tests/k8s/images/build.sh "$name"
    done
    ! needs_torch "$@" || is_there "$TRAINER_IMAGE" || TARGETS=trainer TAG=$trainer DEV_IMAGES=no deploy/build.sh
}

if [ -z "${KUBECONFIG:-}" ]; then
    if ! ONENODE=$(find_onenode); then
        nothing_tested 'set KUBECONFIG to one that is for tests alone, since they drain its nodes (after make kind-up:
KUBECONFIG=~/.kube/config), or ONENODE to the script that starts a cluster of plain processes'
    fi
    export ONENODE
    start_onenode
elif ! kubectl version --request-timeout=10s >/dev/null 2>&1; then
    nothing_tested "that of KUBECONFIG=$KUBECONFIG does not answer"
fi

[ "${IMAGES:-}" = given ] || make_images "$@"
export LORAFLEET_TEST_K8S=${LORAFLEET_TEST_K8S:-1}
[ $# -gt 0 ] || set -- tests/k8s
.venv/bin/pytest -v --timeout 1800 --numprocesses 2 --dist loadscope "$@"
