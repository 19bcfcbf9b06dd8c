//! Signing up: how often, and what it must not stand in the way of.

use anyhow::{Context, Result, ensure};
use octroi_kit::status::reason_of;
use octroi_proto::{
    account::v1::{SignInRequest, SignUpRequest},
    errors::v1::ErrorReason,
};
use octroi_tests::harness::fleet::{Clients, Fleet, GATEWAY};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    asks::{check_refusal, refusal},
    story::both_topologies,
};

both_topologies!(sign_ups_are_counted_by_where_they_come_from);

const PASSWORD: &str = "plinth orbit walnut sails";

/// Sign-ups that one client address has before it waits.
const FREE: u32 = 30;
/// After so many more the wait is longer than any hash takes.
const BEYOND_MAX: u32 = 8;

async fn sign_up(edge: &Clients, email: &str, client_address: &str) -> Result<(), Status> {
    let request = SignUpRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        client_address: client_address.to_owned(),
        ..SignUpRequest::default()
    };
    edge.account.clone().sign_up(request).await.map(drop)
}

async fn sign_ups_are_counted_by_where_they_come_from(fleet: &mut Fleet) -> Result<()> {
    let edge = fleet.clients(GATEWAY)?;
    sign_up(&edge, "ann@example.com", "198.51.100.1").await?;

    // An address that is taken costs a hash and is a question, so it counts like any other.
    let mut counted = 0;
    let refused = loop {
        ensure!(counted < FREE + BEYOND_MAX, "nobody stops {counted} sign-ups");
        let refused = sign_up(&edge, "ann@example.com", "203.0.113.7").await;
        let refused = refused.err().context("an address twice")?;
        if reason_of(&refused) != Some(ErrorReason::EmailTaken) {
            break refused;
        }
        counted += 1;
    };
    ensure!(counted >= FREE, "{counted} were free: {refused:?}");
    ensure!(
        reason_of(&refused) == Some(ErrorReason::RateLimited) && refused.code() == Code::ResourceExhausted,
        "{refused:?}"
    );
    let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    ensure!(wait.is_some_and(|wait| wait.as_secs() >= 1), "{refused:?}");

    // Who signs up elsewhere, and who signs in here, is not held up.
    sign_up(&edge, "bob@example.com", "203.0.113.8").await?;
    let sign_in = |password: &str| SignInRequest {
        email: "ann@example.com".to_owned(),
        password: password.to_owned(),
        client_address: "203.0.113.7".to_owned(),
    };
    edge.account.clone().sign_in(sign_in(PASSWORD)).await?;
    let wrong = edge
        .account
        .clone()
        .sign_in(sign_in("a guess that is wrong"))
        .await;
    let expected = refusal(Code::Unauthenticated, ErrorReason::CredentialsInvalid);
    check_refusal("a wrong password", wrong, expected)
}
