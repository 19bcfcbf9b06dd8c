ALTER TABLE place_to_return DROP COLUMN counted, DROP COLUMN created_at;
ALTER TABLE persona DROP COLUMN counted;
