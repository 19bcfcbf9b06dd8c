ALTER TABLE place_to_return DROP COLUMN counted;
ALTER TABLE persona DROP COLUMN counted;
