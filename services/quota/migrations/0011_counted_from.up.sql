-- From when on what is recorded counts in a window: a limit that begins in the middle of one counts nothing of before, so
-- nothing of that comes back either where it is corrected. Of windows that are there already everything counts.
ALTER TABLE quota_window ADD COLUMN counted_from timestamptz NOT NULL DEFAULT '0001-01-01 00:00:00+00';
