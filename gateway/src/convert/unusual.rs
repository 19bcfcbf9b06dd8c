//! Words of anomalies and forecasts.

use octroi_proto::{common, usage};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

answered! {
    /// How use leaves what is expected.
    AnomalyKind of common::v1::AnomalyKind {
        /// More was used.
        Spike,
        /// Less was used.
        Drop,
    }
}

asked! {
    /// Which anomalies are asked for.
    AskedAnomalyKind to common::v1::AnomalyKind {
        /// More was used than is expected.
        Spike = "spike",
        /// Less was used than is expected.
        Drop = "drop",
    }
}

answered! {
    /// What a forecast is made from.
    ForecastMethod of usage::v1::ForecastMethod {
        /// The weeks before, each as if it came again, at the pace of the present one.
        Weeks,
        /// The average pace so far.
        Average,
    }
}
