#!/usr/bin/env bash
# Writes the contracts as they are now to proto/baseline.binpb, which later ones may not break.
# The baseline changes only in a commit of its own, with a decision record that says why.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
"$ROOT/deploy/scripts/tools.sh" buf

cd "$ROOT"
# Comments and positions are left out: they break nobody.
"$TOOLS/node/node_modules/.bin/buf" build --exclude-source-info -o proto/baseline.binpb
say "wrote proto/baseline.binpb: $(wc -c <proto/baseline.binpb) bytes"
