#!/usr/bin/env bash
# up.sh: a minikube cluster with lorafleet in it. MINIKUBE_PROFILE names the profile (default lorafleet), CPUS and MEMORY size its
# node. Safe to repeat.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/need.sh
. "$here/../need.sh"
# shellcheck source=deploy/images.sh
. "$here/../images.sh"
need_docker
need minikube 'https://minikube.sigs.k8s.io/docs/start, 1.37 or newer'
need kubectl 'https://kubernetes.io/docs/tasks/tools'
export MINIKUBE_PROFILE=${MINIKUBE_PROFILE:-lorafleet} CLUSTER=minikube
# A name of its own for each content: after a change the nodes would keep the image of before, and the pods too.
cd "$here/../.."
TAG=${TAG:-$(content_tag Dockerfile .dockerignore pyproject.toml constraints.txt lorafleet service trainer)}
export TAG

# Calico, because minikube's own network enforces no NetworkPolicy.
minikube start --driver=docker --cpus="${CPUS:-4}" --memory="${MEMORY:-12g}" --cni=calico
kubectl config use-context "$MINIKUBE_PROFILE"
"$here/../build.sh"
"$here/../install.sh"
