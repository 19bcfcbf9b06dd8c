-- A kept slice whose owner did not settle it in its time: what the owner answered and did not tell is not known, so all
-- of it counts, whoever settles it to the end.
ALTER TABLE slice ADD COLUMN abandoned boolean NOT NULL DEFAULT false;
