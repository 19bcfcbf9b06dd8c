-- Of the zone that the calendar follows: what is told of an older one comes late.
ALTER TABLE account_state ADD COLUMN zone_version bigint NOT NULL DEFAULT 0;
