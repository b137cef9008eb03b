#!/usr/bin/env bash
# get-toxiproxy.sh: prints the path of toxiproxy's server; builds the pinned one into .tools/bin when there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/.tools/bin
if PATH=$tools:$PATH command -v toxiproxy-server; then
    exit
fi
# Its package is named just "server": build it beside, then give it its name.
building=$(mktemp -d)
trap 'rm -rf "$building"' EXIT
echo "building toxiproxy into .tools/bin, once" >&2
PATH=$PATH:/usr/local/go/bin GOBIN=$building go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0 >&2
mkdir -p "$tools"
mv "$building/server" "$tools/toxiproxy-server"
echo "$tools/toxiproxy-server"
