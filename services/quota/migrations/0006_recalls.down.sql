DROP INDEX slice_recalled;
ALTER TABLE slice DROP COLUMN recalled;
