-- People, how they prove who they are, and who is signed in.
CREATE TABLE member (
    member_id        text COLLATE "C" PRIMARY KEY CHECK (member_id ~ '^mem_[0-9a-f]{32}$'),
    account_id       text COLLATE "C" NOT NULL REFERENCES account,
    -- As it was given, for letters; and as it is compared.
    email            text NOT NULL CHECK (octet_length(email) BETWEEN 3 AND 254),
    email_normalized text COLLATE "C" NOT NULL CHECK (octet_length(email_normalized) BETWEEN 3 AND 254),
    -- "C" folds ASCII only, as the service does.
    CHECK (email_normalized = lower(email_normalized)),
    display_name     text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 200),
    role             text NOT NULL CHECK (role IN ('owner', 'member', 'operator')),
    language         text NOT NULL CHECK (language IN ('en', 'fr')),
    created_at       timestamptz NOT NULL,
    UNIQUE (account_id, member_id)
);
-- One person signs in with one address, in whichever case it is typed. A plain column rather than
-- lower(...) in the index: row-level security lets only leakproof conditions reach an index, and lower()
-- is none.
CREATE UNIQUE INDEX member_email ON member (email_normalized);

CREATE TABLE password (
    member_id  text COLLATE "C" PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL,
    hash       text NOT NULL CHECK (hash LIKE '$argon2id$%' AND octet_length(hash) <= 256),
    changed_at timestamptz NOT NULL,
    FOREIGN KEY (account_id, member_id) REFERENCES member (account_id, member_id)
);

-- The token itself is only with whoever signed in.
CREATE TABLE session (
    token_sha256 bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    account_id   text COLLATE "C" NOT NULL,
    member_id    text COLLATE "C" NOT NULL,
    created_at   timestamptz NOT NULL,
    seen_at      timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL CHECK (expires_at > created_at),
    FOREIGN KEY (account_id, member_id) REFERENCES member (account_id, member_id)
);
CREATE INDEX session_by_member ON session (account_id, member_id);
CREATE INDEX session_by_end ON session (expires_at);
CREATE INDEX session_by_sight ON session (seen_at);

-- How often signing in failed, by a keyed hash of an address that may belong to nobody: no account's data.
CREATE TABLE sign_in_throttle (
    subject    text NOT NULL CHECK (subject IN ('email_at_address', 'email', 'address')),
    key_hash   bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    failures   integer NOT NULL CHECK (failures >= 0),
    failed_at  timestamptz NOT NULL,
    open_at    timestamptz NOT NULL,
    PRIMARY KEY (subject, key_hash)
);
CREATE INDEX sign_in_throttle_by_failure ON sign_in_throttle (failed_at);

ALTER TABLE member ENABLE ROW LEVEL SECURITY;
ALTER TABLE member FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON member
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE password ENABLE ROW LEVEL SECURITY;
ALTER TABLE password FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON password
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE session ENABLE ROW LEVEL SECURITY;
ALTER TABLE session FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON session
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));
