//! The demo's catalog with more in it.

use anyhow::{Context as _, Result};

/// The demo's catalog with further metrics, and with further limits of those who have bought nothing. Each is an element of
/// its list, such as `{ slug: clicks, ... }`.
///
/// # Errors
/// When the demo has no plan that is free.
pub fn with(metrics: &[String], limits: &[String]) -> Result<String> {
    let (before, free) = octroi_fleet::seed::CATALOG
        .split_once("- slug: free")
        .context("the demo has a plan that is free")?;
    // Elements are added at the head of each list, as far to the right as those that are there.
    let list = |head: &str, indent: &str, elements: &[String]| {
        let lines = elements.iter().map(|element| format!("{indent}- {element}\n"));
        format!("{head}{}", lines.collect::<String>())
    };
    let metrics = list("metrics:\n", "  ", metrics);
    let limits = list("limits:\n", "      ", limits);
    Ok(format!(
        "{}- slug: free{}",
        before.replacen("metrics:\n", &metrics, 1),
        free.replacen("limits:\n", &limits, 1)
    ))
}
