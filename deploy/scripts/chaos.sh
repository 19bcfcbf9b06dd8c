#!/usr/bin/env bash
# Breaks things under load and says what held: chaos.sh [quota | usage] [scenario…]. SEEDS=10 runs ten seeds and goes on
# where it stopped. The report is target/chaos/<quota or usage>.json; FRESH=1 begins it anew. EVENTS=5000 gives each run of
# usage so many events. PROFILE=release builds what is broken, and who breaks it, as it is deployed.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=postgres.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"
# shellcheck source-path=SCRIPTDIR source=backends.sh
source "$ROOT/deploy/scripts/backends.sh"
cd "$ROOT"

need_cargo
backends_ensure
if [[ -z ${TEST_POSTGRES_URL:-} && -z ${PG_BIN:-} ]] && found=$(postgres_find) && postgres_must_be_named "$found"; then
    export PG_BIN=${found#*$'\t'}
fi
suite=quota
case "${1:-}" in
    quota | usage)
        suite=$1
        shift
        ;;
esac
if [[ -n ${FRESH:-} ]]; then
    rm -f "target/chaos/$suite.json"
fi
profile=${PROFILE:-dev}
built=$profile
what=(--bins)
if [[ $profile == dev ]]; then
    built=debug
    # As for the tests, so that one build does for both.
    what+=(--tests)
fi
# The whole workspace: a part of it would be built with other features, from the beginning.
cargo build --workspace "${what[@]}" --profile "$profile"
exec "${CARGO_TARGET_DIR:-target}/$built/octroi-chaos" "$suite" "$@"
