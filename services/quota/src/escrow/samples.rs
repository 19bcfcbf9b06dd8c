//! Plans that many accounts have in common: a million of them take the memory of one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use octroi_core::{PlanSlug, Stage};

use crate::domain::plan::{Plan, PlannedMetric};

/// The most plans and stages of which one account's is remembered.
const SAMPLES_MAX: usize = 10_000;

/// A plan with its version, and where an account stands with its payments.
type Kind = (PlanSlug, u32, Stage);

/// The metrics that the latest account of each kind had.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<HashMap<Kind, Arc<[PlannedMetric]>>>);

impl Samples {
    /// The same plan, in one place with that of the account before it where the two are the same. Accounts whose windows
    /// begin at other times have their own.
    pub(super) fn share(&self, plan: Plan) -> Plan {
        let terms = &plan.terms;
        let key = (terms.plan.clone(), terms.plan_version, terms.stage);
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match samples.get(&key) {
            Some(sample) => plan.sharing_with(sample),
            None => plan,
        };
        if samples.len() < SAMPLES_MAX || samples.contains_key(&key) {
            samples.insert(key, Arc::clone(&plan.metrics));
        }
        plan
    }
}
