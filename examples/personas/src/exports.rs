//! Exports: all personas of an account, row by row as the database has them.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use octroi_client::Meter;
use tokio::sync::mpsc;

use crate::{
    Account, App,
    store::{self, Persona},
};

/// An export counts as one for each hundred rows that are begun.
const ROWS_AN_EXPORT: usize = 100;
/// Rows that wait for whoever reads them.
const ROWS_WAITING: usize = 64;

/// A piece of an export, or why there are no more.
type Piece = anyhow::Result<Bytes>;

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
}

/// As comma-separated values.
pub(crate) async fn csv(
    State(app): State<App>,
    account: Account,
    Extension(meter): Extension<Meter>,
) -> Response {
    export(app, account, meter, Format::Csv)
}

/// As a JSON array.
pub(crate) async fn json(
    State(app): State<App>,
    account: Account,
    Extension(meter): Extension<Meter>,
) -> Response {
    export(app, account, meter, Format::Json)
}

fn export(app: App, account: Account, meter: Meter, format: Format) -> Response {
    let (pieces, written) = mpsc::channel::<Piece>(ROWS_WAITING);
    tokio::spawn(async move {
        if let Err(error) = write(&app, &account, &meter, format, &pieces).await {
            tracing::error!(error = %error, "an export ends too early");
            // Whoever reads it sees that it is not whole. They may be gone.
            drop(pieces.send(Err(error)).await);
        }
    });
    let body = stream::unfold(written, async |mut written| {
        Some((written.recv().await?, written))
    });
    let mut response = Response::new(Body::from_stream(body));
    let content_type = match format {
        Format::Csv => "text/csv; charset=utf-8",
        Format::Json => "application/json",
    };
    (response.headers_mut()).insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Writes an export row by row, and tells the meter as it goes: who goes away in the middle pays for what was written.
async fn write(
    app: &App,
    account: &Account,
    meter: &Meter,
    format: Format,
    pieces: &mpsc::Sender<Piece>,
) -> anyhow::Result<()> {
    let mut rows = store::list_personas(&app.database, &account.0).enumerate();
    if format == Format::Csv
        && pieces
            .send(Ok("id,name,template,created_at\r\n".into()))
            .await
            .is_err()
    {
        return Ok(());
    }
    let mut is_empty = true;
    while let Some((index, persona)) = rows.next().await {
        let row = row(format, index, &persona?)?;
        if index.is_multiple_of(ROWS_AN_EXPORT) {
            meter.add(1);
        }
        is_empty = false;
        if pieces.send(Ok(row.into())).await.is_err() {
            return Ok(());
        }
    }
    if is_empty {
        // An export of nothing is an export.
        meter.add(1);
    }
    if format == Format::Json {
        let end = if is_empty { "[]" } else { "]" };
        drop(pieces.send(Ok(end.into())).await);
    }
    Ok(())
}

fn row(format: Format, index: usize, persona: &Persona) -> anyhow::Result<String> {
    let document = serde_json::to_value(persona)?;
    if format == Format::Json {
        let before = if index == 0 { "[" } else { "," };
        return Ok(format!("{before}{document}"));
    }
    let text = |member: &str| {
        document
            .get(member)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
    };
    let fields = ["id", "name", "template", "created_at"].map(|member| quoted(text(member)));
    Ok(format!("{}\r\n", fields.join(",")))
}

/// A field as RFC 4180 has it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_would_break_a_line_is_quoted() {
        for (text, expected) in [
            ("Ada", "Ada"),
            ("", ""),
            ("Ada, Countess", "\"Ada, Countess\""),
            ("the \"first\"", "\"the \"\"first\"\"\""),
            ("two\nlines", "\"two\nlines\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
