#!/usr/bin/env bash
# entrypoint.sh postgres [OPTION...]: makes the cluster once, then becomes the server.
# Takes POSTGRES_USER (default postgres), POSTGRES_DB (default: the user), POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, and PGDATA.
set -euo pipefail

if [ "${1:-}" != postgres ]; then
    exec "$@"
fi
shift
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

make_cluster() {
    local new=$PGDATA.new secret
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ -z "${POSTGRES_PASSWORD_FILE:-}" ]; then
        echo 'POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE is needed: a database without a password is not made' >&2
        exit 1
    fi
    rm -rf "$new" # of a start that was cut off
    secret=$(mktemp)
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then cat "$POSTGRES_PASSWORD_FILE" >"$secret"; else printf '%s' "$POSTGRES_PASSWORD" >"$secret"; fi
    initdb -D "$new" -U "$user" -E UTF8 --no-locale --auth-local=trust --auth-host=scram-sha-256 --pwfile="$secret"
    rm -f "$secret"
    echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
    if [ "$database" != postgres ]; then
        pg_ctl -D "$new" -w -o '-c listen_addresses= -c unix_socket_directories=/tmp' start
        createdb -h /tmp -U "$user" "$database"
        pg_ctl -D "$new" -w stop
    fi
    mv "$new" "$PGDATA" # whole, or not at all
}

[ -s "$PGDATA/PG_VERSION" ] || make_cluster
# The volume's owner may be another than ours; PostgreSQL refuses a folder that others may read.
chmod 0700 "$PGDATA"
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
