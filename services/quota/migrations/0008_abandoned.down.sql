ALTER TABLE slice DROP COLUMN abandoned;
