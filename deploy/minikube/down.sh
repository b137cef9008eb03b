#!/usr/bin/env bash
# down.sh: deletes the minikube profile that up.sh made, with everything in it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/need.sh
. "$here/../need.sh"
need minikube 'https://minikube.sigs.k8s.io/docs/start'
minikube delete --profile "${MINIKUBE_PROFILE:-lorafleet}"
