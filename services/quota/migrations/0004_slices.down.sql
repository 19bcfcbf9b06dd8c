DROP TABLE applied_event;
DROP TABLE replica;
DROP TABLE slice;
ALTER TABLE metric DROP COLUMN recording;
ALTER TABLE quota_window
    DROP COLUMN open_cap, DROP COLUMN held, DROP COLUMN charged, DROP COLUMN overrun, DROP COLUMN returned;
DROP TABLE limit_override;
DROP TABLE account_state;
