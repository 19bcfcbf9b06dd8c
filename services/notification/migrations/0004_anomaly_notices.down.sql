-- Notices that the version before cannot read go, with what was sent of them.
SELECT set_config('octroi.account_id', '*', true);
DELETE FROM delivery WHERE email_id IN
    (SELECT email_id FROM email JOIN notice USING (notice_id) WHERE notice.kind = 'usage.anomaly_detected');
DELETE FROM email WHERE notice_id IN (SELECT notice_id FROM notice WHERE kind = 'usage.anomaly_detected');
DELETE FROM mailing WHERE notice_id IN (SELECT notice_id FROM notice WHERE kind = 'usage.anomaly_detected');
DELETE FROM notice WHERE kind = 'usage.anomaly_detected';
ALTER TABLE notice DROP CONSTRAINT notice_kind_check;
ALTER TABLE notice ADD CONSTRAINT notice_kind_check CHECK (kind IN ('quota.threshold_crossed'));
