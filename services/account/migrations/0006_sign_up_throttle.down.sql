DELETE FROM sign_in_throttle WHERE subject = 'sign_up';
ALTER TABLE sign_in_throttle
    DROP CONSTRAINT sign_in_throttle_subject_check,
    ADD CONSTRAINT sign_in_throttle_subject_check
        CHECK (subject IN ('email_at_address', 'email', 'address'));
