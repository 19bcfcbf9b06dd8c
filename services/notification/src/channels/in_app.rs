//! In the app: a stored notice becomes text when it is read, in the language and zone of that moment.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    domain::{Facts, Kind, Notice, Severity, anomaly::AnomalyDetected, threshold::ThresholdCrossed},
    error::Error,
    templates::{NoticeText, Reader, Templates},
};
use octroi_core::AccountId;
use octroi_kit::db::DatabaseError;

/// A notice as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownNotice {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub account: AccountId,
    /// What it is about.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Headline and text.
    pub text: NoticeText,
    /// What the text was made of.
    pub facts: Facts,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was read.
    pub read_at: Option<Timestamp>,
}

/// Shows a notice to a reader.
///
/// # Errors
/// [`Error`] where its facts or the template have a fault.
pub fn show(notice: Notice, templates: &Templates, reader: &Reader<'_>) -> Result<ShownNotice, Error> {
    let text = match notice.kind {
        Kind::ThresholdCrossed => {
            let crossed = ThresholdCrossed::from_facts(&notice.facts);
            templates.notice(&crossed.ok_or(DatabaseError::Corrupt { what: "notice" })?, reader)?
        }
        Kind::AnomalyDetected => {
            let detected = AnomalyDetected::from_facts(&notice.facts);
            templates.notice(
                &detected.ok_or(DatabaseError::Corrupt { what: "notice" })?,
                reader,
            )?
        }
    };
    let Notice {
        id,
        account,
        kind,
        severity,
        facts,
        created_at,
        read_at,
    } = notice;
    Ok(ShownNotice {
        id,
        account,
        kind,
        severity,
        text,
        facts,
        created_at,
        read_at,
    })
}
