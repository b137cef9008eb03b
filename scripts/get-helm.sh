#!/usr/bin/env bash
# get-helm.sh: prints the path of helm; builds the pinned one into .tools/bin when there is none (a minute or two, once).
exec "$(dirname "$0")/get-go-tool.sh" helm helm.sh/helm/v3/cmd/helm@v3.22.0
