//! What is recorded of a hold.

use std::time::Duration;

use anyhow::{Result, ensure};
use octroi_proto::{errors::v1::ErrorReason, quota::v1::DenialReason};
use octroi_tests::harness::fleet::{Fleet, OPERATOR, roomy_hour};
use tokio::time::timeout;
use tonic::Code;

use super::{BYTES, EXPORTS, Holder, REQUESTS, Recorded, allowed, check_commit, check_ended};
use crate::asks::{check_refusal, consume, decide, ledger_total, refusal, reserve};

pub(super) async fn a_hold_is_committed_with_what_was_used(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    no_more_than_was_held(fleet).await?;
    more_than_was_held(fleet).await?;
    several_metrics(fleet).await
}

async fn no_more_than_was_held(fleet: &Fleet) -> Result<()> {
    let acme = Holder::new(fleet, "acme").await?;
    let hold = acme.hold("h-1", &[(REQUESTS, 10)]).await?;
    let held = acme.hour(REQUESTS).await?;
    ensure!((held.used, held.held, held.remaining) == (0, 10, 50), "{held:?}");

    let answer = acme.commit(&hold, &[(REQUESTS, 4)]).await;
    check_commit("less", answer, &Recorded::in_time(&[(REQUESTS, 4, 0)]))?;
    acme.comes_to(REQUESTS, (4, 0, 56)).await?;

    let hold = acme.hold("h-2", &[(REQUESTS, 10)]).await?;
    let answer = acme.commit(&hold, &[(REQUESTS, 10)]).await;
    check_commit("as much", answer, &Recorded::in_time(&[(REQUESTS, 10, 0)]))?;
    acme.comes_to(REQUESTS, (14, 0, 46)).await?;

    let hold = acme.hold("h-3", &[(REQUESTS, 6)]).await?;
    let answer = acme.commit(&hold, &[]).await;
    check_commit("as held", answer, &Recorded::in_time(&[(REQUESTS, 6, 0)]))?;
    acme.comes_to(REQUESTS, (20, 0, 40)).await?;

    let hold = acme.hold("h-4", &[(REQUESTS, 40)]).await?;
    let answer = acme.commit(&hold, &[(REQUESTS, 0)]).await;
    check_commit("nothing", answer, &Recorded::in_time(&[(REQUESTS, 0, 0)]))?;
    acme.comes_to(REQUESTS, (20, 0, 40)).await?;
    let total = ledger_total(&fleet.clients(OPERATOR)?, acme.account, REQUESTS).await?;
    ensure!(
        (total.decided_amount, total.charged_amount, total.events) == (20, 20, 3),
        "{total:?}"
    );
    Ok(())
}

/// What is more finds its own place, as much of it as there is; the rest is recorded all the same.
async fn more_than_was_held(fleet: &Fleet) -> Result<()> {
    let more = Holder::new(fleet, "more").await?;
    let hold = more.hold("h-1", &[(REQUESTS, 10)]).await?;
    let answer = more.commit(&hold, &[(REQUESTS, 15)]).await;
    check_commit("with room", answer, &Recorded::in_time(&[(REQUESTS, 15, 0)]))?;
    more.comes_to(REQUESTS, (15, 0, 45)).await?;

    // What a replica has set aside for itself is room as well.
    let taken = decide(&more.app, consume(more.account, "r-1", &[(REQUESTS, 1)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    let hold = more.hold("h-2", &[(REQUESTS, 30)]).await?;
    let answer = more.commit(&hold, &[(REQUESTS, 44)]).await;
    check_commit("with all room", answer, &Recorded::in_time(&[(REQUESTS, 44, 0)]))?;
    more.comes_to(REQUESTS, (60, 0, 0)).await?;

    let over = Holder::new(fleet, "over").await?;
    let hold = over.hold("h-1", &[(REQUESTS, 10)]).await?;
    let taken = decide(&over.app, consume(over.account, "r-1", &[(REQUESTS, 45)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    let answer = over.commit(&hold, &[(REQUESTS, 20)]).await;
    check_commit("with some room", answer, &Recorded::in_time(&[(REQUESTS, 20, 5)]))?;
    over.comes_to(REQUESTS, (65, 0, 0)).await?;
    let hour = over.hour(REQUESTS).await?;
    ensure!(hour.overage == 5, "{hour:?}");
    let denied = decide(&over.app, consume(over.account, "r-2", &[(REQUESTS, 1)])).await?;
    ensure!(!denied.allowed, "{denied:?}");
    let total = ledger_total(&fleet.clients(OPERATOR)?, over.account, REQUESTS).await?;
    ensure!(
        (total.decided_amount, total.charged_amount) == (65, 60),
        "{total:?}"
    );
    Ok(())
}

async fn several_metrics(fleet: &Fleet) -> Result<()> {
    let both = Holder::new(fleet, "both").await?;
    let hold = both
        .hold("h-1", &[(REQUESTS, 10), (EXPORTS, 2), (BYTES, 1_000)])
        .await?;
    let answer = both.commit(&hold, &[(EXPORTS, 1), (BYTES, 3_000)]).await;
    // Nothing limits bytes, so nothing of them is beyond a limit.
    let expected = Recorded::in_time(&[(REQUESTS, 10, 0), (EXPORTS, 1, 0), (BYTES, 3_000, 0)]);
    check_commit("one as held, one less, one more", answer, &expected)?;
    let answer = both.commit(&hold, &[(BYTES, 3_000), (EXPORTS, 1)]).await;
    check_commit("again", answer, &expected.again())?;
    both.comes_to(REQUESTS, (10, 0, 50)).await?;
    both.comes_to(EXPORTS, (1, 0, 1)).await?;
    let operator = fleet.clients(OPERATOR)?;
    let total = ledger_total(&operator, both.account, BYTES).await?;
    ensure!(total.decided_amount == 3_000, "{total:?}");
    Ok(())
}

pub(super) async fn a_hold_is_committed_once(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let acme = Holder::new(fleet, "acme").await?;
    let hold = acme.hold("h-1", &[(REQUESTS, 10)]).await?;
    let first = Recorded::in_time(&[(REQUESTS, 4, 0)]);
    check_commit("first", acme.commit(&hold, &[(REQUESTS, 4)]).await, &first)?;
    let first = first.again();
    for forgotten in [false, true] {
        if forgotten {
            fleet.kill("quota").await?;
            fleet.restart("quota").await?;
        }
        check_commit("again", acme.commit(&hold, &[(REQUESTS, 4)]).await, &first)?;
        for (what, used) in [
            ("less", &[(REQUESTS, 3)][..]),
            ("more", &[(REQUESTS, 5)]),
            ("as held", &[]),
            ("nothing", &[(REQUESTS, 0)]),
        ] {
            check_ended(what, acme.commit(&hold, used).await, "committed")?;
        }
        check_ended("a release", acme.release(&hold).await, "committed")?;
        check_ended("a renewal", acme.renew(&hold, 60).await, "committed")?;
    }
    acme.comes_to(REQUESTS, (4, 0, 56)).await?;

    // Whichever metric the first was of, and the second is of.
    let hold = acme.hold("h-2", &[(REQUESTS, 5), (EXPORTS, 1)]).await?;
    let answer = acme.commit(&hold, &[(REQUESTS, 0)]).await;
    let second = Recorded::in_time(&[(REQUESTS, 0, 0), (EXPORTS, 1, 0)]);
    check_commit("of the second", answer, &second)?;
    let answer = acme.commit(&hold, &[(EXPORTS, 0)]).await;
    check_ended("of the first", answer, "committed")?;
    let answer = acme.commit(&hold, &[(EXPORTS, 0), (REQUESTS, 0)]).await;
    check_ended("of neither", answer, "committed")?;
    check_ended("a release", acme.release(&hold).await, "committed")?;
    acme.comes_to(REQUESTS, (4, 0, 56)).await?;
    acme.comes_to(EXPORTS, (1, 0, 1)).await?;

    // That nothing was used is a release that no other commit comes after.
    let hold = acme.hold("h-3", &[(REQUESTS, 5)]).await?;
    let nothing = Recorded::in_time(&[(REQUESTS, 0, 0)]);
    check_commit("nothing", acme.commit(&hold, &[(REQUESTS, 0)]).await, &nothing)?;
    let nothing = nothing.again();
    check_commit(
        "nothing again",
        acme.commit(&hold, &[(REQUESTS, 0)]).await,
        &nothing,
    )?;
    check_ended("as held", acme.commit(&hold, &[]).await, "committed")?;
    acme.comes_to(REQUESTS, (4, 0, 56)).await?;
    let released = acme.release(&hold).await?.into_inner();
    ensure!(released.repeated_request, "{released:?}");
    check_ended("a renewal", acme.renew(&hold, 60).await, "released")?;

    of_many_at_once_one_is_the_first(&acme).await
}

/// However long they wait, and whatever they were told: each comes once more.
pub(super) async fn callers_that_go_away_hold_and_commit_once(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let acme = Holder::new(fleet, "acme").await?;
    let patience = |index: u32| Duration::from_micros(u64::from(index) * 500);
    let asked = |index: u32| reserve(acme.account, &format!("h-{index}"), &[(REQUESTS, 2)]);
    let impatient = (0..20_u32).map(async |index| timeout(patience(index), acme.reserve(asked(index))).await);
    futures::future::join_all(impatient).await;
    let mut holds = Vec::new();
    for index in 0..20 {
        let reserved = acme.reserve(asked(index)).await?;
        allowed(&reserved)?;
        holds.push((index, reserved.hold_id));
    }
    let hour = acme.hour(REQUESTS).await?;
    ensure!((hour.used, hour.held) == (0, 40), "{hour:?}");

    // One of the two that each holds was used, or one more than that.
    let used = |index: u32| if index.is_multiple_of(2) { 1 } else { 3 };
    let commits = holds.iter().map(async |(index, hold)| {
        timeout(patience(*index), acme.commit(hold, &[(REQUESTS, used(*index))])).await
    });
    futures::future::join_all(commits).await;
    for (index, hold) in &holds {
        let answer = acme.commit(hold, &[(REQUESTS, used(*index))]).await?.into_inner();
        ensure!(
            !answer.late && answer.items.iter().all(|item| item.overrun == 0),
            "{answer:?}"
        );
    }
    acme.comes_to(REQUESTS, (40, 0, 20)).await?;
    let total = ledger_total(&fleet.clients(OPERATOR)?, acme.account, REQUESTS).await?;
    ensure!(
        (total.decided_amount, total.charged_amount, total.events) == (40, 40, 20),
        "{total:?}"
    );
    let taken = decide(&acme.app, consume(acme.account, "r-1", &[(REQUESTS, 20)])).await?;
    ensure!(taken.allowed, "nothing is lost: {taken:?}");
    Ok(())
}

async fn of_many_at_once_one_is_the_first(acme: &Holder) -> Result<()> {
    let hold = acme.hold("h-4", &[(REQUESTS, 6)]).await?;
    let attempts = (0..20).map(async |_| acme.commit(&hold, &[]).await);
    let answers = futures::future::try_join_all(attempts).await?;
    let first = answers
        .iter()
        .filter(|answer| !answer.get_ref().repeated_request)
        .count();
    ensure!(first == 1, "{first} are the first");
    acme.comes_to(REQUESTS, (10, 0, 50)).await
}

/// Nobody is denied what was held a moment ago.
pub(super) async fn what_a_commit_leaves_is_free_with_its_answer(fleet: &mut Fleet) -> Result<()> {
    const ACCOUNTS: [&str; 8] = ["a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8"];
    roomy_hour().await;
    let (used, left) = (1, 59);
    for (index, account) in ACCOUNTS.into_iter().enumerate() {
        let one = Holder::new(fleet, account).await?;
        let hold = one.hold("h-1", &[(REQUESTS, 60)]).await?;
        // What is refused now is not believed then.
        let denied = decide(&one.app, consume(account, "r-1", &[(REQUESTS, 1)])).await?;
        ensure!(!denied.allowed, "{denied:?}");
        one.commit(&hold, &[(REQUESTS, used)]).await?;
        // What was used is said to be used, also where all of it was.
        let whole = one.hold("h-0", &[(EXPORTS, 2)]).await?;
        one.commit(&whole, &[]).await?;
        let denied = decide(&one.app, consume(account, "r-0", &[(EXPORTS, 1)])).await?;
        ensure!(denied.reason() == DenialReason::QuotaExceeded, "{denied:?}");
        match index % 4 {
            0 => {
                let hour = one.hour(REQUESTS).await?;
                let found = (hour.used, hour.held, hour.remaining);
                ensure!(found == (1, 0, 59), "{hour:?}");
            }
            1 => drop(one.hold("h-2", &[(REQUESTS, left)]).await?),
            2 => {
                let taken = decide(&one.app, consume(account, "r-2", &[(REQUESTS, left)])).await?;
                ensure!(taken.allowed, "{taken:?}");
            }
            // Another hold may be committed with more than it held.
            _ => {
                let second = one.hold("h-2", &[(REQUESTS, 10)]).await?;
                let committed = Recorded::in_time(&[(REQUESTS, 59, 0)]);
                check_commit(
                    "with more",
                    one.commit(&second, &[(REQUESTS, left)]).await,
                    &committed,
                )?;
            }
        }
    }
    a_window_counts_no_more_than_can_be_counted(fleet).await
}

async fn a_window_counts_no_more_than_can_be_counted(fleet: &Fleet) -> Result<()> {
    const MOST: i64 = (1 << 53) - 1;
    let most = Holder::new(fleet, "most").await?;
    let taken = decide(&most.app, consume(most.account, "r-1", &[(REQUESTS, 1)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    let hold = most.hold("h-1", &[(EXPORTS, 1), (REQUESTS, 1)]).await?;
    let next = most.hold("h-2", &[(REQUESTS, 1)]).await?;
    let answer = most.commit(&hold, &[(REQUESTS, MOST)]).await;
    let expected = refusal(Code::InvalidArgument, ErrorReason::AmountOutOfRange);
    check_refusal("more than can be counted", answer, expected)?;
    // It changed nothing, so the hold is there.
    let as_much = Recorded::in_time(&[(EXPORTS, 1, 0), (REQUESTS, 1 << 52, (1 << 52) - 58)]);
    check_commit("much", most.commit(&hold, &[(REQUESTS, 1 << 52)]).await, &as_much)?;
    let again = as_much.again();
    check_commit("again", most.commit(&hold, &[(REQUESTS, 1 << 52)]).await, &again)?;
    // What no limit had room for is known with the answer, so the next is counted on top of it.
    let hour = most.hour(REQUESTS).await?;
    ensure!((hour.used, hour.held) == ((1 << 52) + 1, 1), "{hour:?}");
    let next = most.commit(&next, &[(REQUESTS, 1 << 52)]).await;
    let expected = refusal(Code::InvalidArgument, ErrorReason::AmountOutOfRange);
    check_refusal("as much again", next, expected)
}
