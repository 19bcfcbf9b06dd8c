-- A slice that its own replica alone may settle, and that another one asks it to: there is no room for others.
ALTER TABLE slice ADD COLUMN recalled boolean NOT NULL DEFAULT false;
CREATE INDEX slice_recalled ON slice (owner) WHERE recalled AND state = 'open';
