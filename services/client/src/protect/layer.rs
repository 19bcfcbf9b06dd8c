//! The layer and the service that it makes: ask, serve, count.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, request, response};
use tower::{Layer, Service};

use super::{
    Quota,
    body::{Body, End},
    permit::Permit,
    refusal::{Refused, Wire},
    rule::{Amount, Item, Measure, Mode, Rule},
};

/// Protects a route: asks before the handler runs, and counts what it did once it has succeeded.
///
/// It goes on an axum route or before a tonic service; see [the module](super). It is cheap to clone.
#[derive(Clone, Debug)]
pub struct QuotaLayer {
    quota: Quota,
    rule: Arc<Rule>,
}

impl QuotaLayer {
    pub(super) fn new(quota: Quota) -> Self {
        Self {
            quota,
            rule: Arc::default(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Rule)) -> Self {
        change(Arc::make_mut(&mut self.rule));
        self
    }

    /// Changes the metric that was named last; nothing where none was.
    fn with_last(self, change: impl FnOnce(&mut Item)) -> Self {
        self.with(|rule| {
            if let Some(item) = rule.items.last_mut() {
                change(item);
            }
        })
    }

    /// Takes 1 of this metric as well, all or nothing. What is said about an amount is said about the metric that was
    /// named last.
    #[must_use]
    pub fn and_metric(self, metric: impl Into<String>) -> Self {
        self.with(|rule| {
            rule.items.push(Item {
                metric: metric.into(),
                amount: Amount::Fixed(1),
                measure: Measure::Asked,
            });
        })
    }

    /// Lets only accounts through whose plan has this feature as well.
    #[must_use]
    pub fn and_feature(self, feature: impl Into<String>) -> Self {
        self.with(|rule| rule.features.push(feature.into()))
    }

    /// Takes so much for each request, instead of 1.
    #[must_use]
    pub fn amount(self, amount: u64) -> Self {
        self.with_last(|item| item.amount = Amount::Fixed(amount))
    }

    /// Takes as much as the head of the request says. Where it says 0, nothing of the metric is asked for, unless it is
    /// measured later: then 1 is held until it is known.
    #[must_use]
    pub fn amount_by_request(self, of: impl Fn(&request::Parts) -> u64 + Send + Sync + 'static) -> Self {
        self.with_last(|item| item.amount = Amount::OfRequest(Arc::new(of)))
    }

    /// Records as much as the head of the response says, such as by an extension of it. Until then as much is held as is
    /// said otherwise; what is used beyond that is recorded too.
    #[must_use]
    pub fn amount_by_response(self, of: impl Fn(&response::Parts) -> u64 + Send + Sync + 'static) -> Self {
        self.with_last(|item| item.measure = Measure::OfResponse(Arc::new(of)))
    }

    /// Records the bytes of the response's body, as they were handed to the connection, also where the caller goes away
    /// in the middle, or the body breaks off. Other metrics of the layer are not recorded then.
    #[must_use]
    pub fn amount_by_bytes(self) -> Self {
        self.with_last(|item| item.measure = Measure::Bytes)
    }

    /// Records what the handler tells the [`Meter`](super::Meter) in its request's extensions, until the response's body has ended: rows
    /// that were written, tokens that were made.
    #[must_use]
    pub fn amount_by_meter(self) -> Self {
        self.with_last(|item| item.measure = Measure::Meter)
    }

    /// Records before the handler runs, whatever becomes of it then: one call instead of two.
    #[must_use]
    pub fn before(self) -> Self {
        self.with(|rule| rule.mode = Mode::Consume)
    }

    /// Looks whether there is room, and takes nothing: the handler itself records what it uses.
    #[must_use]
    pub fn look_only(self) -> Self {
        self.with(|rule| rule.mode = Mode::Peek)
    }

    /// How long what is held stays held where this program is no more, 1 s to 24 h; 60 s where nobody says. As long as the
    /// handler runs it is renewed.
    #[must_use]
    pub fn hold_for(self, ttl: Duration) -> Self {
        self.with(|rule| rule.ttl = ttl)
    }

    /// Lets accounts through that this program has never seen, where nobody can be asked. Without this they are refused
    /// then; of accounts that were seen it is known what their limits say.
    #[must_use]
    pub fn soft(self) -> Self {
        self.with(|rule| rule.soft = true)
    }

    /// The request's name, such as its `Idempotency-Key`: 1 to 128 of `[A-Za-z0-9_.:-]`. What is recorded under one name counts
    /// once, however often the request comes. Each time it comes there must be room for it, and its handler runs: whoever
    /// chooses the names has all that they do under one for the price of one, so a handler must do the same under the same
    /// name. Where it has none, each time counts.
    #[must_use]
    pub fn request_id_by(
        self,
        of: impl Fn(&request::Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|rule| rule.request_id = Some(Arc::new(of)))
    }

    /// Which responses are counted; those with a status of 2xx and 3xx where nobody says, and of gRPC those that end with
    /// OK.
    #[must_use]
    pub fn counts_when(self, succeeded: impl Fn(&response::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|rule| rule.succeeded = Some(Arc::new(succeeded)))
    }
}

impl<S> Layer<S> for QuotaLayer {
    type Service = Protected<S>;

    fn layer(&self, inner: S) -> Protected<S> {
        Protected {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a [`QuotaLayer`].
#[derive(Clone, Debug)]
pub struct Protected<S> {
    inner: S,
    layer: QuotaLayer,
}

/// tonic asks a service for its name.
impl<S: tonic::server::NamedService> tonic::server::NamedService for Protected<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for Protected<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<Body<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body<R>>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was ready is the one that is called.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(layer.serve(inner, request))
    }
}

impl QuotaLayer {
    async fn serve<S, B, R>(self, mut inner: S, request: Request<B>) -> Result<Response<Body<R>>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        R: http_body::Body<Data = Bytes>,
    {
        let wire = Wire::of(request.headers());
        let (mut head, body) = request.into_parts();
        let mut permit = match self.admit(&head).await {
            Ok(permit) => permit,
            Err(refused) => return Ok(refused.answer(wire, self.quota.0.error_pages.as_deref())),
        };
        permit.tell_handler(&mut head.extensions);
        let answer = permit
            .renewed_while(inner.call(Request::from_parts(head, body)))
            .await;
        // A panic, a caller that goes away, or a service without an answer drops the permit, which gives back what it has.
        let (mut head, body) = answer?.into_parts();
        permit.tell(&mut head.headers);
        let body = self.count(permit, wire, &head, body).await;
        Ok(Response::from_parts(head, body))
    }

    async fn admit(&self, head: &request::Parts) -> Result<Permit, Refused> {
        let account = (self.quota.0.account_of)(head).ok_or(Refused::Nobody)?;
        let ask = self.rule.ask(head, account)?;
        self.quota.admit(ask).await
    }

    /// Counts what was done, now or once the body has ended.
    async fn count<R: http_body::Body>(
        &self,
        permit: Permit,
        wire: Wire,
        head: &response::Parts,
        body: R,
    ) -> Body<R> {
        if !permit.is_open() || !self.rule.succeeded(head) || wire.has_failed(&head.headers) {
            permit.release().await;
            return Body::plain(body);
        }
        let used = self.rule.used_by(head);
        let length = length_of(head, &body);
        let end = End::new(permit, self.rule.clone(), used, length);
        // Of a body without a byte nobody reads the end.
        if length != Some(0) && (wire == Wire::Grpc || self.rule.is_measured_to_the_end()) {
            return Body::counted(body, end);
        }
        end.finish().await;
        Body::plain(body)
    }
}

/// How long a body will be, where anybody knows.
fn length_of(head: &response::Parts, body: &impl http_body::Body) -> Option<u64> {
    let said = || {
        head.headers
            .get(http::header::CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    };
    body.size_hint().exact().or_else(said)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body as AxumBody, routing::get};
    use http::StatusCode;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{Client, protect::QuotaBuilder};

    /// The layers of a program whose fleet nobody has started.
    fn alone(describe: impl FnOnce(QuotaBuilder) -> QuotaBuilder) -> Quota {
        let client = Client::builder("http://127.0.0.1:1")
            .token("token")
            .build()
            .expect("a client");
        let quota = Quota::builder(&client).account_from_header("x-account-id");
        describe(quota).build().expect("layers")
    }

    async fn get_with(layer: QuotaLayer, account: Option<&str>) -> StatusCode {
        let mut request = Request::get("/");
        if let Some(account) = account {
            request = request.header("x-account-id", account);
        }
        let request = request.body(AxumBody::empty()).expect("a request");
        let router: Router = Router::new().route("/", get(async || "done").route_layer(layer));
        router.oneshot(request).await.expect("an answer").status()
    }

    #[tokio::test]
    async fn whoever_says_no_account_is_refused_and_nobody_is_asked() {
        let quota = alone(|quota| quota);
        assert_eq!(
            get_with(quota.metric("a").soft(), None).await,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!((quota.allowed_alone(), quota.untold()), (0, 0));
    }

    #[tokio::test]
    async fn an_account_that_was_never_seen_is_refused_but_on_a_soft_route() {
        let quota = alone(|quota| quota);
        let account = Some("acme");
        assert_eq!(
            get_with(quota.metric("a"), account).await,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!((quota.allowed_alone(), quota.untold()), (0, 0));
        for (layer, untold) in [
            (quota.metric("a").soft(), 1),
            (quota.metric("a").before().soft(), 2),
            (quota.metric("a").look_only().soft(), 2),
        ] {
            assert_eq!(get_with(layer, account).await, StatusCode::OK);
            assert_eq!(quota.untold(), untold);
        }
        assert_eq!(quota.allowed_alone(), 3);
        assert_eq!(
            quota.close(Duration::from_millis(100)).await,
            2,
            "nobody takes it"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_is_not_allowed() {
        let quota = alone(|quota| quota.journal_bytes_max(0));
        for layer in [quota.metric("a").soft(), quota.metric("a").before().soft()] {
            let status = get_with(layer, Some("acme")).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
        let looked = get_with(quota.metric("a").look_only().soft(), Some("acme")).await;
        assert_eq!(looked, StatusCode::OK);
    }
}
