#!/usr/bin/env bash
# Formats the code and the contracts.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"

need_cargo
cargo fmt --all
deploy/scripts/tools.sh buf
"$TOOLS/node/node_modules/.bin/buf" format --write
