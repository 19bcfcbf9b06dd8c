-- The metrics that may be recorded, as billing's catalog says; one row tells which version that is.
CREATE TABLE catalog (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version   bigint NOT NULL CHECK (version > 0)
);

CREATE TABLE metric (
    slug        text PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('flow', 'level')),
    aggregation text NOT NULL CHECK (aggregation IN ('sum', 'count', 'max', 'unique', 'latest'))
);

-- The ledger: one row a usage event, never changed. Its key is also what makes an event count once, so the
-- key lives exactly as long as the row.
CREATE TABLE usage_event (
    account_id   text NOT NULL,
    source       text NOT NULL,
    event_id     text NOT NULL,
    metric       text NOT NULL REFERENCES metric (slug),
    amount       bigint NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    event_at     timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    origin       text NOT NULL CHECK (origin IN ('direct', 'decision')),
    backfill     boolean NOT NULL,
    properties   jsonb NOT NULL DEFAULT '{}',
    payload_hash bytea NOT NULL CHECK (length(payload_hash) = 32),
    sequence     bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (account_id, source, event_id)
);

CREATE INDEX usage_event_by_time ON usage_event (account_id, metric, event_at) INCLUDE (amount, origin);
CREATE INDEX usage_event_by_sequence ON usage_event (account_id, sequence DESC);

-- Sums of the ledger, 15 minutes of UTC each, of which every zone's hour, day and month is made.
CREATE TABLE rollup_quarter (
    account_id text NOT NULL,
    metric     text NOT NULL,
    bucket_at  timestamptz NOT NULL CHECK (extract(epoch FROM bucket_at)::bigint % 900 = 0),
    amount     numeric NOT NULL CHECK (amount >= 0),
    events     bigint NOT NULL CHECK (events >= 0),
    PRIMARY KEY (account_id, metric, bucket_at)
);

-- The same sums by the day of UTC, for long ranges.
CREATE TABLE rollup_day (
    account_id text NOT NULL,
    metric     text NOT NULL,
    bucket_at  timestamptz NOT NULL CHECK (extract(epoch FROM bucket_at)::bigint % 86400 = 0),
    amount     numeric NOT NULL CHECK (amount >= 0),
    events     bigint NOT NULL CHECK (events >= 0),
    PRIMARY KEY (account_id, metric, bucket_at)
);
