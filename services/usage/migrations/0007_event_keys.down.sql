-- Back to one table whose key makes an event count once. Two things were not kept and do not come back: half of each
-- payload's hash, so that a repeat of an event is refused as another content, and what denials were of.
ALTER TABLE usage_event RENAME TO usage_event_in_months;
ALTER INDEX usage_event_by_time RENAME TO usage_event_in_months_by_time;

CREATE TABLE usage_event (
    account_id     text NOT NULL,
    source         text NOT NULL,
    event_id       text NOT NULL,
    metric         text NOT NULL REFERENCES metric (slug),
    amount         bigint NOT NULL,
    event_at       timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL,
    origin         text NOT NULL,
    backfill       boolean NOT NULL,
    properties     jsonb NOT NULL DEFAULT '{}',
    payload_hash   bytea NOT NULL CHECK (length(payload_hash) = 32),
    sequence       bigint GENERATED ALWAYS AS IDENTITY,
    charged_amount bigint NOT NULL DEFAULT 0 CHECK (charged_amount BETWEEN 0 AND amount),
    CONSTRAINT usage_event_origin_check CHECK (origin IN ('direct', 'decision', 'return', 'denial')),
    CONSTRAINT usage_event_amount_check
        CHECK (amount BETWEEN 0 AND 9007199254740991 AND (amount = 0) = (origin = 'denial')),
    PRIMARY KEY (account_id, source, event_id)
);

INSERT INTO usage_event (account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties,
                         payload_hash, sequence, charged_amount)
    OVERRIDING SYSTEM VALUE
SELECT e.account_id, e.source, e.event_id, e.metric, e.amount, e.event_at, e.recorded_at, e.origin, e.backfill, e.properties,
       decode(replace(k.payload_hash::text, '-', ''), 'hex') || '\x00000000000000000000000000000000', e.sequence, e.charged_amount
FROM usage_event_in_months AS e
JOIN event_key AS k ON k.key = encode(substring(sha256(
         int8send(octet_length(e.account_id)) || convert_to(e.account_id, 'UTF8')
         || int8send(octet_length(e.source)) || convert_to(e.source, 'UTF8')
         || int8send(octet_length(e.event_id)) || convert_to(e.event_id, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid;

SELECT setval(pg_get_serial_sequence('usage_event', 'sequence'), greatest(max(sequence), 1)) FROM usage_event;

CREATE INDEX usage_event_by_time ON usage_event (account_id, metric, event_at) INCLUDE (amount, origin);
CREATE INDEX usage_event_by_sequence ON usage_event (account_id, sequence DESC);

DROP TABLE usage_event_in_months;
DROP TABLE event_key;
DROP SEQUENCE usage_event_sequence;
DROP FUNCTION make_ledger_month(timestamptz);

CREATE FUNCTION keep_rollup_lag() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    change bigint;
BEGIN
    IF TG_TABLE_NAME = 'usage_event' AND TG_OP = 'INSERT' THEN
        change := (SELECT count(*) FROM added WHERE origin <> 'denial');
    ELSIF TG_TABLE_NAME = 'usage_event' THEN
        change := -(SELECT count(*) FROM removed WHERE origin <> 'denial');
    ELSIF TG_OP = 'INSERT' THEN
        change := -(SELECT coalesce(sum(events), 0) FROM added);
    ELSE
        change := (SELECT coalesce(sum(events), 0) FROM removed) - (SELECT coalesce(sum(events), 0) FROM added);
    END IF;
    IF change <> 0 THEN
        UPDATE rollup_lag SET events = events + change WHERE slot = pg_backend_pid() % 256;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER rollup_lag_ledger_insert AFTER INSERT ON usage_event
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
CREATE TRIGGER rollup_lag_ledger_delete AFTER DELETE ON usage_event
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
CREATE TRIGGER rollup_lag_day_insert AFTER INSERT ON rollup_day
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
CREATE TRIGGER rollup_lag_day_update AFTER UPDATE ON rollup_day
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
