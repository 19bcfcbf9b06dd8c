//! What the sources of events begin with that quota records. Quota and the ledger agree on them here: nobody else may
//! record under them, so that no caller can take quota's place.

/// A check that was allowed, or denied for good.
pub const DECISION: &str = "decision:";
/// The commit of a hold.
pub const HOLD: &str = "hold:";
/// What was used without asking.
pub const RECORD: &str = "record:";
/// What was given back.
pub const RETURN: &str = "return:";

/// All of them.
pub const OF_QUOTA: [&str; 4] = [DECISION, HOLD, RECORD, RETURN];
