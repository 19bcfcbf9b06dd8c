#!/usr/bin/env bash
# Builds the development profile and runs the whole fleet in one process, until Ctrl-C.
# Arguments are handed to `octroi all`.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=postgres.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"
cd "$ROOT"

need_cargo

fetch=
if [[ -n ${OCTROI_DATABASE__URL:-} ]]; then
    say "PostgreSQL: the server of OCTROI_DATABASE__URL"
elif [[ -n ${OCTROI_DATABASE__BIN:-} ]]; then
    say "PostgreSQL: in OCTROI_DATABASE__BIN=$OCTROI_DATABASE__BIN"
elif found=$(postgres_find); then
    say "PostgreSQL: ${found/$'\t'/ in }"
    if postgres_must_be_named "$found"; then
        export OCTROI_DATABASE__BIN=${found#*$'\t'}
    fi
elif [[ -n ${PG_BIN:-} ]]; then
    exit 1 # postgres_find has said why
else
    say "PostgreSQL: none on this machine; fetching one into $TOOLS while the programs are built"
    postgres_fetch &
    fetch=$!
    # Ctrl-C reaches both; an error of the build must not leave the other behind.
    trap 'kill "$fetch" 2>/dev/null || true' EXIT
fi

# Always the whole workspace: a part of it would be built with other features, from the beginning.
cargo build --workspace --bins

if [[ -n $fetch ]]; then
    wait "$fetch" || exit 1
    trap - EXIT
    OCTROI_DATABASE__BIN=$(postgres_fetched)
    export OCTROI_DATABASE__BIN
    say "PostgreSQL: fetched in $OCTROI_DATABASE__BIN"
fi

unset OCTROI_TOOLS_DIR
exec "$TARGET/debug/octroi" all "$@"
