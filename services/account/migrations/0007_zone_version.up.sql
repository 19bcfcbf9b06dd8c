-- Grows with every change of the zone, so that whoever hears of two of them knows which is the later.
ALTER TABLE account_settings ADD COLUMN zone_version bigint NOT NULL DEFAULT 0;
