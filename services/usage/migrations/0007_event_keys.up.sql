-- The ledger in months, and beside it the keys that make an event count once (docs/decisions/0009-event-keys.md).
-- What wrote the ledger before cannot write this one: the programs of the version before stop first.

-- One row an event that was recorded, or denied. The key is the first 16 bytes of the SHA-256 over account, source and
-- event id, each after its length; the payload's hash is cut in the same way. A key lives at least as long as the month
-- of its event in the ledger.
CREATE TABLE event_key (
    key          uuid NOT NULL PRIMARY KEY,
    payload_hash uuid NOT NULL,
    -- Where the ledger has the event: its month.
    event_at     timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    -- It stands for a request that was denied: the ledger has no row of it.
    denied       boolean NOT NULL
) PARTITION BY HASH (key);

DO $$
BEGIN
    FOR place IN 0..7 LOOP
        EXECUTE format('CREATE TABLE event_key_%s PARTITION OF event_key FOR VALUES WITH (MODULUS 8, REMAINDER %s)', place, place);
    END LOOP;
END
$$;

-- Rows come in the order of time, nearly, so a small index finds those of a month that goes.
CREATE INDEX event_key_by_time ON event_key USING brin (event_at);

INSERT INTO event_key (key, payload_hash, event_at, recorded_at, denied)
SELECT encode(substring(sha256(
           int8send(octet_length(account_id)) || convert_to(account_id, 'UTF8')
           || int8send(octet_length(source)) || convert_to(source, 'UTF8')
           || int8send(octet_length(event_id)) || convert_to(event_id, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid,
       encode(substring(payload_hash FROM 1 FOR 16), 'hex')::uuid, event_at, recorded_at, origin = 'denial'
FROM usage_event;

ALTER TABLE usage_event RENAME TO usage_event_before;
ALTER INDEX usage_event_by_time RENAME TO usage_event_before_by_time;
ALTER INDEX usage_event_by_sequence RENAME TO usage_event_before_by_sequence;

-- Each session takes some numbers at a time, so an event of another session may have a smaller one and be younger.
CREATE SEQUENCE usage_event_sequence CACHE 100;

-- The ledger: one row a usage event, never changed, in months of UTC by the event's time.
CREATE TABLE usage_event (
    account_id     text NOT NULL,
    metric         text NOT NULL,
    event_at       timestamptz NOT NULL,
    sequence       bigint NOT NULL DEFAULT nextval('usage_event_sequence'),
    source         text NOT NULL,
    event_id       text NOT NULL,
    amount         bigint NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    -- Units that slices paid for.
    charged_amount bigint NOT NULL CHECK (charged_amount BETWEEN 0 AND amount),
    recorded_at    timestamptz NOT NULL,
    origin         text NOT NULL CHECK (origin IN ('direct', 'decision', 'return')),
    backfill       boolean NOT NULL,
    properties     jsonb NOT NULL
) PARTITION BY RANGE (event_at);

CREATE INDEX usage_event_by_time ON usage_event (account_id, metric, event_at, sequence);

-- Makes the month that begins at an instant, where it is not there. It takes no lock that commits wait for.
CREATE FUNCTION make_ledger_month(start_at timestamptz) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    name text := 'usage_event_' || to_char(start_at AT TIME ZONE 'UTC', 'YYYY_MM');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('usage_event_months'));
    IF to_regclass(name) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE usage_event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, start_at,
                   (start_at AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
END
$$;

SELECT make_ledger_month(start_at)
FROM (SELECT DISTINCT date_trunc('month', event_at, 'UTC') AS start_at FROM usage_event_before) AS months;

INSERT INTO usage_event (account_id, metric, event_at, sequence, source, event_id, amount, charged_amount, recorded_at, origin,
                         backfill, properties)
SELECT account_id, metric, event_at, sequence, source, event_id, amount, charged_amount, recorded_at, origin, backfill, properties
FROM usage_event_before WHERE origin <> 'denial';

SELECT setval('usage_event_sequence', greatest(max(sequence), 1)) FROM usage_event_before;

DROP TABLE usage_event_before;

-- What the rollups lack is counted by who writes the ledger and by who adds to the rollups.
DROP TRIGGER rollup_lag_day_insert ON rollup_day;
DROP TRIGGER rollup_lag_day_update ON rollup_day;
DROP FUNCTION keep_rollup_lag();
