#!/usr/bin/env bash
# setup-venv.sh DIR: a virtual environment with lorafleet and all its extras, every version as in constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

find_python() {
    local name
    for name in python3.11 python3 python; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo 'Python 3.11 or newer with its venv module is needed (Debian: apt install python3.11-venv)' >&2
    return 1
}

python=$(find_python)
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# uv installs this set in under a minute, pip in many.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
# Bytecode now: where PYTHONDONTWRITEBYTECODE is set each process would compile torch and Ray anew, which is seconds of a core.
install() { "$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" -c constraints.txt "$@"; }

# DeepSpeed comes as source and imports torch while it is built, so torch is there first and seen by the build.
install torch setuptools ninja packaging py-cpuinfo
DS_BUILD_OPS=0 install --no-build-isolation-package deepspeed -e '.[service,trainer,dev]'
