-- Whoever was told of a threshold is told once that it does not stand any more.
ALTER TABLE crossed_threshold
    ADD COLUMN looked_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN back_at   timestamptz;
-- Thresholds that people were told of and that still stand, those first that were looked at longest ago.
CREATE INDEX crossed_threshold_standing ON crossed_threshold (looked_at) WHERE notified AND back_at IS NULL;
-- What was told of windows that have ended is not told of again.
UPDATE crossed_threshold AS c SET back_at = now() FROM quota_window AS w
WHERE w.account_id = c.account_id AND w.metric = c.metric AND w.period = c.period AND w.start_at = c.start_at
  AND w.end_at <= now();
