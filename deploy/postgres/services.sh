#!/usr/bin/env bash
# Makes one role and one schema a service: the role owns its schema, sees nothing else, and is neither
# superuser nor above row-level security. What `octroi all` does for itself in
# services/fleet/src/postgres/roles.rs, for a server that somebody else runs.
#
# The PostgreSQL image runs this once, on an empty volume. Anywhere else a superuser runs it, with psql's
# own variables (PGHOST, PGUSER, …), POSTGRES_DB, and <SERVICE>_DB_PASSWORD for each service. Doing it
# again changes nothing but the passwords.
set -euo pipefail

export PGUSER=${PGUSER:-${POSTGRES_USER:-postgres}}

for service in account quota usage billing notification; do
    password=${service^^}_DB_PASSWORD
    # Passwords go in as variables, never as arguments that others on the machine could read.
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$POSTGRES_DB" <<SQL
SET client_min_messages = warning;
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
\getenv password ${password}
SELECT 'CREATE ROLE octroi_${service}'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'octroi_${service}') \gexec
ALTER ROLE octroi_${service} WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'password';
ALTER ROLE octroi_${service} SET search_path = ${service};
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO octroi_${service};
CREATE SCHEMA IF NOT EXISTS ${service} AUTHORIZATION octroi_${service};
ALTER SCHEMA ${service} OWNER TO octroi_${service};
REVOKE ALL ON SCHEMA ${service} FROM PUBLIC;
SQL
done
