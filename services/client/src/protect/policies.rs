//! What the limits of accounts say about a time when nobody can be asked, as it was in the last answers.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use octroi_proto::{
    common::v1::UnreachablePolicy,
    quota::v1::{CheckQuotaResponse, DenialReason},
};

/// How many accounts are remembered, at least; at most twice as many are.
const ACCOUNTS: usize = 50_000;

/// What is known of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Whether each metric that was asked about goes on without being asked about.
    metrics: Vec<(String, bool)>,
    /// Whether the plan has each feature that was asked about.
    features: Vec<(String, bool)>,
}

impl Known {
    /// Whether all of these go on; none where some of it was never asked about.
    fn go_on<'a>(&self, metrics: impl Iterator<Item = &'a str>, features: &[String]) -> Option<bool> {
        let find = |list: &[(String, bool)], name: &str| -> Option<bool> {
            list.iter()
                .find(|(known, _)| known == name)
                .map(|(_, goes_on)| *goes_on)
        };
        let metrics = metrics.map(|metric| find(&self.metrics, metric));
        let features = features.iter().map(|feature| find(&self.features, feature));
        // One that says no is enough, whatever the others would say.
        let all: Vec<Option<bool>> = metrics.chain(features).collect();
        if all.contains(&Some(false)) {
            return Some(false);
        }
        all.into_iter().collect::<Option<Vec<bool>>>().map(|_| true)
    }

    fn note(list: &mut Vec<(String, bool)>, name: &str, value: bool) {
        match list.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => list.push((name.to_owned(), value)),
        }
    }
}

/// What was learnt of accounts. Whoever is not asked about for long is forgotten.
#[derive(Debug, Default)]
pub(super) struct Policies(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    recent: HashMap<String, Known>,
    older: HashMap<String, Known>,
}

impl Policies {
    /// Learns from a decision about some metrics and features. What was not asked for it says nothing of.
    pub(super) fn learn<'a>(
        &self,
        account: &str,
        metrics: impl Iterator<Item = &'a str>,
        features: &[String],
        decision: &CheckQuotaResponse,
    ) {
        let mut generations = self.lock();
        let known = generations.of(account);
        for metric in metrics {
            let mut limits = decision.limits.iter().filter(|limit| limit.metric == metric);
            let allow = i32::from(UnreachablePolicy::Allow);
            // What nothing limits goes on.
            let goes_on = limits.all(|limit| limit.unreachable_policy == allow);
            Known::note(&mut known.metrics, metric, goes_on);
        }
        let lacks = decision.reason == i32::from(DenialReason::SubscriptionRequired);
        for feature in features {
            let is_missing = decision
                .missing_features
                .iter()
                .any(|missing| missing.feature == *feature);
            Known::note(&mut known.features, feature, !(lacks && is_missing));
        }
    }

    /// Whether the account may have these while nobody can be asked; none where it was never seen to ask.
    pub(super) fn go_on<'a>(
        &self,
        account: &str,
        metrics: impl Iterator<Item = &'a str>,
        features: &[String],
    ) -> Option<bool> {
        let generations = self.lock();
        let known = generations
            .recent
            .get(account)
            .or_else(|| generations.older.get(account));
        known?.go_on(metrics, features)
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn of(&mut self, account: &str) -> &mut Known {
        if !self.recent.contains_key(account) {
            if self.recent.len() >= ACCOUNTS {
                self.older = std::mem::take(&mut self.recent);
            }
            let known = self.older.remove(account).unwrap_or_default();
            self.recent.insert(account.to_owned(), known);
        }
        let known = self.recent.get_mut(account);
        known.unwrap_or_else(|| unreachable!("it was found or added"))
    }
}

#[cfg(test)]
mod tests {
    use octroi_proto::{common::v1::FeaturePlans, quota::v1::LimitStatus};

    use super::*;

    /// What is asked for.
    struct Asked {
        metrics: Vec<&'static str>,
        features: Vec<String>,
    }

    fn rule(metrics: &[&'static str], features: &[&str]) -> Asked {
        Asked {
            metrics: metrics.to_vec(),
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        }
    }

    impl Policies {
        fn learn_of(&self, account: &str, asked: &Asked, decision: &CheckQuotaResponse) {
            self.learn(account, asked.metrics.iter().copied(), &asked.features, decision);
        }

        fn go_on_with(&self, account: &str, asked: &Asked) -> Option<bool> {
            self.go_on(account, asked.metrics.iter().copied(), &asked.features)
        }
    }

    fn decision(limits: &[(&str, UnreachablePolicy)]) -> CheckQuotaResponse {
        let limit = |(metric, policy): &(&str, UnreachablePolicy)| LimitStatus {
            metric: (*metric).to_owned(),
            unreachable_policy: (*policy).into(),
            ..LimitStatus::default()
        };
        CheckQuotaResponse {
            allowed: true,
            limits: limits.iter().map(limit).collect(),
            ..CheckQuotaResponse::default()
        }
    }

    #[test]
    fn an_account_goes_on_where_each_of_its_limits_says_so() {
        use UnreachablePolicy::{Allow, Deny, Lease, Unspecified};
        for (limits, expected) in [
            (&[("a", Allow)][..], true),
            (&[("a", Allow), ("a", Allow)], true),
            (&[("a", Allow), ("a", Deny)], false),
            // What this program could spend it does not have.
            (&[("a", Lease)], false),
            // A service that is older than this client does not say.
            (&[("a", Unspecified)], false),
            (&[], true),
        ] {
            let policies = Policies::default();
            policies.learn_of("acme", &rule(&["a"], &[]), &decision(limits));
            assert_eq!(
                policies.go_on_with("acme", &rule(&["a"], &[])),
                Some(expected),
                "{limits:?}"
            );
        }
    }

    #[test]
    fn nothing_is_known_of_who_was_never_seen_or_of_what_was_never_asked() {
        let policies = Policies::default();
        policies.learn_of("acme", &rule(&["a"], &[]), &decision(&[]));
        assert_eq!(policies.go_on_with("umbrella", &rule(&["a"], &[])), None);
        assert_eq!(policies.go_on_with("acme", &rule(&["a", "b"], &[])), None);
        assert_eq!(policies.go_on_with("acme", &rule(&["a"], &["f"])), None);
        policies.learn_of(
            "acme",
            &rule(&["b"], &[]),
            &decision(&[("b", UnreachablePolicy::Deny)]),
        );
        assert_eq!(
            policies.go_on_with("acme", &rule(&["a", "b", "c"], &[])),
            Some(false)
        );
    }

    #[test]
    fn a_feature_that_the_plan_lacks_is_lacked_then_too_until_it_was_bought() {
        let policies = Policies::default();
        let lacks = CheckQuotaResponse {
            reason: DenialReason::SubscriptionRequired.into(),
            missing_features: vec![FeaturePlans {
                feature: "f".to_owned(),
                ..FeaturePlans::default()
            }],
            ..CheckQuotaResponse::default()
        };
        policies.learn_of("acme", &rule(&[], &["f", "g"]), &lacks);
        assert_eq!(policies.go_on_with("acme", &rule(&[], &["f"])), Some(false));
        assert_eq!(policies.go_on_with("acme", &rule(&[], &["g"])), Some(true));
        policies.learn_of("acme", &rule(&[], &["f"]), &decision(&[]));
        assert_eq!(policies.go_on_with("acme", &rule(&[], &["f"])), Some(true));
    }

    #[test]
    fn who_is_asked_about_is_remembered_and_the_others_are_forgotten() {
        let policies = Policies::default();
        let (rule, decision) = (rule(&["a"], &[]), decision(&[]));
        policies.learn_of("forgotten", &rule, &decision);
        for turn in 0..3 {
            for number in 0..ACCOUNTS {
                policies.learn_of(&format!("{turn}-{number}"), &rule, &decision);
                if number % 1_000 == 0 {
                    policies.learn_of("acme", &rule, &decision);
                }
            }
        }
        assert_eq!(policies.go_on_with("forgotten", &rule), None);
        assert_eq!(policies.go_on_with("acme", &rule), Some(true));
        let generations = policies.lock();
        assert!(generations.recent.len() <= ACCOUNTS && generations.older.len() <= ACCOUNTS);
    }
}
