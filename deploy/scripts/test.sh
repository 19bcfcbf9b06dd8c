#!/usr/bin/env bash
# Runs the tests. What they need and cannot find is installed first where that is possible.
#   test.sh            the tests of every change
#   test.sh --long     also those that are marked #[ignore] because they take minutes
#   test.sh --backends only makes sure that the servers are there
# Other arguments are handed to the runner, such as the name of a test.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=postgres.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"
# shellcheck source-path=SCRIPTDIR source=backends.sh
source "$ROOT/deploy/scripts/backends.sh"
cd "$ROOT"

nextest=()
libtest=()
case "${1:-}" in
    --backends)
        backends_ensure
        exit
        ;;
    --long)
        nextest=(--run-ignored all)
        libtest=(--include-ignored)
        shift
        ;;
esac

need_cargo
backends_ensure
deploy/scripts/tools.sh test
export TEST_PYTHON=$TOOLS/python-test/bin/python
export TEST_NODE_MODULES=$TOOLS/node-test/node_modules
# The tests find by themselves what is installed and what lies in .tools/, not what was fetched elsewhere.
if [[ -z ${TEST_POSTGRES_URL:-} && -z ${PG_BIN:-} ]] && found=$(postgres_find) && postgres_must_be_named "$found"; then
    export PG_BIN=${found#*$'\t'}
fi
unset OCTROI_TOOLS_DIR

# The tests start the programs too, so these are built first. Always the whole workspace, and the tests with
# it: a part of it would be built with other features, from the beginning.
cargo build --workspace --bins --tests

# The examples in the documentation come first, so that the last line is about the tests.
if (($# == 0)); then
    cargo test --workspace --doc --quiet
fi
if command -v cargo-nextest >/dev/null; then
    cargo nextest run --workspace ${nextest[@]+"${nextest[@]}"} "$@"
else
    cargo test --workspace --lib --bins --tests --examples "$@" -- ${libtest[@]+"${libtest[@]}"}
fi
