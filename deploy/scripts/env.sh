# Where things are. Sourced by the other scripts, which set their own shell options.
# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is read by the scripts that source it

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Programs that are fetched. CI keeps them outside of the checkout, so that they outlive it.
# Unset before `octroi` is run, which refuses variables of its prefix that it does not know.
TOOLS=${OCTROI_TOOLS_DIR:-$ROOT/.tools}
# A relative CARGO_TARGET_DIR is relative to where the scripts run cargo, which is the checkout.
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET = /* ]] || TARGET=$ROOT/$TARGET

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# Whether there is a terminal that `sudo` can ask at. It asks there and not at its input, which may be a pipe.
has_terminal() { { : </dev/tty; } 2>/dev/null; }

# Runs a command as root. `sudo` may ask for a password where there is a terminal to ask at.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif has_terminal; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

# Whether Debian's package manager is here and may be used.
can_apt() {
    [[ -e /etc/debian_version ]] && command -v apt-get >/dev/null || return 1
    ((EUID == 0)) || { command -v sudo >/dev/null && { has_terminal || sudo -n true 2>/dev/null; }; }
}

need_cargo() {
    command -v cargo >/dev/null ||
        die "cargo is not on the PATH: install Rust with rustup; the version is in rust-toolchain.toml"
}
