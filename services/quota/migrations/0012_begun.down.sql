-- When limits began is lost: of those that are there then, all counts since ever.
ALTER TABLE quota_window ALTER COLUMN counted_from SET DEFAULT '0001-01-01 00:00:00+00';
ALTER TABLE catalog DROP COLUMN begun;
ALTER TABLE entitlement DROP COLUMN begun;
