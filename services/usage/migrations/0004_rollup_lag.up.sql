-- How many events of the ledger the rollups do not have yet, so that nobody has to count the ledger to know.
-- Triggers keep it, because every program that writes has to count, those of the version before included.
--
-- One row would make all commits wait for each other: the figure is the sum of many rows, and each session has
-- one of its own. A single row may be negative.
CREATE TABLE rollup_lag (
    slot   integer PRIMARY KEY CHECK (slot BETWEEN 0 AND 255),
    events bigint NOT NULL
);

INSERT INTO rollup_lag (slot, events) SELECT slot, 0 FROM generate_series(0, 255) AS slot;

CREATE FUNCTION keep_rollup_lag() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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

-- A transaction writes the days of the rollups last, and of the ledger it waits for nobody's rows once its own
-- are inserted, so nobody who holds a slot waits for somebody who wants it.
CREATE TRIGGER rollup_lag_ledger_insert AFTER INSERT ON usage_event
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
CREATE TRIGGER rollup_lag_ledger_delete AFTER DELETE ON usage_event
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
CREATE TRIGGER rollup_lag_day_insert AFTER INSERT ON rollup_day
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
CREATE TRIGGER rollup_lag_day_update AFTER UPDATE ON rollup_day
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();
