DROP INDEX crossed_threshold_standing;
ALTER TABLE crossed_threshold DROP COLUMN looked_at, DROP COLUMN back_at;
