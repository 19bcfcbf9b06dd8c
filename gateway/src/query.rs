//! Query parameters, read strictly: unknown ones, repeated ones and bad values are refused, all at once.

use std::collections::{BTreeMap, HashMap};

use axum::{
    extract::{FromRequestParts, Query as Pairs},
    http::{HeaderMap, header, request::Parts},
};
use jiff::Timestamp;
use octroi_core::Violations;
use octroi_kit::convert::to_proto_time;
use octroi_proto::errors::v1::ErrorReason;

use crate::{
    convert::{AskedAnomalyKind, Granularity, ReportGranularity},
    instant,
    problem::Problem,
};

/// How a page's parameters are called in the contracts and here.
pub(crate) const PAGE_NAMES: crate::problem::Names = &[("page_size", "limit"), ("page_token", "cursor")];

/// The most that a page holds; who asks for more gets this many.
const PAGE_MAX: i32 = 100;
/// The most metrics in one question.
const METRICS_MAX: usize = 16;
/// What must be given has this rule.
const REQUIRED: &str = "is required";

/// The parameters that were given and not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Query {
    given: BTreeMap<String, String>,
    violations: Violations,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Ok(Pairs(pairs)) = Pairs::<Vec<(String, String)>>::try_from_uri(&parts.uri) else {
            return Err(Problem::new(
                ErrorReason::BodyMalformed,
                "the query cannot be read",
            ));
        };
        let mut query = Self::default();
        for (name, value) in pairs {
            if query.given.insert(name.clone(), value).is_some() {
                query.violations.add(name, "must be given once");
            }
        }
        Ok(query)
    }
}

impl Query {
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).filter(|value| !value.is_empty())
    }

    /// Names separated by commas.
    pub(crate) fn list(&mut self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        let names: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|one| !one.is_empty())
            .map(Into::into)
            .collect();
        if names.len() > METRICS_MAX {
            self.violations
                .add(name, format!("must name at most {METRICS_MAX}"));
        }
        names
    }

    pub(crate) fn required_list(&mut self, name: &str) -> Vec<String> {
        let names = self.list(name);
        if names.is_empty() {
            self.violations.add(name, REQUIRED);
        }
        names
    }

    /// What was given as `name[key]=value`, by key.
    pub(crate) fn object(&mut self, name: &str) -> HashMap<String, String> {
        let key_of = |given: &str| {
            let key = given.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some(key.to_owned())
        };
        let given = std::mem::take(&mut self.given).into_iter();
        let (taken, left): (Vec<_>, Vec<_>) =
            given.partition(|(given, value)| key_of(given).is_some() && !value.is_empty());
        self.given = left.into_iter().collect();
        let taken = taken.into_iter();
        taken
            .filter_map(|(given, value)| Some((key_of(&given)?, value)))
            .collect()
    }

    pub(crate) fn required_instant(&mut self, name: &str) -> Option<prost_types::Timestamp> {
        let given = self.given.contains_key(name);
        let instant = self.instant(name);
        if !given {
            self.violations.add(name, REQUIRED);
        }
        instant
    }

    pub(crate) fn instant(&mut self, name: &str) -> Option<prost_types::Timestamp> {
        let text = self.given.remove(name)?;
        let at = text
            .parse::<Timestamp>()
            .map_err(|_| format!("must be {}", instant::RULE));
        self.violations.take(name, at).map(to_proto_time)
    }

    pub(crate) fn granularity(&mut self, name: &str) -> i32 {
        let word = self.text(name).unwrap_or_else(|| "day".to_owned());
        let read = Granularity::from_word(&word).ok_or(format!("must be {}", Granularity::RULE));
        self.violations.take(name, read).map_or(0, Granularity::to_proto)
    }

    /// What one row of a report is; absent means an event.
    pub(crate) fn report_granularity(&mut self, name: &str) -> i32 {
        let word = self.text(name).unwrap_or_else(|| "event".to_owned());
        let read = ReportGranularity::from_word(&word).ok_or(format!("must be {}", ReportGranularity::RULE));
        self.violations
            .take(name, read)
            .map_or(0, ReportGranularity::to_proto)
    }

    /// Whether CSV is asked for: by `format`, or by what the client accepts where that is absent.
    pub(crate) fn wants_csv(&mut self, headers: &HeaderMap) -> bool {
        match self.text("format").as_deref() {
            Some("csv") => true,
            Some("json") => false,
            Some(_) => {
                self.violations.add("format", "must be one of `json`, `csv`");
                false
            }
            None => headers
                .get_all(header::ACCEPT)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|one| {
                    one.split(';')
                        .next()
                        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/csv"))
                }),
        }
    }

    /// A kind of anomalies; 0, which is both, where none is given.
    pub(crate) fn anomaly_kind(&mut self, name: &str) -> i32 {
        let Some(word) = self.text(name) else {
            return 0;
        };
        let read = AskedAnomalyKind::from_word(&word).ok_or(format!("must be {}", AskedAnomalyKind::RULE));
        self.violations
            .take(name, read)
            .map_or(0, AskedAnomalyKind::to_proto)
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            Some("true") => true,
            Some("false") | None => false,
            Some(_) => {
                self.violations.add(name, "must be true or false");
                false
            }
        }
    }

    /// The two parameters of a page: how many, and where to go on.
    pub(crate) fn page(&mut self) -> (i32, String) {
        let limit = self
            .text("limit")
            .map_or(Ok(0), |text| match text.parse::<i32>() {
                Ok(limit) if limit > 0 => Ok(limit.min(PAGE_MAX)),
                _ => Err("must be a whole number of 1 to 2147483647"),
            });
        let limit = self.violations.take("limit", limit).unwrap_or_default();
        (limit, self.text("cursor").unwrap_or_default())
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// A problem with every parameter that breaks a rule or was not asked for.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for name in self.given.into_keys() {
            self.violations.add(name, "is not a parameter of this route");
        }
        Ok(self.violations.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn read(query: &str) -> Query {
        let uri = format!("/api?{query}");
        let (mut parts, ()) = Request::builder()
            .uri(uri)
            .body(())
            .expect("a request")
            .into_parts();
        Query::from_request_parts(&mut parts, &()).await.expect("a query")
    }

    async fn check(query: &str, fields: &[&str]) {
        let mut given = read(query).await;
        given.required_list("metrics");
        given.required_instant("from");
        given.granularity("granularity");
        given.flag("unread_only");
        given.page();
        let found: Vec<String> = match given.finish() {
            Ok(()) => Vec::new(),
            Err(problem) => problem
                .into_document()
                .errors
                .into_iter()
                .map(|error| error.field)
                .collect(),
        };
        assert_eq!(found, fields, "{query}");
    }

    #[tokio::test]
    async fn every_bad_parameter_is_named_at_once() {
        check("metrics=a,b&from=2026-03-01T00:00:00Z", &[]).await;
        check(
            "metrics=a&from=2026-03-01T01:00:00%2B01:00&granularity=month&limit=5&cursor=x",
            &[],
        )
        .await;
        check("", &["metrics", "from"]).await;
        check("metrics=,&from=2026-03-01", &["metrics", "from"]).await;
        check(
            "metrics=a&from=2026-03-01T00:00:00Z&granularity=week&limit=0",
            &["granularity", "limit"],
        )
        .await;
        check(
            "metrics=a&from=2026-03-01T00:00:00Z&limit=-1&unread_only=yes",
            &["unread_only", "limit"],
        )
        .await;
        check("metrics=a&metrics=b&from=2026-03-01T00:00:00Z", &["metrics"]).await;
        check(
            "metrics=a&from=2026-03-01T00:00:00Z&account_id=other",
            &["account_id"],
        )
        .await;
    }

    #[tokio::test]
    async fn csv_is_asked_for_by_its_name_or_by_what_is_accepted() {
        for (given, accept, is_csv) in [
            ("", "", false),
            ("", "application/json", false),
            ("", "text/csv", true),
            ("", "application/json;q=0.5, Text/CSV; header=present", true),
            ("", "*/*", false),
            ("format=csv", "application/json", true),
            ("format=json", "text/csv", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
            let mut query = read(given).await;
            assert_eq!(query.wants_csv(&headers), is_csv, "{given} {accept}");
            assert!(query.finish().is_ok());
        }
        let mut query = read("format=xml").await;
        query.wants_csv(&HeaderMap::new());
        assert!(query.finish().is_err(), "another format");
    }

    #[tokio::test]
    async fn an_object_is_what_stands_in_its_brackets() {
        let mut given = read("property[region]=eu&property[tier]=&property%5Bplan%5D=a,b&property=x").await;
        let object = given.object("property");
        let expected =
            [("region", "eu"), ("plan", "a,b")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(object, HashMap::from(expected));
        assert!(
            given.finish().is_err(),
            "what is no object, or empty, is not left unsaid"
        );
    }

    #[tokio::test]
    async fn a_page_is_never_larger_than_the_most() {
        for (query, expected) in [
            ("limit=1000000000", 100),
            ("limit=100", 100),
            ("limit=7", 7),
            ("", 0),
        ] {
            assert_eq!(read(query).await.page().0, expected, "{query}");
        }
    }
}
