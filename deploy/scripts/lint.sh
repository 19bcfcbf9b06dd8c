#!/usr/bin/env bash
# Everything that can be said about the code without running it. All steps run, then the broken ones are named.
#   lint.sh [step]...      only these steps
set -uo pipefail

# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT" || exit
PYTHON_BIN=$TOOLS/python-lint/bin

lint_fmt() { cargo fmt --all --check; }

lint_clippy() { cargo clippy --workspace --all-targets --quiet -- -D warnings; }

lint_doc() { RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -D warnings" cargo doc --workspace --no-deps --quiet; }

lint_deny() {
    deploy/scripts/tools.sh deny &&
        "$TOOLS/cargo/bin/cargo-deny" --log-level warn check -D unused-wrapper bans licenses sources
}

lint_proto() { deploy/scripts/proto-check.sh; }

lint_docker() {
    deploy/scripts/tools.sh lint && "$PYTHON_BIN/hadolint" --failure-threshold info deploy/Dockerfile
}

# Every base and overlay must build, and every object must be one that Kubernetes knows, without extra fields.
lint_k8s() {
    deploy/scripts/tools.sh lint || return
    local dir objects status=0
    for dir in k8s/base k8s/overlays/*/; do
        if objects=$("$PYTHON_BIN/kubectl" kustomize "$dir") &&
            "$PYTHON_BIN/kubernetes-validate" --strict --quiet - <<<"$objects"; then
            say "  ${dir%/}: $(grep -c '^kind:' <<<"$objects") objects"
        else
            say "  ${dir%/}: broken"
            status=1
        fi
    done
    return "$status"
}

lint_shell() {
    deploy/scripts/tools.sh lint && "$PYTHON_BIN/shellcheck" .ci/run deploy/scripts/*.sh deploy/postgres/*.sh
}

STEPS=(fmt shell docker k8s proto deny clippy doc)
(($#)) || set -- "${STEPS[@]}"
need_cargo

broken=()
for step in "$@"; do
    [[ " ${STEPS[*]} " = *" $step "* ]] || die "no such step: $step; they are ${STEPS[*]}"
    started=$SECONDS
    say "lint: $step"
    if "lint_$step"; then
        say "lint: $step ok ($((SECONDS - started)) s)"
    else
        broken+=("$step")
        say "lint: $step BROKEN ($((SECONDS - started)) s)"
    fi
done

((${#broken[@]} == 0)) || die "lint: ${broken[*]}"
