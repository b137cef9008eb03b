#!/usr/bin/env bash
# images.sh: to be sourced. How an image is built and brought to the cluster's nodes, by the cluster's own way.
#
# CLUSTER says which way: kind, minikube or onenode. Unset, it is read from kubectl's context. ONENODE is the path of the onenode
# script, where a test cluster was started with it. Any other cluster pulls its images from a registry, and builds nothing here.

cluster_kind() {
    if [ -n "${CLUSTER:-}" ]; then
        echo "$CLUSTER"
        return
    fi
    case $(kubectl config current-context 2>/dev/null) in
        kind-*) echo kind ;;
        minikube*) echo minikube ;;
        *)
            if [ -n "${ONENODE:-}" ]; then
                echo onenode
            elif kubectl get nodes --selector minikube.k8s.io/name --output name 2>/dev/null | grep -q .; then
                echo minikube # a profile by another name, as up.sh makes it
            else
                echo other
            fi
            ;;
    esac
}

# content_tag PATH...: twelve digits that change with any of these files of the working directory's repository.
content_tag() {
    git ls-files --cached --others --exclude-standard -z -- "$@" | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12
}

# kind names its context after the cluster: kind-NAME.
kind_cluster() {
    local context
    context=$(kubectl config current-context 2>/dev/null || true)
    echo "${KIND_CLUSTER:-${context#kind-}}"
}

# build_image TAG DIR [FLAG...]: the image is on every node afterwards.
build_image() {
    local tag=$1 folder=$2
    shift 2
    case $(cluster_kind) in
        kind)
            docker build --tag "$tag" "$@" "$folder"
            kind load docker-image "$tag" --name "$(kind_cluster)"
            ;;
        minikube)
            docker build --tag "$tag" "$@" "$folder"
            minikube image load "$tag" --profile "${MINIKUBE_PROFILE:-$(kubectl config current-context)}" # its context's name
            ;;
        onenode) "${ONENODE:?}" build "$tag" "$folder" "$@" ;;
        *)
            echo "no way to bring $tag to the nodes of this cluster: set CLUSTER to kind, minikube or onenode, or push it to a registry" >&2
            return 1
            ;;
    esac
}
