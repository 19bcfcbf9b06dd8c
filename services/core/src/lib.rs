//! Pure nouns of the domain: ids, money, periods, quantities, the clock and the kinds of errors.
//!
//! Nothing here does I/O, and nothing here but [`clock`] knows what time it is.

pub mod clock;
pub mod entitlement;
pub mod event_time;
pub mod id;
pub mod kind;
pub mod metric;
pub mod money;
mod named;
pub mod period;
pub mod quantity;
pub mod slice;
pub mod source;

pub use clock::Clock;
pub use entitlement::{Entitlements, FeaturePlans, Limit, LimitMode, Stage, UnreachablePolicy};
pub use id::{
    AccountId, EventId, FeatureSlug, InvalidId, MetricSlug, PlanSlug, PropertyKey, RequestId, Source,
};
pub use kind::{ErrorKind, FieldViolation, ServiceError, Violations};
pub use metric::{Aggregation, Metric, MetricKind, Recording};
pub use money::Money;
pub use period::{Anchor, Period, Window};
pub use quantity::Units;
pub use slice::{Charge, SliceId};
