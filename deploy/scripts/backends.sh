# Makes sure that the tests find the servers they are run against: PostgreSQL, Redis, RabbitMQ.
# Sourced by test.sh after postgres.sh.
#
# The tests start and stop these servers themselves, on ports of their own; nothing here runs one.
# They look for, in this order: TEST_<SERVER>_URL, a Docker engine, the programs on this machine.
# shellcheck shell=bash

# A Docker engine counts only where its socket takes a connection; the client alone starts nothing.
docker_answers() {
    local host=${DOCKER_HOST:-unix:///var/run/docker.sock}
    command -v python3 >/dev/null || return 1
    python3 - "$host" 2>/dev/null <<'PYTHON'
import socket, sys
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
if url.scheme == "unix":
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(2)
    peer.connect(url.path)
else:
    socket.create_connection((url.hostname, url.port or 2375), timeout=2)
PYTHON
}

has_redis() { command -v redis-server >/dev/null; }

# Debian's wrapper in the PATH wants to be root; the tests call the program behind it.
has_rabbitmq() { [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || command -v rabbitmq-server >/dev/null; }

# The Debian packages of the servers that neither a URL nor a program stands for.
backends_missing() {
    [[ -n ${TEST_POSTGRES_URL:-} ]] || postgres_find >/dev/null || echo postgresql
    [[ -n ${TEST_REDIS_URL:-} ]] || has_redis || echo redis-server
    [[ -n ${TEST_RABBITMQ_URL:-} ]] || has_rabbitmq || echo rabbitmq-server
}

# Installs packages of servers without letting them start one: a policy that forbids it stands in
# while they are unpacked, and what stood there before comes back. Nothing is installed where the policy
# cannot be put there; each step says so itself, because a caller's `||` switches errexit off in here.
install_without_starting() (
    policy=/usr/sbin/policy-rc.d
    saved=$policy.saved-by-octroi
    forbidding=$(mktemp) || exit 1
    # shellcheck disable=SC2329  # by the trap
    restore() {
        rm -f "$forbidding"
        as_root rm -f "$policy"
        if [[ -e $saved ]]; then
            as_root mv "$saved" "$policy"
        fi
    }
    printf '#!/bin/sh\nexit 101\n' >"$forbidding" || exit 1
    if [[ -e $policy && ! -e $saved ]]; then
        as_root mv "$policy" "$saved" || exit 1
    fi
    # Not before: what stood there is only put back once it was moved away.
    trap restore EXIT
    trap 'exit 130' INT TERM
    as_root install -m 755 "$forbidding" "$policy" || exit 1

    # What apt says is of interest only where it fails.
    if ! said=$({
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    } 2>&1 </dev/null); then
        say "$said"
        exit 1
    fi
)

backends_ensure() {
    local missing
    missing=$(backends_missing | xargs)
    [[ -n $missing ]] || return 0
    if docker_answers; then
        say "tests: $missing will run in containers"
        return 0
    fi
    can_apt || die "the tests need $missing: install them (Debian: apt-get install $missing;" \
        "macOS: brew install postgresql redis rabbitmq), start Docker," \
        "or give TEST_POSTGRES_URL, TEST_REDIS_URL and TEST_RABBITMQ_URL"
    say "tests: installing $missing"
    # shellcheck disable=SC2086  # one word a package
    install_without_starting $missing || die "could not install $missing"
    missing=$(backends_missing | xargs)
    [[ -z $missing ]] || die "installed, but not found: $missing"
}
