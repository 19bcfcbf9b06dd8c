#!/usr/bin/env bash
# Runs the fleet and, beside it, an application whose routes it protects (examples/personas), until Ctrl-C. Prints what to
# try. PERSONAS_LISTEN is where the application listens; where the fleet's database is a server of yours
# (OCTROI_DATABASE__URL), PERSONAS_DATABASE_URL says where the application's is.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=postgres.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"
# shellcheck source-path=SCRIPTDIR source=build.sh
source "$(dirname "${BASH_SOURCE[0]}")/build.sh"
cd "$ROOT"

build_programs
data=${OCTROI_DATA_DIR:-.octroi}
export PERSONAS_LISTEN=${PERSONAS_LISTEN:-127.0.0.1:8090}
! curl -s -o /dev/null "http://$PERSONAS_LISTEN/" || die "something listens on $PERSONAS_LISTEN already: set PERSONAS_LISTEN"
addresses=$(mktemp)
rm "$addresses"
programs=()
end() {
    trap - EXIT HUP INT TERM
    rm -f "$addresses"
    # The application first: it needs the fleet's database.
    for ((index = ${#programs[@]} - 1; index >= 0; index--)); do
        kill "${programs[index]}" 2>/dev/null || true
        wait "${programs[index]}" 2>/dev/null || true
    done
}
trap end EXIT
trap 'exit 130' HUP INT TERM

# Ctrl-C is for this script, which ends them in their order.
(trap '' HUP INT && exec setsid "$TARGET/debug/octroi" all --addresses-file "$addresses") &
programs+=($!)
until [[ -s $addresses ]]; do
    kill -0 "${programs[0]}" 2>/dev/null || die "the fleet did not start"
    sleep 0.2
done
OCTROI_CLIENT__ADDRESS=http://$(sed -n 's/.*"grpc" *: *"\([^"]*\)".*/\1/p' "$addresses")
export OCTROI_CLIENT__ADDRESS OCTROI_CLIENT__TOKEN_FILE=$data/tokens/application.token
if [[ -z ${PERSONAS_DATABASE_URL:-} ]]; then
    # The private server of the fleet: its port is the fourth line of PostgreSQL's own file.
    port=$(sed -n 4p "$data/postgres/postmaster.pid")
    password=$(<"$data/postgres.password")
    export PERSONAS_DATABASE_URL="postgres://postgres:$password@127.0.0.1:$port/postgres?sslmode=disable"
fi
"$TARGET/debug/octroi-personas" --journal-dir "$data/personas-journal" &
programs+=($!)
until curl -s -o /dev/null "http://$PERSONAS_LISTEN/personas"; do
    kill -0 "${programs[1]}" 2>/dev/null || die "the application did not start"
    sleep 0.2
done

cat <<EOF

The application is at http://$PERSONAS_LISTEN, and Octroi protects its routes (examples/personas/src/lib.rs). To try:

  app=http://$PERSONAS_LISTEN json='content-type: application/json' me='x-account-id: acme'

  # A customer signs up, and has the free plan.
  curl -i -H "\$json" \$app/accounts -d '{"id": "acme"}'

  # 201, and how much is left in the headers; the eleventh within an hour is 429.
  for name in Ada Bo Cy Di Ed Flo Gus Hal Ida Jo Kit; do curl -i -H "\$json" -H "\$me" \$app/personas -d "{\"name\": \"\$name\"}"; done

  # 402: the free plan has no premium templates.
  curl -i -H "\$json" -H "\$me" \$app/templates/night-owl/personas -d '{"name": "Nox"}'

  # Two exports an hour, each of a hundred rows or fewer.
  curl -i -H "\$me" \$app/exports/personas.csv

  # What was made.
  curl -H "\$me" \$app/personas

Ctrl-C ends both.
EOF
wait -n "${programs[@]}"
