ALTER TABLE metric DROP COLUMN property;
