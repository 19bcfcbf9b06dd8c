//! What it takes to hold something, and who may end it.

use anyhow::{Context as _, Result, ensure};
use octroi_proto::{errors::v1::ErrorReason, quota::v1::DenialReason};
use octroi_tests::harness::fleet::{Fleet, roomy_hour};
use sqlx::{Connection as _, PgConnection};
use tonic::Code;

use super::{BYTES, EXPORTS, Holder, REQUESTS, Recorded, allowed, check_commit};
use crate::asks::{check_refusal, consume, decide, not_found, peek, refusal, reserve};

pub(super) async fn a_hold_takes_all_of_its_metrics_or_none_and_once(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let acme = Holder::new(fleet, "acme").await?;
    let ask = |request_id: &str, asked: &[(&str, i64)]| reserve(acme.account, request_id, asked);
    let denied = acme.reserve(ask("h-1", &[(REQUESTS, 10), (EXPORTS, 3)])).await?;
    let decision = denied.decision.as_ref().context("no decision")?;
    ensure!(
        !decision.allowed && decision.reason() == DenialReason::QuotaExceeded,
        "{denied:?}"
    );
    ensure!(
        denied.hold_id.is_empty() && denied.expire_time.is_none(),
        "{denied:?}"
    );
    for metric in [REQUESTS, EXPORTS] {
        let hour = acme.hour(metric).await?;
        ensure!((hour.used, hour.held) == (0, 0), "{hour:?}");
    }

    // What was denied took nothing, so the same request may be allowed later, here for less.
    let request = ask("h-1", &[(REQUESTS, 10), (EXPORTS, 2)]);
    let first = acme.reserve(request.clone()).await?;
    allowed(&first)?;
    for forgotten in [false, true] {
        if forgotten {
            fleet.kill("quota").await?;
            fleet.restart("quota").await?;
        }
        let attempts = (0..10).map(|_| acme.reserve(request.clone()));
        for again in futures::future::try_join_all(attempts).await? {
            let decision = again.decision.as_ref().context("no decision")?;
            ensure!(decision.allowed && decision.repeated_request, "{again:?}");
            ensure!(
                (&again.hold_id, again.expire_time) == (&first.hold_id, first.expire_time),
                "{first:?} became {again:?}"
            );
        }
        for other in [
            &[(REQUESTS, 11), (EXPORTS, 2)][..],
            &[(REQUESTS, 10)],
            &[(REQUESTS, 10), ("llm.requests", 2)],
        ] {
            let answer = acme.app.quota.clone().reserve_quota(ask("h-1", other)).await;
            let expected = refusal(Code::AlreadyExists, ErrorReason::RequestIdReused);
            check_refusal(&format!("{other:?}"), answer, expected)?;
        }
    }
    for (metric, held) in [(REQUESTS, 10), (EXPORTS, 2)] {
        let hour = acme.hour(metric).await?;
        ensure!((hour.used, hour.held) == (0, held), "{hour:?}");
    }
    of_many_attempts_at_once_one_holds(&acme).await?;
    holds_that_stand_in_the_way_are_the_reason(fleet).await
}

async fn of_many_attempts_at_once_one_holds(acme: &Holder) -> Result<()> {
    let attempts = (0..20).map(|_| acme.reserve(reserve(acme.account, "h-2", &[(REQUESTS, 20)])));
    let answers = futures::future::try_join_all(attempts).await?;
    for answer in &answers {
        allowed(answer)?;
        ensure!(Some(&answer.hold_id) == answers.first().map(|first| &first.hold_id));
    }
    let hour = acme.hour(REQUESTS).await?;
    ensure!((hour.used, hour.held, hour.remaining) == (0, 30, 30), "{hour:?}");
    Ok(())
}

async fn holds_that_stand_in_the_way_are_the_reason(fleet: &Fleet) -> Result<()> {
    let busy = Holder::new(fleet, "busy").await?;
    let taken = decide(&busy.app, consume(busy.account, "r-1", &[(REQUESTS, 9)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    let hold = busy.hold("h-1", &[(REQUESTS, 50)]).await?;
    // 1 is left; 51 would be left without the hold.
    for (amount, reason) in [(2, DenialReason::Held), (52, DenialReason::QuotaExceeded)] {
        let asked = [(REQUESTS, amount)];
        let id = format!("r-{amount}");
        let reserved = busy.reserve(reserve(busy.account, &id, &asked)).await?;
        for denied in [
            decide(&busy.app, peek(busy.account, &asked)).await?,
            decide(&busy.app, consume(busy.account, &id, &asked)).await?,
            reserved.decision.context("no decision")?,
        ] {
            ensure!(
                !denied.allowed && denied.reason() == reason,
                "{amount}: {denied:?}"
            );
            let hour = denied.limits.first().context("no limit")?;
            ensure!(
                (hour.used, hour.held, hour.remaining) == (9, 50, 1),
                "{amount}: {hour:?}"
            );
        }
    }
    busy.release(&hold).await?;
    let taken = decide(&busy.app, consume(busy.account, "r-after", &[(REQUESTS, 51)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    Ok(())
}

pub(super) async fn only_its_own_account_ends_a_hold(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let acme = Holder::new(fleet, "acme").await?;
    let other = Holder::new(fleet, "other").await?;
    let hold = acme.hold("h-1", &[(REQUESTS, 10), (BYTES, 5)]).await?;
    let theirs = other.hold("h-1", &[(REQUESTS, 10), (BYTES, 5)]).await?;
    let half = theirs.len() / 2;
    let mixed = format!("{}{}", &hold[..half], &theirs[half..]);
    let forged = hold.replacen(|digit: char| digit.is_ascii_digit(), "f", 1);
    let longer = format!("{hold}00");
    for (what, holder, id) in [
        ("another account's", &other, hold.as_str()),
        ("a forged one", &acme, &forged),
        ("two halves", &acme, &mixed),
        ("one that is cut off", &acme, &hold[2..]),
        ("one that goes on", &acme, &longer),
        ("a made up one", &acme, "h-1"),
        ("one in capitals of another alphabet", &acme, "Ａ"),
    ] {
        let expected = not_found(ErrorReason::HoldNotFound);
        check_refusal(what, holder.commit(id, &[]).await, expected)?;
        check_refusal(what, holder.release(id).await, expected)?;
        check_refusal(what, holder.renew(id, 60).await, expected)?;
    }
    let hour = acme.hour(REQUESTS).await?;
    ensure!((hour.used, hour.held) == (0, 10), "{hour:?}");
    let committed = Recorded::in_time(&[(REQUESTS, 10, 0), (BYTES, 5, 0)]);
    check_commit("its own", acme.commit(&hold, &[]).await, &committed)
}

pub(super) async fn an_account_has_ten_thousand_open_holds_at_the_most(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let noisy = Holder::new(fleet, "noisy").await?;
    let quiet = Holder::new(fleet, "quiet").await?;
    let last = noisy.hold("h-1", &[(REQUESTS, 1)]).await?;
    // Asking for all of them would take minutes: the rest are copies of the first, of no window.
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let copied = sqlx::query(
        "INSERT INTO quota.slice
         SELECT (jsonb_populate_record(slice, jsonb_build_object(
             'id', gen_random_uuid(), 'owner', gen_random_uuid(),
             'periods', '[]'::jsonb, 'starts', '[]'::jsonb, 'ends', '[]'::jsonb))).*
         FROM quota.slice, generate_series(2, 10000) WHERE account_id = $1",
    )
    .bind(noisy.account)
    .execute(&mut session)
    .await?;
    ensure!(copied.rows_affected() == 9_999, "{copied:?}");
    session.close().await?;

    let ask = reserve(noisy.account, "h-2", &[(REQUESTS, 1)]);
    let answer = noisy.app.quota.clone().reserve_quota(ask.clone()).await;
    let expected = refusal(Code::ResourceExhausted, ErrorReason::TooManyHolds);
    check_refusal("one more", answer, expected)?;
    quiet.hold("h-1", &[(REQUESTS, 1)]).await?;
    noisy.release(&last).await?;
    allowed(&noisy.reserve(ask).await?)
}
