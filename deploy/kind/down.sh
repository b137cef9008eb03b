#!/usr/bin/env bash
# down.sh: deletes the kind cluster that up.sh made, with everything in it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/need.sh
. "$here/../need.sh"
need kind 'https://kind.sigs.k8s.io/docs/user/quick-start/#installation'
kind delete cluster --name "${KIND_CLUSTER:-lorafleet}"
