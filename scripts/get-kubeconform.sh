#!/usr/bin/env bash
# get-kubeconform.sh: prints the path of kubeconform; builds the pinned one into .tools/bin when there is none (seconds, once).
exec "$(dirname "$0")/get-go-tool.sh" kubeconform github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
