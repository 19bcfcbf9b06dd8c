#!/usr/bin/env bash
# Checks the contracts: style, comments, layout, and that nothing breaks who was built on the baseline.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
"$ROOT/deploy/scripts/tools.sh" buf
BUF=$TOOLS/node/node_modules/.bin/buf
BASELINE=$ROOT/proto/baseline.binpb
BROKEN=100 # what buf exits with when a rule is broken, as opposed to being called wrongly

# A check that cannot fail is none: takes a field out of a copy of the contracts and wants to see that
# refused. It is compared with the contracts as they are, so that it does not matter which field it is.
breaking_self_test() {
    local file=proto/octroi/quota/v1/quota_service.proto copy status=0 said
    copy=$(mktemp -d)
    # shellcheck disable=SC2064  # the directory of now
    trap "rm -rf '$copy'" EXIT
    cp -R "$ROOT/buf.yaml" "$ROOT/proto" "$copy"
    "$BUF" build -o "$copy/now.binpb"
    awk '!gone && /^  [A-Za-z0-9_.]+ [a-z0-9_]+ = [0-9]+;$/ { gone = 1; next } { print }' \
        "$ROOT/$file" >"$copy/$file"
    ! cmp -s "$ROOT/$file" "$copy/$file" || die "self-test: found no field to take out of $file"
    said=$(cd "$copy" && "$BUF" breaking --against now.binpb 2>&1) || status=$?
    if ((status != BROKEN)) || ! grep -q 'Previously present field' <<<"$said"; then
        die "self-test: a field was taken out and buf did not refuse it (exit $status): $said"
    fi
    say "  refused as it should: $(grep -m 1 'Previously present field' <<<"$said")"
}

cd "$ROOT"
say "proto: lint"
"$BUF" lint
say "proto: format"
"$BUF" format --diff --exit-code
say "proto: breaking, against ${BASELINE#"$ROOT"/}"
[[ -s $BASELINE ]] || die "there is no baseline: make one with deploy/scripts/proto-baseline.sh"
"$BUF" breaking --against "$BASELINE"
say "proto: breaking self-test"
breaking_self_test
