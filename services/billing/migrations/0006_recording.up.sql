-- When a decision about a metric is answered: once the ledger has it, or before.
ALTER TABLE metric
    ADD COLUMN recording text NOT NULL DEFAULT 'durable' CHECK (recording IN ('durable', 'buffered'));
