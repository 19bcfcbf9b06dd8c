ALTER TABLE quota_window DROP COLUMN counted_from;
