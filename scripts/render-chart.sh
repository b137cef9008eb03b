#!/usr/bin/env bash
# render-chart.sh FOLDER: the chart's objects for each value set of tests/helm/values, a file each, as `helm install` would apply them.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
helm=$(scripts/get-helm.sh)
mkdir -p "$out"
for values in tests/helm/values/*.yaml; do
    # A helm that `go install` built believes in Kubernetes 1.20.
    "$helm" template lorafleet helm/lorafleet --namespace lorafleet --kube-version 1.34.0 --values "$values" >"$out/$(basename "$values")"
done
