DROP TABLE rollup_pending;
-- Not of what is there: a bucket that got a correction before its event is below 0 until that comes.
ALTER TABLE rollup_quarter
    ADD CONSTRAINT rollup_quarter_amount_check CHECK (amount >= 0) NOT VALID,
    ADD CONSTRAINT rollup_quarter_events_check CHECK (events >= 0) NOT VALID;
ALTER TABLE rollup_day
    ADD CONSTRAINT rollup_day_amount_check CHECK (amount >= 0) NOT VALID,
    ADD CONSTRAINT rollup_day_events_check CHECK (events >= 0) NOT VALID;
DROP VIEW effective_event;
DROP TABLE correction;
