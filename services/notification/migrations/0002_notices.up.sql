-- What people were told, in the app and by e-mail.
CREATE TABLE notice (
    notice_id  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id text NOT NULL CHECK (length(account_id) BETWEEN 1 AND 128),
    kind       text NOT NULL CHECK (kind IN ('quota.threshold_crossed')),
    -- What happened, in a form that is the same however often it is told.
    dedupe_key text NOT NULL CHECK (length(dedupe_key) BETWEEN 1 AND 300),
    severity   text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    -- The text is made of these where it is read, in the reader's language and zone.
    facts      jsonb NOT NULL CHECK (jsonb_typeof(facts) = 'object'),
    created_at timestamptz NOT NULL,
    read_at    timestamptz,
    UNIQUE (account_id, kind, dedupe_key)
);
CREATE INDEX notice_newest ON notice (account_id, created_at DESC, notice_id DESC);
CREATE INDEX notice_unread ON notice (account_id, created_at DESC, notice_id DESC) WHERE read_at IS NULL;

-- A notice that also goes out by e-mail. Who its owners are is found out after the commit.
CREATE TABLE mailing (
    notice_id  uuid PRIMARY KEY REFERENCES notice,
    account_id text NOT NULL,
    state      text NOT NULL DEFAULT 'unaddressed' CHECK (state IN ('unaddressed', 'addressed', 'dropped')),
    tries      integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    -- When somebody may take it up; a claim moves it ahead.
    due_at     timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX mailing_due ON mailing (due_at) WHERE state = 'unaddressed';
CREATE INDEX mailing_newest ON mailing (account_id, created_at DESC);

CREATE TABLE email (
    email_id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id text NOT NULL,
    notice_id  uuid NOT NULL REFERENCES mailing,
    member_id  text NOT NULL,
    recipient  text NOT NULL CHECK (length(recipient) BETWEEN 1 AND 320),
    language   text NOT NULL CHECK (language IN ('en', 'fr')),
    subject    text NOT NULL,
    html       text NOT NULL,
    text       text NOT NULL,
    status     text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'sent', 'kept', 'failed')),
    tries      integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    due_at     timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at   timestamptz,
    CHECK ((status = 'queued') = (ended_at IS NULL)),
    UNIQUE (notice_id, member_id)
);
CREATE INDEX email_due ON email (due_at) WHERE status = 'queued';
CREATE INDEX email_newest ON email (account_id, created_at DESC, email_id DESC);

-- Every try of every e-mail.
CREATE TABLE delivery (
    email_id   uuid NOT NULL REFERENCES email,
    try        integer NOT NULL CHECK (try >= 1),
    account_id text NOT NULL,
    outcome    text NOT NULL CHECK (outcome IN ('sent', 'kept', 'deferred', 'failed')),
    -- What the mail server said, or why it could not be asked.
    answer     text NOT NULL CHECK (length(answer) <= 500),
    tried_at   timestamptz NOT NULL,
    PRIMARY KEY (email_id, try)
);

ALTER TABLE notice ENABLE ROW LEVEL SECURITY;
ALTER TABLE notice FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON notice
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE mailing ENABLE ROW LEVEL SECURITY;
ALTER TABLE mailing FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON mailing
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE email ENABLE ROW LEVEL SECURITY;
ALTER TABLE email FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON email
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE delivery ENABLE ROW LEVEL SECURITY;
ALTER TABLE delivery FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON delivery
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));
