#!/usr/bin/env bash
# up.sh: a kind cluster with lorafleet in it. KIND_CLUSTER names the cluster (default lorafleet). Safe to repeat.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/need.sh
. "$here/../need.sh"
# shellcheck source=deploy/images.sh
. "$here/../images.sh"
need_docker
need kind 'https://kind.sigs.k8s.io/docs/user/quick-start/#installation, 0.30 or newer'
need kubectl 'https://kubernetes.io/docs/tasks/tools'
export KIND_CLUSTER=${KIND_CLUSTER:-lorafleet} CLUSTER=kind
# A name of its own for each content: after a change the nodes would keep the image of before, and the pods too.
cd "$here/../.."
TAG=${TAG:-$(content_tag Dockerfile .dockerignore pyproject.toml constraints.txt lorafleet service trainer)}
export TAG

kind get clusters | grep -qxF "$KIND_CLUSTER" || kind create cluster --name "$KIND_CLUSTER" --config "$here/cluster.yaml" --wait 120s
kubectl config use-context "kind-$KIND_CLUSTER"
"$here/../build.sh"
"$here/../install.sh"
