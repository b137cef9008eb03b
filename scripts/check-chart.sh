#!/usr/bin/env bash
# check-chart.sh: lints the chart with each value set, holds what it renders to Kubernetes' and the CRDs' schemas, and to tests/helm/golden.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=$(scripts/get-helm.sh)
kubeconform=$(scripts/get-kubeconform.sh)
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
status=0

for values in tests/helm/values/*.yaml; do
    "$helm" lint --quiet --strict --kube-version 1.34.0 --values "$values" helm/lorafleet || status=1
done
scripts/render-chart.sh "$rendered"
"$kubeconform" -strict -schema-location 'tests/helm/schemas/{{.ResourceKind}}.json' "$rendered" || status=1
diff -r tests/helm/golden "$rendered" || { echo 'what the chart renders has changed: look at it, then run make golden'; status=1; }
exit "$status"
