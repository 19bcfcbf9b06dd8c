-- Since when limits count, so that the correction of an event changes only windows that the event counted in: metric, period
-- and instant of each limit in force. One that is not named counts since ever, as those that are there already do.
ALTER TABLE entitlement ADD COLUMN begun jsonb NOT NULL DEFAULT '[]';
-- Of the default plan's limits.
ALTER TABLE catalog ADD COLUMN begun jsonb NOT NULL DEFAULT '[]';

-- Read by programs of the version before, and written no more. A later version drops it.
ALTER TABLE quota_window ALTER COLUMN counted_from SET DEFAULT now();
