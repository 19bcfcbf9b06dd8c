#!/usr/bin/env bash
# Measures the release build, prints a table and writes target/bench/<name>.json.
#   bench.sh quota                  everything about quota
#   bench.sh quota point edge       only these groups of cases; `octroi-bench quota --help` lists them
#   bench.sh usage                  everything about usage
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=postgres.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"
# shellcheck source-path=SCRIPTDIR source=backends.sh
source "$ROOT/deploy/scripts/backends.sh"
cd "$ROOT"

[[ ${1:-} = quota || ${1:-} = usage ]] || die "usage: bench.sh quota|usage [group...]"

need_cargo
backends_ensure
unset OCTROI_TOOLS_DIR
# With the names of functions, which cost no time and let a profiler say where it is spent.
export CARGO_PROFILE_RELEASE_STRIP=none
cargo build --workspace --bins --release
exec "$TARGET/release/octroi-bench" "$@"
