-- What was charged to each slice of a limit, in the commits of the events that it pays for. The row comes with the
-- first charge or with the seal, and lives until nothing can be charged to the slice any more.
CREATE TABLE slice_spend (
    slice_id    uuid PRIMARY KEY,
    cap         bigint NOT NULL CHECK (cap BETWEEN 0 AND 9007199254740991),
    spent       bigint NOT NULL CHECK (spent BETWEEN 0 AND cap),
    sealed      boolean NOT NULL,
    hard_end_at timestamptz NOT NULL
) WITH (fillfactor = 50); -- Every commit changes rows of hot slices: there is room for the new version beside the old.

CREATE INDEX slice_spend_by_end ON slice_spend (hard_end_at);

-- What an account holds of a LEVEL metric: the sum of its events, those given back taken away.
CREATE TABLE level (
    account_id text NOT NULL,
    metric     text NOT NULL REFERENCES metric (slug),
    amount     bigint NOT NULL CHECK (amount BETWEEN 0 AND 9007199254740991),
    PRIMARY KEY (account_id, metric)
);

INSERT INTO level (account_id, metric, amount)
SELECT account_id, metric, least(sum(amount), 9007199254740991)
FROM usage_event JOIN metric ON metric.slug = usage_event.metric AND metric.kind = 'level'
GROUP BY account_id, metric;

ALTER TABLE usage_event
    -- Units that slices paid for.
    ADD COLUMN charged_amount bigint NOT NULL DEFAULT 0 CHECK (charged_amount BETWEEN 0 AND amount),
    DROP CONSTRAINT usage_event_amount_check,
    DROP CONSTRAINT usage_event_origin_check;

-- NOT VALID: what was there before kept stricter rules, and the table is large.
ALTER TABLE usage_event
    ADD CONSTRAINT usage_event_origin_check
        CHECK (origin IN ('direct', 'decision', 'return', 'denial')) NOT VALID,
    ADD CONSTRAINT usage_event_amount_check
        CHECK (amount BETWEEN 0 AND 9007199254740991 AND (amount = 0) = (origin = 'denial')) NOT VALID;

-- Denials are no use: the rollups never hear of them.
CREATE OR REPLACE FUNCTION keep_rollup_lag() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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
