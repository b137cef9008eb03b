#!/usr/bin/env bash
# generate-protos.sh PYTHON OUT_DIR: the Python stubs of protos/ into OUT_DIR/lorafleet/v1.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
out=$2
"$python" -m grpc_tools.protoc -I protos --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" protos/lorafleet/v1/*.proto
