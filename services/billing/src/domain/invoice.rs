//! Invoices: what they say, and which steps they may take.

use jiff::civil::Date;
use octroi_core::{
    money::{Currency, MoneyError},
    named,
};

/// Where an invoice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvoiceStatus {
    /// Being written; it may still change.
    Draft,
    /// Sent, and never changed again.
    Finalized,
    /// Paid in full.
    Paid,
    /// Nobody expects it to be paid any more.
    Uncollectible,
    /// Withdrawn.
    Voided,
}

named!(InvoiceStatus {
    Draft => "draft",
    Finalized => "finalized",
    Paid => "paid",
    Uncollectible => "uncollectible",
    Voided => "voided",
});

/// Why an invoice was written; one a subscription, period and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvoiceReason {
    /// A period ended or began.
    Period,
    /// The plan changed within a period.
    PlanChange,
    /// The subscription ended.
    Cancellation,
}

named!(InvoiceReason { Period => "period", PlanChange => "plan_change", Cancellation => "cancellation" });

/// What happens to an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceEvent {
    /// It is complete.
    Finalize,
    /// The money came.
    Pay,
    /// The money will not come.
    GiveUp,
    /// It is withdrawn.
    Void,
}

/// A step that an invoice does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an invoice that is {} does not take this step", .status.as_str())]
pub struct Refusal {
    /// Where it stands.
    pub status: InvoiceStatus,
}

/// Where an invoice stands after `event`.
///
/// # Errors
/// [`Refusal`] where it does not take this step.
pub fn next(status: InvoiceStatus, event: InvoiceEvent) -> Result<InvoiceStatus, Refusal> {
    use InvoiceStatus::{Draft, Finalized, Paid, Uncollectible, Voided};
    match (status, event) {
        (Draft, InvoiceEvent::Finalize) => Ok(Finalized),
        (Finalized | Uncollectible, InvoiceEvent::Pay) => Ok(Paid),
        (Finalized, InvoiceEvent::GiveUp) => Ok(Uncollectible),
        (Finalized | Uncollectible, InvoiceEvent::Void) => Ok(Voided),
        _ => Err(Refusal { status }),
    }
}

/// The language of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// French.
    French,
}

/// Who writes or receives an invoice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// The name.
    pub name: String,
    /// Address, registration and tax numbers, a line each.
    pub lines: Vec<String>,
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceLine {
    /// What is charged, in the invoice's language.
    pub description: String,
    /// How many units; none for a fixed amount.
    pub quantity: Option<u64>,
    /// How much, rounded once; negative for a credit.
    pub amount_minor: i64,
}

/// An invoice, as it is shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Its number; none for a draft.
    pub number: Option<String>,
    /// Where it stands.
    pub status: InvoiceStatus,
    /// Who writes it.
    pub from: Party,
    /// Who receives it.
    pub to: Party,
    /// The day it was finalized.
    pub issued_on: Date,
    /// The day by which it is to be paid.
    pub due_on: Option<Date>,
    /// The first day that it covers.
    pub period_start_on: Date,
    /// The last day that it covers.
    pub period_end_on: Date,
    /// The currency of all its amounts.
    pub currency: Currency,
    /// What is charged.
    pub lines: Vec<InvoiceLine>,
}

impl Invoice {
    /// The sum of its lines, in minor units.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn total_minor(&self) -> Result<i64, MoneyError> {
        let amounts = self.lines.iter().map(|line| line.amount_minor);
        amounts
            .into_iter()
            .try_fold(0_i64, |sum, amount| sum.checked_add(amount))
            .ok_or(MoneyError::Overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invoice_takes_only_the_steps_of_its_life() {
        use InvoiceEvent::{Finalize, GiveUp, Pay, Void};
        use InvoiceStatus::{Draft, Finalized, Paid, Uncollectible, Voided};
        for (status, allowed) in [
            (Draft, vec![(Finalize, Finalized)]),
            (
                Finalized,
                vec![(Pay, Paid), (GiveUp, Uncollectible), (Void, Voided)],
            ),
            (Uncollectible, vec![(Pay, Paid), (Void, Voided)]),
            (Paid, vec![]),
            (Voided, vec![]),
        ] {
            for event in [Finalize, Pay, GiveUp, Void] {
                let expected = allowed
                    .iter()
                    .find(|(taken, _)| *taken == event)
                    .map(|(_, after)| *after);
                assert_eq!(next(status, event).ok(), expected, "{status:?} {event:?}");
            }
        }
    }
}
