ALTER TABLE metric DROP COLUMN recording;
