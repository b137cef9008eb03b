#!/usr/bin/env bash
# need.sh: to be sourced. `need PROGRAM HINT` ends the script with exit code 2 where a program is missing, and says what to do.

need() {
    command -v "$1" >/dev/null && return
    echo "$1 is needed: $2" >&2
    exit 2
}

need_docker() {
    need docker 'kind and minikube run Kubernetes in containers; install Docker Engine, https://docs.docker.com/engine/install'
    docker info >/dev/null 2>&1 && return
    echo 'docker is installed, but its engine does not answer: start it, and check that you may use it (docker info)' >&2
    exit 2
}
