-- The message that told of an event, and of a correction: whoever hears of a correction waits until they have followed what it
-- corrects. None of what was written down before, or by programs of the version before.
ALTER TABLE ledger ADD COLUMN message_id uuid;
ALTER TABLE correction ADD COLUMN message_id uuid;
