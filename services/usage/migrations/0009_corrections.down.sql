DROP TABLE rollup_pending;
ALTER TABLE rollup_quarter
    ADD CONSTRAINT rollup_quarter_amount_check CHECK (amount >= 0),
    ADD CONSTRAINT rollup_quarter_events_check CHECK (events >= 0);
ALTER TABLE rollup_day
    ADD CONSTRAINT rollup_day_amount_check CHECK (amount >= 0),
    ADD CONSTRAINT rollup_day_events_check CHECK (events >= 0);
DROP VIEW effective_event;
DROP TABLE correction;
