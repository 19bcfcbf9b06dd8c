//! The metrics page of a process.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

/// A figure of the page at `admin`; 0 where it has none yet.
pub(super) async fn metric(admin: SocketAddr, name: &str) -> Result<f64> {
    let page = reqwest::get(format!("http://{admin}/metrics"))
        .await?
        .text()
        .await?;
    let line = page
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(Ok(0.0), |line| {
        let value = line.rsplit(' ').next().context("a value")?;
        value
            .parse()
            .with_context(|| format!("the metric {name} is {value:?}"))
    })
}
