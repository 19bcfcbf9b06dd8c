//! Faults under load, and rules that must hold all the same.
//!
//! A [`site`] is a fleet with several replicas of quota and servers of its own, with a [`proxy`] in front of each. A
//! [`run`] has an account of its own at its limit. [`load`] asks, retries at other replicas as a good client does, and
//! writes into the log of the [`oracle`] what was sent and answered, and when. [`scenarios`] break things meanwhile, as
//! a seed says. After everything is healed each request is asked until it is answered, and the [`rules`] compare the log
//! with what the [`books`] have. Every rule is a function of what was seen, so that a log that breaks it can be written
//! by hand. The [`report`] has a row a rule.
//!
//! The same of what is recorded, whoever asked for it or not, is in [`usage`].

pub mod books;
pub mod load;
pub mod oracle;
pub mod proxy;
pub mod report;
pub mod rules;
pub mod run;
pub mod scenarios;
pub mod site;
pub mod usage;
