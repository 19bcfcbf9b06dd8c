ALTER TABLE correction DROP COLUMN message_id;
ALTER TABLE ledger DROP COLUMN message_id;
