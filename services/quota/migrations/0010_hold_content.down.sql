ALTER TABLE slice DROP COLUMN content_hash;
