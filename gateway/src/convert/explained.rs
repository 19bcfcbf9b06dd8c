//! Words of explanations.

use octroi_proto::{common, quota};
use serde::Serialize;
use utoipa::ToSchema;

answered! {
    /// What a decision was about.
    DecisionAction of quota::v1::DecisionAction {
        /// A look; nothing was taken.
        Peek,
        /// Amounts were to be taken.
        Consume,
        /// Amounts were to be held.
        Reserve,
    }
}

answered! {
    /// How much of a decision is still known.
    ExplanationDetail of quota::v1::ExplanationDetail {
        /// All of it.
        Full,
        /// The answer, but not what its limits were made of.
        Answer,
        /// Whether it was allowed, and no more.
        Outcome,
    }
}

answered! {
    /// How a hold ended.
    HoldEndState of quota::v1::HoldEndState {
        /// What was used of it was recorded.
        Committed,
        /// Nothing of it was used.
        Released,
    }
}

answered! {
    /// When a decision about a metric is answered.
    Recording of common::v1::Recording {
        /// Once the ledger has it.
        Durable,
        /// At once; the ledger is told a little later.
        Buffered,
    }
}
