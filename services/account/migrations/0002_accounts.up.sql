-- Who consumes and pays, and what is done to accounts. A row of another account than the transaction's
-- does not exist: row-level security holds for the owner too.
CREATE TABLE account (
    account_id   text COLLATE "C" PRIMARY KEY CHECK (account_id ~ '^[A-Za-z0-9_.:-]{1,128}$'),
    display_name text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 200),
    state        text NOT NULL CHECK (state IN ('active', 'closed')),
    created_at   timestamptz NOT NULL,
    closed_at    timestamptz,
    CHECK ((state = 'closed') = (closed_at IS NOT NULL))
);

-- Zone and language are decided by the service; the rest are what the console shows and sends by, at
-- their defaults until somebody chooses.
CREATE TABLE account_settings (
    account_id        text COLLATE "C" PRIMARY KEY REFERENCES account,
    zone              text NOT NULL CHECK (char_length(zone) BETWEEN 1 AND 64),
    language          text NOT NULL CHECK (language IN ('en', 'fr')),
    theme             text NOT NULL DEFAULT 'system' CHECK (theme IN ('system', 'light', 'dark')),
    density           text NOT NULL DEFAULT 'comfortable' CHECK (density IN ('comfortable', 'compact')),
    first_weekday     text NOT NULL DEFAULT 'monday' CHECK (first_weekday IN ('monday', 'saturday', 'sunday')),
    notices_by_email  boolean NOT NULL DEFAULT true,
    notices_in_app    boolean NOT NULL DEFAULT true,
    quiet_from        time,
    quiet_until       time,
    updated_at        timestamptz NOT NULL,
    CHECK ((quiet_from IS NULL) = (quiet_until IS NULL))
);

-- What changed who may do what. Rows are added and never changed; they hold no secret.
CREATE TABLE audit_entry (
    sequence    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  text COLLATE "C" NOT NULL REFERENCES account,
    action      text NOT NULL CHECK (action IN (
                    'account.created', 'account.updated', 'member.created', 'session.opened',
                    'session.ended', 'api_key.created', 'api_key.revoked')),
    -- The service that made the call, and the member or key that it was made for.
    caller      text NOT NULL,
    actor       text,
    subject     text NOT NULL,
    details     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    occurred_at timestamptz NOT NULL
);
CREATE INDEX audit_entry_by_account ON audit_entry (account_id, sequence DESC);

ALTER TABLE account ENABLE ROW LEVEL SECURITY;
ALTER TABLE account FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON account
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE account_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE account_settings FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON account_settings
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE audit_entry ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON audit_entry
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));
