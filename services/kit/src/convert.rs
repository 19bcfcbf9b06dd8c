//! What more than one service reads from and writes to the contracts of `octroi.common.v1`.

use jiff::Timestamp;
use octroi_core::{
    Aggregation, Entitlements, FeaturePlans, FeatureSlug, Limit, LimitMode, Metric, MetricKind, MetricSlug,
    Period, PlanSlug, PropertyKey, Recording, Stage, Units, UnreachablePolicy, Violations,
    entitlement::DEFAULT_THRESHOLDS,
};
use octroi_proto::common::v1 as proto;

/// An instant; none and a violation where it lies outside the years 1 to 9999.
pub fn from_proto_time(
    field: &str,
    time: &prost_types::Timestamp,
    violations: &mut Violations,
) -> Option<Timestamp> {
    let whole = (0..1_000_000_000).contains(&time.nanos) && time.seconds >= -62_135_596_800;
    let at = whole
        .then(|| Timestamp::new(time.seconds, time.nanos).ok())
        .flatten();
    if at.is_none() {
        violations.add(field, "must be an instant of the years 1 to 9999");
    }
    at
}

/// An instant, on the wire.
#[must_use]
pub fn to_proto_time(at: Timestamp) -> prost_types::Timestamp {
    let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

/// Pairs of the domain's enum and the contract's, read both ways.
macro_rules! enum_conversion {
    ($from:ident, $to:ident, $domain:ident, $proto:path, { $($ours:ident => $theirs:ident),* $(,)? }) => {
        #[doc = concat!("The `", stringify!($domain), "` that a contract names; none where it names none.")]
        #[must_use]
        pub fn $from(value: i32) -> Option<$domain> {
            use $proto as Proto;
            match Proto::try_from(value).ok()? {
                $(Proto::$theirs => Some($domain::$ours),)*
                Proto::Unspecified => None,
            }
        }

        #[doc = concat!("A `", stringify!($domain), "`, on the wire.")]
        #[must_use]
        pub fn $to(value: $domain) -> i32 {
            use $proto as Proto;
            match value {
                $($domain::$ours => Proto::$theirs.into(),)*
            }
        }
    };
}

enum_conversion!(from_proto_period, to_proto_period, Period, proto::Period, {
    Hour => Hour, Day => Day, Month => Month, Lifetime => Lifetime,
});
enum_conversion!(from_proto_metric_kind, to_proto_metric_kind, MetricKind, proto::MetricKind, {
    Flow => Flow, Level => Level,
});
enum_conversion!(from_proto_aggregation, to_proto_aggregation, Aggregation, proto::Aggregation, {
    Sum => Sum, Count => Count, Max => Max, Unique => Unique, Latest => Latest,
});
enum_conversion!(from_proto_recording, to_proto_recording, Recording, proto::Recording, {
    Durable => Durable, Buffered => Buffered,
});
enum_conversion!(from_proto_mode, to_proto_mode, LimitMode, proto::LimitMode, {
    Hard => Hard, Soft => Soft, Shadow => Shadow,
});
enum_conversion!(from_proto_policy, to_proto_policy, UnreachablePolicy, proto::UnreachablePolicy, {
    Deny => Deny, Lease => Lease, Allow => Allow,
});
enum_conversion!(from_proto_stage, to_proto_stage, Stage, proto::Stage, {
    Current => Current, Grace => Grace, Restricted => Restricted, ReadOnly => ReadOnly, Suspended => Suspended,
});

const ONE_OF: &str = "must be one of the named values";

/// A metric of the catalog.
pub fn from_proto_metric(field: &str, metric: &proto::Metric, violations: &mut Violations) -> Option<Metric> {
    let slug = violations.take(format!("{field}.slug"), MetricSlug::parse(&metric.slug));
    let kind = violations.take(
        format!("{field}.kind"),
        from_proto_metric_kind(metric.kind).ok_or(ONE_OF),
    );
    let aggregation = violations.take(
        format!("{field}.aggregation"),
        from_proto_aggregation(metric.aggregation).ok_or(ONE_OF),
    );
    let property = (!metric.property.is_empty())
        .then(|| violations.take(format!("{field}.property"), PropertyKey::parse(&metric.property)))
        .flatten();
    Some(Metric {
        slug: slug?,
        kind: kind?,
        aggregation: aggregation?,
        display_name_en: metric.display_name_en.clone(),
        display_name_fr: metric.display_name_fr.clone(),
        unit: metric.unit.clone(),
        write: metric.write,
        recording: from_proto_recording(metric.recording).unwrap_or_default(),
        property,
    })
}

/// A metric of the catalog, on the wire.
#[must_use]
pub fn to_proto_metric(metric: &Metric) -> proto::Metric {
    proto::Metric {
        slug: metric.slug.to_string(),
        kind: to_proto_metric_kind(metric.kind),
        aggregation: to_proto_aggregation(metric.aggregation),
        display_name_en: metric.display_name_en.clone(),
        display_name_fr: metric.display_name_fr.clone(),
        unit: metric.unit.clone(),
        write: metric.write,
        recording: to_proto_recording(metric.recording),
        property: metric
            .property
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

/// A limit.
pub fn from_proto_limit(field: &str, limit: &proto::Limit, violations: &mut Violations) -> Option<Limit> {
    let metric = violations.take(format!("{field}.metric"), MetricSlug::parse(&limit.metric));
    let period = violations.take(
        format!("{field}.period"),
        from_proto_period(limit.period).ok_or(ONE_OF),
    );
    let amount = violations.take(format!("{field}.amount"), Units::new(limit.amount));
    let mode = violations.take(format!("{field}.mode"), from_proto_mode(limit.mode).ok_or(ONE_OF));
    let ceiling = violations.take(
        format!("{field}.ceiling"),
        limit.ceiling.map(Units::new).transpose(),
    );
    let mut thresholds = limit.thresholds.clone();
    if thresholds.is_empty() {
        thresholds = DEFAULT_THRESHOLDS.to_vec();
    }
    if thresholds.len() > 10 || thresholds.iter().any(|percent| !(1..=1000).contains(percent)) {
        violations.add(
            format!("{field}.thresholds"),
            "must be up to 10 shares of 1 to 1000 percent",
        );
    }
    thresholds.sort_unstable();
    thresholds.dedup();
    Some(Limit {
        metric: metric?,
        period: period?,
        amount: amount?,
        mode: mode?,
        ceiling: ceiling?,
        unreachable_policy: from_proto_policy(limit.unreachable_policy).unwrap_or(UnreachablePolicy::Deny),
        thresholds,
    })
}

/// A limit, on the wire.
#[must_use]
pub fn to_proto_limit(limit: &Limit) -> proto::Limit {
    proto::Limit {
        metric: limit.metric.to_string(),
        period: to_proto_period(limit.period),
        amount: limit.amount.get(),
        mode: to_proto_mode(limit.mode),
        ceiling: limit.ceiling.map(Units::get),
        unreachable_policy: to_proto_policy(limit.unreachable_policy),
        thresholds: limit.thresholds.clone(),
    }
}

/// What a plan entitles to.
pub fn from_proto_entitlements(
    field: &str,
    entitlements: &proto::Entitlements,
    violations: &mut Violations,
) -> Option<Entitlements> {
    let plan = violations.take(format!("{field}.plan"), PlanSlug::parse(&entitlements.plan));
    let mut limits = Vec::with_capacity(entitlements.limits.len());
    for (index, limit) in entitlements.limits.iter().enumerate() {
        limits.extend(from_proto_limit(
            &format!("{field}.limits[{index}]"),
            limit,
            violations,
        ));
    }
    let mut features = Vec::with_capacity(entitlements.features.len());
    for (index, feature) in entitlements.features.iter().enumerate() {
        features.extend(violations.take(format!("{field}.features[{index}]"), FeatureSlug::parse(feature)));
    }
    let mut named: Vec<_> = limits.iter().map(|limit| (&limit.metric, limit.period)).collect();
    named.sort_unstable();
    if named.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        violations.add(
            format!("{field}.limits"),
            "must name a metric and period at most once",
        );
    }
    Some(Entitlements {
        plan: plan?,
        plan_version: entitlements.plan_version,
        limits,
        features,
    })
}

/// What a plan entitles to, on the wire.
#[must_use]
pub fn to_proto_entitlements(entitlements: &Entitlements) -> proto::Entitlements {
    proto::Entitlements {
        plan: entitlements.plan.to_string(),
        plan_version: entitlements.plan_version,
        limits: entitlements.limits.iter().map(to_proto_limit).collect(),
        features: entitlements.features.iter().map(ToString::to_string).collect(),
    }
}

/// A feature and its plans, on the wire.
#[must_use]
pub fn to_proto_feature_plans(feature: &FeaturePlans) -> proto::FeaturePlans {
    proto::FeaturePlans {
        feature: feature.feature.to_string(),
        plans: feature.plans.iter().map(ToString::to_string).collect(),
    }
}

/// A feature and its plans.
pub fn from_proto_feature_plans(
    field: &str,
    feature: &proto::FeaturePlans,
    violations: &mut Violations,
) -> Option<FeaturePlans> {
    let slug = violations.take(format!("{field}.feature"), FeatureSlug::parse(&feature.feature));
    let mut plans = Vec::with_capacity(feature.plans.len());
    for (index, plan) in feature.plans.iter().enumerate() {
        plans.extend(violations.take(format!("{field}.plans[{index}]"), PlanSlug::parse(plan)));
    }
    Some(FeaturePlans {
        feature: slug?,
        plans,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_the_wire_before_and_after_1970() {
        for text in [
            "2026-01-31T23:59:59.999999Z",
            "1969-12-31T23:59:59.5Z",
            "0001-01-01T00:00:00Z",
        ] {
            let at: Timestamp = text.parse().expect("an instant");
            let mut violations = Violations::default();
            assert_eq!(
                from_proto_time("t", &to_proto_time(at), &mut violations),
                Some(at),
                "{violations}"
            );
        }
        for (seconds, nanos) in [(i64::MAX, 0), (0, -1), (0, 1_000_000_000), (-62_135_596_801, 0)] {
            let mut violations = Violations::default();
            assert_eq!(
                from_proto_time("t", &prost_types::Timestamp { seconds, nanos }, &mut violations),
                None
            );
            assert_eq!(violations.first_field(), Some("t"));
        }
    }

    #[test]
    fn entitlements_survive_the_wire_and_a_limit_named_twice_is_refused() {
        let limit = proto::Limit {
            metric: "api.requests".into(),
            period: proto::Period::Hour.into(),
            amount: 100,
            mode: proto::LimitMode::Hard.into(),
            ceiling: None,
            unreachable_policy: proto::UnreachablePolicy::Deny.into(),
            thresholds: vec![80, 95, 100],
        };
        let wire = proto::Entitlements {
            plan: "pro".into(),
            plan_version: 3,
            limits: vec![limit.clone()],
            features: vec!["premium.templates".into()],
        };
        let mut violations = Violations::default();
        let read = from_proto_entitlements("e", &wire, &mut violations).expect("good entitlements");
        assert_eq!(to_proto_entitlements(&read), wire);
        let twice = proto::Entitlements {
            limits: vec![limit.clone(), limit],
            ..wire
        };
        let _ = from_proto_entitlements("e", &twice, &mut violations);
        assert_eq!(violations.first_field(), Some("e.limits"));
    }
}
