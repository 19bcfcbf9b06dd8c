ALTER TABLE account_settings DROP COLUMN zone_version;
