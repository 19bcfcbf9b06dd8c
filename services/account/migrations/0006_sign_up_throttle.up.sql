-- Sign-ups are counted by client address, beside the failures of signing in.
ALTER TABLE sign_in_throttle
    DROP CONSTRAINT sign_in_throttle_subject_check,
    ADD CONSTRAINT sign_in_throttle_subject_check
        CHECK (subject IN ('email_at_address', 'email', 'address', 'sign_up'));
