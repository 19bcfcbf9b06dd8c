-- Whether Octroi knows of it. A program that dies between writing a persona and hearing that it is counted leaves it to the
-- next, which counts it under the same name: the persona's id.
-- Programs of the version before say nothing of it, and count by themselves.
ALTER TABLE persona ADD COLUMN counted boolean NOT NULL DEFAULT true;
CREATE INDEX persona_uncounted ON persona (created_at) WHERE NOT counted;

ALTER TABLE place_to_return
    ADD COLUMN counted boolean NOT NULL DEFAULT true,
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
