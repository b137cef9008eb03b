#!/usr/bin/env bash
# install.sh [HELM OPTION...]: from "a cluster exists" to a lorafleet that trains: the KubeRay operator unless it is there, namespaces,
# a TLS certificate by an authority of its own, the chart with dev.minio and dev.postgresql, buckets, a tenant and its API token.
# kind, minikube and any other KUBECONFIG come here. Safe to repeat: what is there is kept, or upgraded by helm.
#
#   NAMESPACE RUNS_NAMESPACE   where the control plane and the runs live (lorafleet, lorafleet-runs)
#   TENANT                     who gets the token (default)
#   SERVICE_IMAGE TRAINER_IMAGE MINIO_IMAGE POSTGRESQL_IMAGE   REPOSITORY:TAG, as the nodes find them
#   BUILD                      where the token and the certificates are kept (build/kubernetes)
# For production: docs/kubernetes.md; this script is for trying it out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/.." && pwd)
# shellcheck source=deploy/need.sh
. "$here/need.sh"

namespace=${NAMESPACE:-lorafleet}
runs_namespace=${RUNS_NAMESPACE:-lorafleet-runs}
tag=${TAG:-test}
build=${BUILD:-$repository/build/kubernetes}
kuberay_version=1.6.2
admin=lorafleet-admin # a ServiceAccount: who may make tokens for it is an administrator of lorafleet
audience=lorafleet

say() { echo "install: $*" >&2; }

check_cluster() {
    need kubectl 'https://kubernetes.io/docs/tasks/tools'
    if ! kubectl version --request-timeout=10s >/dev/null 2>&1; then
        echo "no cluster answers (KUBECONFIG=${KUBECONFIG:-unset}, context $(kubectl config current-context 2>/dev/null || echo none))" >&2
        exit 2
    fi
    helm=$("$repository/scripts/get-helm.sh")
}

install_kuberay() {
    if kubectl get crd rayjobs.ray.io >/dev/null 2>&1; then
        say 'the KubeRay operator is there'
        return
    fi
    say "installing the KubeRay operator $kuberay_version"
    "$helm" upgrade --install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm \
        --version "$kuberay_version" --namespace kuberay-system --create-namespace --wait --timeout 5m && return
    say 'its chart cannot be had; trying its manifests'
    kubectl create --save-config -k "github.com/ray-project/kuberay/ray-operator/config/default?ref=v$kuberay_version" && return
    echo "the KubeRay operator could be installed neither by its chart nor by its manifests: install $kuberay_version, then run this again" >&2
    exit 1
}

make_namespaces() {
    local name
    for name in "$namespace" "$runs_namespace"; do
        kubectl create namespace "$name" --dry-run=client -o yaml | kubectl apply --server-side --field-manager=lorafleet-install -f - >/dev/null
        kubectl label namespace "$name" --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null
    done
}

# An authority that exists to sign one certificate: its key is not kept.
make_certificate() {
    if [ -s "$build/ca.crt" ] && kubectl --namespace "$namespace" get secret lorafleet-tls >/dev/null 2>&1; then
        return
    fi
    need openssl 'it makes the certificate; every system packages it'
    say 'making a certificate, good for a year'
    local service=lorafleet.$namespace.svc
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365 -keyout "$work/ca.key" -out "$build/ca.crt" \
        -subj '/CN=lorafleet dev authority' -addext 'basicConstraints=critical,CA:true' -addext 'keyUsage=critical,keyCertSign' 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$work/tls.key" -out "$work/tls.csr" -subj '/CN=lorafleet' 2>/dev/null
    printf 'subjectAltName=DNS:lorafleet,DNS:%s,DNS:%s.cluster.local,DNS:localhost,IP:127.0.0.1\n' "$service" "$service" >"$work/names"
    openssl x509 -req -in "$work/tls.csr" -CA "$build/ca.crt" -CAkey "$work/ca.key" -days 365 -extfile "$work/names" -out "$work/tls.crt" 2>/dev/null
    kubectl --namespace "$namespace" create secret generic lorafleet-tls --type=kubernetes.io/tls --dry-run=client -o yaml \
        --from-file=tls.crt="$work/tls.crt" --from-file=tls.key="$work/tls.key" --from-file=ca.crt="$build/ca.crt" |
        kubectl apply --server-side --force-conflicts --field-manager=lorafleet-install -f - >/dev/null
}

# The cluster signs tokens of its ServiceAccounts, and says by which keys: that makes it an OpenID Connect provider, and one of them
# the first administrator, with no password made up anywhere.
make_administrator() {
    kubectl --namespace "$namespace" create serviceaccount "$admin" --dry-run=client -o yaml |
        kubectl apply --server-side --field-manager=lorafleet-install -f - >/dev/null
    kubectl get --raw /openid/v1/jwks >"$build/jwks.json"
    issuer=$(kubectl get --raw /.well-known/openid-configuration | sed -n 's/.*"issuer":"\([^"]*\)".*/\1/p')
}

# A volume for each server where the cluster makes volumes; else what they hold is gone with their pods.
volumes() {
    [ -z "${MINIO_CLAIM:-}" ] || echo "--set dev.minio.persistence.existingClaim=$MINIO_CLAIM"
    [ -z "${POSTGRESQL_CLAIM:-}" ] || echo "--set dev.postgresql.persistence.existingClaim=$POSTGRESQL_CLAIM"
    if kubectl get storageclass -o yaml | grep -q 'is-default-class: "true"'; then
        [ -n "${MINIO_CLAIM:-}" ] || echo '--set dev.minio.persistence.size=20Gi'
        [ -n "${POSTGRESQL_CLAIM:-}" ] || echo '--set dev.postgresql.persistence.size=5Gi'
    fi
}

# `image KEY REPOSITORY:TAG`, for values that keep the two apart.
image() { echo "--set $1.repository=${2%:*} --set-string $1.tag=${2##*:}"; }

install_chart() {
    say "installing lorafleet into namespace $namespace"
    local -a options
    read -ra options <<<"$(volumes | tr '\n' ' ') $(image image "$service_image" | tr '\n' ' ') $(image trainerImage "$trainer_image")"
    "$helm" upgrade --install lorafleet "$repository/helm/lorafleet" --namespace "$namespace" --values "$here/values.yaml" \
        --set "runs.namespace=$runs_namespace" --set runNamespaces.create=false \
        --set "access.admins={oidc:system:serviceaccount:$namespace:$admin}" \
        --set "access.oidc.issuer=$issuer" --set "access.oidc.audience=$audience" --set-file "access.oidc.jwksJson=$build/jwks.json" \
        --set-string "dev.minio.image=$minio_image" --set-string "dev.postgresql.image=$postgresql_image" \
        "${options[@]}" "$@" --wait --timeout "${TIMEOUT:-10m}" >&2
}

set_up_tenant() {
    say "buckets, tenant ${TENANT:-default} and its token"
    local token=$work/admin-token
    kubectl --namespace "$namespace" create token "$admin" --audience "$audience" --duration 15m >"$token"
    (cd "$repository" && "${PYTHON:-.venv/bin/python}" -m deploy.set_up --namespace "$namespace" --tenant "${TENANT:-default}" \
        --admin-token-file "$token" --build "$build")
}

service_image=${SERVICE_IMAGE:-local/lorafleet-service:$tag}
trainer_image=${TRAINER_IMAGE:-local/lorafleet-trainer:$tag}
minio_image=${MINIO_IMAGE:-local/minio:test}
postgresql_image=${POSTGRESQL_IMAGE:-local/postgresql:test}
mkdir -p "$build"
work=$(mktemp -d) # the authority's key and the administrator's token are in it, and nowhere else
trap 'rm -rf "$work"' EXIT
check_cluster
install_kuberay
make_namespaces
make_certificate
make_administrator
install_chart "$@"
set_up_tenant
cat >&2 <<END
install: done. The control plane, from this machine:
  kubectl --namespace $namespace port-forward service/lorafleet 7600 &
  lorafleet --tls-ca $build/ca.crt --token-file $build/token list
The demo: make kind-demo, or .venv/bin/python -m deploy.demo
END
