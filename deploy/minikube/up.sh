#!/usr/bin/env bash
# up.sh: a minikube cluster with lorafleet in it. MINIKUBE_PROFILE names the profile (default lorafleet), CPUS and MEMORY size its
# node. Safe to repeat.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/need.sh
. "$here/../need.sh"
need_docker
need minikube 'https://minikube.sigs.k8s.io/docs/start, 1.37 or newer'
need kubectl 'https://kubernetes.io/docs/tasks/tools'
export MINIKUBE_PROFILE=${MINIKUBE_PROFILE:-lorafleet} CLUSTER=minikube

# Calico, because minikube's own network enforces no NetworkPolicy.
minikube start --driver=docker --cpus="${CPUS:-4}" --memory="${MEMORY:-12g}" --cni=calico
kubectl config use-context "$MINIKUBE_PROFILE"
"$here/../build.sh"
"$here/../install.sh"
