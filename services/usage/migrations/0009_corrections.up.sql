-- Corrections of usage events, and how far the rollups are.

-- What events come to where that is not what was recorded: one row a correction, never changed. An event that has rows here
-- comes to what the newest says. Its rows go with its month.
CREATE TABLE correction (
    account_id      text NOT NULL,
    metric          text NOT NULL,
    event_at        timestamptz NOT NULL,
    -- The event's, in the ledger.
    ledger_sequence bigint NOT NULL,
    -- Counted from 1.
    revision        integer NOT NULL CHECK (revision >= 1),
    source          text NOT NULL,
    event_id        text NOT NULL,
    origin          text NOT NULL CHECK (origin IN ('direct', 'decision', 'return')),
    correction_id   text NOT NULL,
    amount_before   bigint NOT NULL CHECK (amount_before BETWEEN 0 AND 9007199254740991),
    voided_before   boolean NOT NULL,
    amount_after    bigint NOT NULL CHECK (amount_after BETWEEN 0 AND 9007199254740991),
    voided_after    boolean NOT NULL,
    reason          text NOT NULL,
    -- Who corrected it.
    actor           text NOT NULL,
    corrected_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, metric, event_at, ledger_sequence, revision)
);

CREATE INDEX correction_by_event_time ON correction (event_at);

-- The ledger as it comes to with all corrections; what was voided is not there.
CREATE VIEW effective_event AS
SELECT e.account_id, e.metric, e.event_at, e.sequence, e.source, e.event_id, coalesce(c.amount_after, e.amount) AS amount,
       e.amount AS recorded_amount, e.charged_amount, e.recorded_at, e.origin, e.backfill, e.properties,
       coalesce(c.revision, 0) AS revision
FROM ledger AS e
LEFT JOIN LATERAL (SELECT amount_after, voided_after, revision FROM correction AS c
                   WHERE c.account_id = e.account_id AND c.metric = e.metric AND c.event_at = e.event_at
                     AND c.ledger_sequence = e.sequence
                   ORDER BY c.revision DESC LIMIT 1) AS c ON true
WHERE c.voided_after IS NOT TRUE;

-- A correction may come to the rollups before its event does, so a bucket may lack for a moment what is taken off it.
ALTER TABLE rollup_quarter
    DROP CONSTRAINT rollup_quarter_amount_check,
    DROP CONSTRAINT rollup_quarter_events_check;
ALTER TABLE rollup_day
    DROP CONSTRAINT rollup_day_amount_check,
    DROP CONSTRAINT rollup_day_events_check;

-- Commits that the rollups do not have yet.
CREATE TABLE rollup_pending (
    ledger_transaction bigint NOT NULL PRIMARY KEY,
    -- The message that tells the rollups of it.
    message_id         uuid NOT NULL,
    recorded_at        timestamptz NOT NULL
);

CREATE INDEX rollup_pending_by_time ON rollup_pending (recorded_at);
