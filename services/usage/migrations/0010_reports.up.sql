-- Reports that are written in the background, and their files.

CREATE TABLE report_job (
    job_id        uuid NOT NULL PRIMARY KEY,
    account_id    text NOT NULL,
    -- Who made it, and under which request id: the same again is the same job.
    caller        text NOT NULL,
    request_id    text NOT NULL,
    -- What it is of (`usage/src/domain/report.rs`).
    query         jsonb NOT NULL,
    state         text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')),
    -- How often it was begun. Whoever writes for it says which run he is: a replica that lost its lease changes nothing.
    run           integer NOT NULL DEFAULT 0 CHECK (run >= 0),
    -- Until when nobody else begins it again.
    lease_until   timestamptz,
    rows_expected bigint NOT NULL CHECK (rows_expected >= 0),
    rows_read     bigint NOT NULL DEFAULT 0 CHECK (rows_read >= 0),
    rows_written  bigint NOT NULL DEFAULT 0 CHECK (rows_written >= 0),
    bytes         bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    chunks        integer NOT NULL DEFAULT 0 CHECK (chunks >= 0),
    -- The instant that its file is of.
    recorded_before timestamptz,
    -- What its rows come to, by metric.
    totals        jsonb,
    -- The reason why it failed.
    failure       text,
    created_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    -- From when on its file is gone.
    expires_at    timestamptz,
    UNIQUE (account_id, caller, request_id),
    CHECK ((state IN ('queued', 'running')) = (ended_at IS NULL)),
    CHECK (state <> 'running' OR lease_until IS NOT NULL),
    CHECK (state NOT IN ('done', 'expired') OR (expires_at IS NOT NULL AND recorded_before IS NOT NULL))
);

CREATE INDEX report_job_by_account ON report_job (account_id, created_at, job_id);
CREATE INDEX report_job_open ON report_job (created_at) WHERE state IN ('queued', 'running');
CREATE INDEX report_job_ended ON report_job (ended_at) WHERE ended_at IS NOT NULL;

-- The file of a report, in pieces of up to 256 KiB, which PostgreSQL keeps compressed. Any replica serves it.
CREATE TABLE report_chunk (
    job_id uuid NOT NULL REFERENCES report_job ON DELETE CASCADE,
    -- From 0, without gaps.
    number integer NOT NULL CHECK (number >= 0),
    data   bytea NOT NULL CHECK (octet_length(data) BETWEEN 1 AND 262144),
    PRIMARY KEY (job_id, number)
);
