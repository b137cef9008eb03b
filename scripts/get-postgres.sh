#!/usr/bin/env bash
# get-postgres.sh: prints the folder of PostgreSQL's programs. Looks in PATH and where Debian puts them; else installs the
# package when it may. Only the folder goes to stdout.
set -euo pipefail

find_postgres() {
    local folder
    for folder in "$(dirname "$(command -v postgres || echo /nowhere/postgres)")" /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin; do
        if [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ]; then
            newest=$folder
        fi
    done
    [ -n "${newest:-}" ] && echo "$newest"
}

if find_postgres; then
    exit
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo 'installing PostgreSQL, once' >&2
    # No cluster of its own: the tests make theirs. The lists of packages may be missing or old.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    apt-get update -qq >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql >&2
    if find_postgres; then
        exit
    fi
fi
echo "PostgreSQL is needed (postgres and initdb, in PATH or in /usr/lib/postgresql): install your system's package
(Debian: apt install postgresql), or leave its tests out: pytest -m 'not postgresql'" >&2
exit 1
