#!/usr/bin/env bash
# get-go-tool.sh NAME PACKAGE@VERSION: prints the path of a program. Looks in PATH, .tools/bin and Go's own bin;
# else builds it into .tools/bin. Only the path goes to stdout.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
package=$2
tools=$PWD/.tools/bin
PATH=$tools:$PATH:/usr/local/go/bin

if command -v "$name"; then
    exit
fi
if ! command -v go >/dev/null; then
    echo "$name is not in PATH, and Go, which would build it, is missing too: install one of them" >&2
    exit 1
fi
if [ -x "$(go env GOPATH)/bin/$name" ]; then
    echo "$(go env GOPATH)/bin/$name"
    exit
fi
echo "building $name into .tools/bin, once" >&2
GOBIN=$tools go install "$package" >&2
echo "$tools/$name"
