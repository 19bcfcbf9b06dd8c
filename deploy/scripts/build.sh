# shellcheck shell=bash
# Sourced: builds the development profile, and finds or fetches a PostgreSQL meanwhile, whose directory it leaves in
# OCTROI_DATABASE__BIN where it must be named. Wants postgres.sh.

build_programs() {
    need_cargo

    local fetch="" found
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
        # shellcheck disable=SC2064
        trap "kill $fetch 2>/dev/null || true" EXIT
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
}
