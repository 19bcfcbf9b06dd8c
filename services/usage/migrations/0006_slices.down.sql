DELETE FROM usage_event WHERE origin IN ('return', 'denial');

CREATE OR REPLACE FUNCTION keep_rollup_lag() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    change bigint;
BEGIN
    IF TG_TABLE_NAME = 'usage_event' AND TG_OP = 'INSERT' THEN
        change := (SELECT count(*) FROM added);
    ELSIF TG_TABLE_NAME = 'usage_event' THEN
        change := -(SELECT count(*) FROM removed);
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

ALTER TABLE usage_event
    DROP CONSTRAINT usage_event_origin_check,
    DROP CONSTRAINT usage_event_amount_check,
    DROP COLUMN charged_amount;

ALTER TABLE usage_event
    ADD CONSTRAINT usage_event_origin_check CHECK (origin IN ('direct', 'decision')),
    ADD CONSTRAINT usage_event_amount_check CHECK (amount BETWEEN 1 AND 9007199254740991);

DROP TABLE level;
DROP TABLE slice_spend;
