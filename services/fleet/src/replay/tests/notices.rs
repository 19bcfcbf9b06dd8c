//! How long notices are awaited.

use super::*;

#[tokio::test]
async fn notices_are_awaited_for_longer_where_the_fleet_was_away() {
    let file = TempFile::new("late", &traffic(50));
    let waits = Waits {
        quiet_after_away: Duration::from_secs(3),
        ..WAITS
    };
    let fake = Fake::default();
    (fake.state().answers_left, fake.state().refusals_left) = (Some(4), 3);
    let late = fake.clone();
    tokio::spawn(async move {
        while late.state().ledger.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        late.state()
            .notices
            .values_mut()
            .for_each(|notices| *notices += 1);
    });
    let report = replay_waiting(&fake, file.args("--accounts 1"), waits)
        .await
        .expect("a report");
    let expected = fake.state().notices.values().sum::<u64>();
    assert_eq!(
        report.thresholds_crossed, expected,
        "the late one too: {report:?}"
    );
    assert!(
        report.is_complete() && !report.thresholds_incomplete,
        "{report:?}"
    );

    let impatient = Waits {
        at_most: Duration::ZERO,
        ..WAITS
    };
    let report = replay_waiting(&fake, file.args("--accounts 1"), impatient)
        .await
        .expect("a report");
    assert!(report.is_complete() && report.thresholds_incomplete, "{report:?}");
}
