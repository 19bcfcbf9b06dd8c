-- Who an account has made up.
CREATE TABLE persona (
    id         uuid PRIMARY KEY,
    account_id text NOT NULL,
    name       text NOT NULL,
    template   text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX persona_by_account ON persona (account_id, created_at, id);

-- Deleted personas whose place is not given back yet: written with the deletion, taken out once Octroi knows.
CREATE TABLE place_to_return (
    persona_id uuid PRIMARY KEY,
    account_id text NOT NULL,
    -- How often Octroi refused it for good: each try is a request of its own.
    refusals   integer NOT NULL DEFAULT 0
);
