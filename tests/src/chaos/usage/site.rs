//! A site whose usage is broken: two replicas of it, and accounts whose programs have a key.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    chaos::site::{Replicas, Site},
    harness::fleet::{APPLICATION, Clients, Rest},
};

/// How many replicas of usage there are.
pub const REPLICAS: usize = 2;
/// How many accounts have a key. Signing up is throttled, so that all runs of a site share them.
pub const WITH_KEY: usize = 2;

/// A program with the key of an account.
#[derive(Clone, Debug)]
pub struct Program {
    /// The account.
    pub account: String,
    /// Whoever speaks HTTP for it.
    pub rest: Rest,
}

/// All of it.
#[derive(Debug)]
pub struct UsageSite {
    /// The fleet and its servers.
    pub site: Site,
    /// Clients of each replica, through the proxies.
    pub recorders: Vec<Clients>,
    /// The accounts with a key.
    pub programs: Vec<Program>,
}

impl UsageSite {
    /// Starts everything.
    ///
    /// # Errors
    /// What cannot be started.
    pub async fn start() -> Result<Self> {
        let replicas = Replicas {
            quota: 1,
            usage: REPLICAS,
        };
        let site = Site::start_with(replicas).await?;
        let token = site.fleet.token(APPLICATION)?;
        let doors = std::iter::once(&site.doors.usage).chain(&site.doors.further_usage);
        let recorders: Result<Vec<Clients>> = doors
            .map(|door| {
                let address = |called: &str| match called {
                    "usage" => door.address(),
                    other => site.fleet.address(other),
                };
                Clients::new(|called| format!("http://{}", address(called)), &token)
            })
            .collect();
        let mut programs = Vec::new();
        for number in 0..WITH_KEY {
            programs.push(sign_up(&site, number).await?);
        }
        Ok(Self {
            recorders: recorders?,
            programs,
            site,
        })
    }
}

/// An account, and a program that may record for it.
async fn sign_up(site: &Site, number: usize) -> Result<Program> {
    let mut member = site.fleet.rest();
    let body = json!({
        "email": format!("owner-{number}@example.com"),
        "password": "plinth orbit walnut sails",
        "display_name": "Acme",
    });
    let session = member.sign_up(&body).await?;
    let account = session["account"]["account_id"].as_str().context("no account")?;
    let body = json!({ "label": "a program", "scopes": ["usage.write"] });
    let made = member.post("/api/account/api-keys", &body).await?.expect(201)?;
    let secret = made["secret"].as_str().context("no secret")?;
    Ok(Program {
        account: account.to_owned(),
        rest: member.with_key(secret),
    })
}
