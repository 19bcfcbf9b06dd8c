-- What was in the ledger before the triggers counted. One statement sees one moment of all three tables, so that
-- commits go on meanwhile: what comes after that moment is counted by the triggers alone.
UPDATE rollup_lag
SET events = events
    + (SELECT count(*) FROM usage_event)
    - (SELECT coalesce(sum(day.events), 0) FROM rollup_day AS day)
    - (SELECT sum(lag.events) FROM rollup_lag AS lag)
WHERE slot = 0;
