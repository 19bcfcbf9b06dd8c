//! What is out of the ordinary, and what is ahead.

use octroi_proto::{common::v1 as common, quota::v1 as quota, usage::v1 as usage};
use prost_types::Timestamp;
use serde_json::json;

use crate::testing::{Gateway, by_key, by_session};

const LIST: &str = "/octroi.usage.v1.UsageService/ListAnomalies";
const FORECAST: &str = "/octroi.usage.v1.UsageService/ForecastUsage";
const STANDING: &str = "/octroi.quota.v1.QuotaService/GetCurrentUsage";

fn second(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

#[tokio::test]
async fn anomalies_are_asked_for_by_what_the_query_says() {
    let gateway = Gateway::start().await;
    gateway.answers(LIST, |request: usage::ListAnomaliesRequest| {
        assert_eq!(request.account_id, "acme");
        assert_eq!(request.metrics, ["m.one", "m.two"]);
        assert_eq!(request.kind(), common::AnomalyKind::Drop);
        assert_eq!((request.start_time, request.end_time), (second(0), second(60)));
        Ok(usage::ListAnomaliesResponse {
            anomalies: vec![usage::Anomaly {
                anomaly_id: "a-1".into(),
                metric: "m.one".into(),
                kind: common::AnomalyKind::Drop.into(),
                start_time: second(3_600),
                end_time: second(7_200),
                hours: 1,
                peak: Some(common::AnomalousHour {
                    start_time: second(3_600),
                    actual_amount: 1,
                    expected_amount: 100,
                    low_amount: 50,
                    high_amount: 150,
                    score_thousandths: 9_900,
                }),
                detect_time: second(7_800),
                ..usage::Anomaly::default()
            }],
            next_page_token: String::new(),
            looked_until_time: None,
        })
    });
    let path = "/api/account/usage/anomalies?metrics=m.one,m.two&kind=drop&from=1970-01-01T00:00:00Z\
                &to=1970-01-01T00:01:00Z&limit=5";
    let (status, body) = gateway.json(by_key("GET", path, "application/json", "")).await;
    assert_eq!(status.as_u16(), 200, "{body}");
    let anomaly = &body["anomalies"][0];
    assert_eq!((&anomaly["kind"], &anomaly["hours"]), (&json!("drop"), &json!(1)));
    assert_eq!(anomaly["peak"]["score_thousandths"], 9_900);
    assert_eq!(anomaly["start_time"], "1970-01-01T01:00:00Z");
    assert_eq!(
        (&body["next_cursor"], &body["looked_until_time"]),
        (&json!(null), &json!(null))
    );

    let path = "/api/account/usage/anomalies?kind=odd";
    let (status, body) = gateway.json(by_session("GET", path, "")).await;
    assert_eq!(
        (status.as_u16(), &body["errors"][0]["field"]),
        (400, &json!("kind"))
    );
}

#[tokio::test]
async fn a_forecast_is_made_of_where_the_account_stands_and_how_it_uses() {
    let gateway = Gateway::start().await;
    gateway.answers(STANDING, |request: quota::GetCurrentUsageRequest| {
        let limit = |metric: &String| quota::LimitStatus {
            metric: metric.clone(),
            period: common::Period::Day.into(),
            limit: 100,
            used: 40,
            window_start_time: second(0),
            window_end_time: second(86_400),
            ..quota::LimitStatus::default()
        };
        Ok(quota::GetCurrentUsageResponse {
            limits: request.metrics.iter().map(limit).collect(),
            as_of_time: second(60),
        })
    });
    gateway.answers(FORECAST, |request: usage::ForecastUsageRequest| {
        let made = |target: usage::ForecastTarget| {
            assert_eq!((target.limit_amount, target.used_amount), (100, 40));
            assert_eq!(
                (target.window_start_time, target.window_end_time),
                (second(0), second(86_400))
            );
            let method = if target.metric == "m.held" {
                usage::ForecastMethod::None
            } else {
                usage::ForecastMethod::Weeks
            };
            usage::Forecast {
                metric: target.metric,
                method: method.into(),
                weeks: 8,
                reach_time: second(7_200),
                horizon_time: second(86_400),
                end_value: 240,
                ..usage::Forecast::default()
            }
        };
        Ok(usage::ForecastUsageResponse {
            forecasts: request.targets.into_iter().map(made).collect(),
            as_of_time: second(60),
        })
    });
    let path = "/api/account/usage/forecast?metrics=m.one,m.held";
    let (status, body) = gateway.json(by_session("GET", path, "")).await;
    assert_eq!(status.as_u16(), 200, "{body}");
    let (first, second) = (&body["limits"][0], &body["limits"][1]);
    assert_eq!(
        (&first["limit"]["metric"], &first["limit"]["used"]),
        (&json!("m.one"), &json!(40))
    );
    assert_eq!(first["forecast"]["method"], "weeks");
    assert_eq!(first["forecast"]["reach_time"], "1970-01-01T02:00:00Z");
    assert_eq!(first["forecast"]["reach_time_high"], json!(null));
    assert_eq!(
        (&second["limit"]["metric"], &second["forecast"]),
        (&json!("m.held"), &json!(null))
    );

    let (status, body) = gateway
        .json(by_session("GET", "/api/account/usage/forecast", ""))
        .await;
    assert_eq!(
        (status.as_u16(), &body["errors"][0]["field"]),
        (400, &json!("metrics"))
    );
}
