#!/usr/bin/env bash
# Writes the secrets of the compose files to .octroi/compose.env, which git ignores. What is there stays,
# so that it can be run again when a new one is needed.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
file=$ROOT/.octroi/compose.env

mkdir -p "${file%/*}"
(umask 077 && touch "$file")
for name in POSTGRES_PASSWORD REDIS_PASSWORD RABBITMQ_PASSWORD \
    {ACCOUNT,QUOTA,USAGE,BILLING,NOTIFICATION}_DB_PASSWORD; do
    if ! grep -q "^$name=" "$file"; then
        # Hexadecimal, so that it can stand in a URL as it is.
        printf '%s=%s\n' "$name" "$(od -An -N 24 -t x1 /dev/urandom | tr -d ' \n')" >>"$file"
        say "$name: made"
    fi
done
say "the secrets are in ${file#"$ROOT"/}"
