-- How far the service's clock is from the primary's, in microseconds: one row, which `octroi clock` moves and
-- which every process of a sandbox reads each second. Outside of a sandbox nobody looks.
CREATE TABLE test_clock (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- A hundred years to either side.
    offset_us bigint NOT NULL DEFAULT 0 CHECK (abs(offset_us) <= 3155760000000000)
);

INSERT INTO test_clock DEFAULT VALUES;
