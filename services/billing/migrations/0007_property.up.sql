-- The property whose distinct values are counted, of a metric whose aggregation is unique.
ALTER TABLE metric ADD COLUMN property text;
