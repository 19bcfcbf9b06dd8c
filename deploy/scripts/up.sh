#!/usr/bin/env bash
# Builds the development profile and runs the whole fleet in one process, until Ctrl-C.
# Arguments are handed to `octroi all`.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=postgres.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"
# shellcheck source-path=SCRIPTDIR source=build.sh
source "$(dirname "${BASH_SOURCE[0]}")/build.sh"
cd "$ROOT"

build_programs
exec "$TARGET/debug/octroi" all "$@"
