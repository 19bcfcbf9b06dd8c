ALTER TABLE account_state DROP COLUMN zone_version;
