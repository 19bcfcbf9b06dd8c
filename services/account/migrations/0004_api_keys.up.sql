-- Keys with which programs call. Of the secret only a keyed hash is kept, which is also how it is found.
CREATE TABLE api_key (
    key_id      text COLLATE "C" PRIMARY KEY CHECK (key_id ~ '^key_[0-9a-f]{32}$'),
    account_id  text COLLATE "C" NOT NULL REFERENCES account,
    label       text NOT NULL CHECK (char_length(label) BETWEEN 1 AND 100),
    prefix      text NOT NULL CHECK (char_length(prefix) = 12),
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    scopes      text[] NOT NULL CHECK (
                    scopes <@ ARRAY['quota.check', 'usage.write', 'usage.read'] AND cardinality(scopes) BETWEEN 1 AND 3),
    created_at  timestamptz NOT NULL,
    revoked_at  timestamptz
);
CREATE INDEX api_key_by_account ON api_key (account_id, created_at DESC, key_id DESC);

ALTER TABLE api_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_key FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON api_key
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));
