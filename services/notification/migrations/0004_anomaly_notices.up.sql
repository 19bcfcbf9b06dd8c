-- Notices about use out of the ordinary.
ALTER TABLE notice DROP CONSTRAINT notice_kind_check;
ALTER TABLE notice ADD CONSTRAINT notice_kind_check
    CHECK (kind IN ('quota.threshold_crossed', 'usage.anomaly_detected')) NOT VALID;
ALTER TABLE notice VALIDATE CONSTRAINT notice_kind_check;
