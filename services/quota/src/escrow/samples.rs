//! Plans that many accounts have in common: a million of them take the memory of one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use octroi_core::{Period, PlanSlug, Stage};

use crate::domain::plan::{Plan, PlannedMetric};

/// How many kinds are remembered. Beyond that they are begun anew: most are of windows that have ended.
const KINDS_MAX: usize = 1_000;

/// A plan with its version, where an account stands with its payments, and where its windows began.
type Kind = (PlanSlug, u32, Stage, Vec<(Period, Timestamp)>);

/// The metrics that the first account of each kind had.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<HashMap<Kind, Arc<[PlannedMetric]>>>);

impl Samples {
    /// The same plan, in one place with that of another account where the two are the same. Accounts with limits of their
    /// own, or whose windows begin at other times, have another.
    pub(super) fn share(&self, plan: Plan) -> Plan {
        let kind = kind(&plan);
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sample) = samples.get(&kind) {
            return plan.sharing_with(sample);
        }
        if samples.len() >= KINDS_MAX {
            samples.clear();
        }
        samples.insert(kind, Arc::clone(&plan.metrics));
        plan
    }
}

fn kind(plan: &Plan) -> Kind {
    let keys = plan.metrics.iter().flat_map(|planned| &planned.keys);
    let mut began: Vec<(Period, Timestamp)> = keys.map(|key| (key.period, key.start)).collect();
    began.sort_unstable();
    began.dedup();
    let terms = &plan.terms;
    (terms.plan.clone(), terms.plan_version, terms.stage, began)
}
