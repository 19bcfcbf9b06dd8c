-- Decisions that people ask about later (denied, degraded, held, under an override) and how holds ended, for 35 days.
CREATE TABLE decision (
    -- The decision's id as a number; the hold's, where the row says how one ended.
    id         uuid NOT NULL,
    account_id text NOT NULL,
    decided_at timestamptz NOT NULL,
    record     jsonb NOT NULL,
    -- The ids are no secret, so accounts may have the same by design of somebody.
    PRIMARY KEY (id, account_id)
);

-- The oldest are deleted, some at a time.
CREATE INDEX decision_by_time ON decision (decided_at);
