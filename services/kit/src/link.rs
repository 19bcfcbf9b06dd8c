//! How one service calls another: the caller holds a plain generated client over a link and never knows
//! whether the service runs in this process or elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use octroi_core::ErrorKind;
use octroi_proto::errors::v1::ErrorReason;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tower::Service;

use crate::{
    auth::Auth,
    config::{self, ConfigError, Secret},
    status::refusal,
    telemetry,
};

/// How long a call to a service elsewhere may take before the caller gives up.
const CALL_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
enum Target {
    /// Runs elsewhere.
    Remote(Channel),
    /// Runs in this process. Filled once all components are built; a call before that is UNAVAILABLE.
    Local(Arc<OnceLock<Routes>>),
    /// The service that the method's path names; for programs that talk to all of them.
    ByPath(Arc<HashMap<String, Target>>),
}

/// The service in `/octroi.<service>.v1.<Service>/<Method>`.
fn service_of(path: &str) -> &str {
    path.strip_prefix("/octroi.")
        .and_then(|rest| rest.split('.').next())
        .unwrap_or_default()
}

/// A way to one service, for one caller.
#[derive(Clone)]
pub struct Link {
    target: Target,
    authorization: HeaderValue,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Link {
    fn new(target: Target, token: &Secret) -> Result<Self, ConfigError> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| ConfigError::new("auth.tokens_dir", "holds a token that no header can carry"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            target,
            authorization,
        })
    }

    /// A link to an address, for programs that are no service of the fleet.
    ///
    /// # Errors
    /// [`ConfigError`] where the address or the token cannot be used.
    pub fn remote(address: &str, token: &Secret) -> Result<Self, ConfigError> {
        Self::new(Target::Remote(channel("address", address)?), token)
    }
}

fn channel(key: &str, address: &str) -> Result<Channel, ConfigError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| ConfigError::new(key, format!("is no address: {error}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_MAX)
        .timeout(CALL_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .connect_lazy())
}

impl Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, tower::BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        match &mut self.target {
            Target::Remote(channel) => Service::poll_ready(channel, context).map_err(Into::into),
            Target::Local(_) | Target::ByPath(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, self.authorization.clone());
        if let Some(value) = telemetry::traceparent().and_then(|text| HeaderValue::try_from(text).ok()) {
            request.headers_mut().insert(telemetry::TRACEPARENT, value);
        }
        match &mut self.target {
            Target::ByPath(targets) => {
                let Some(target) = targets.get(service_of(request.uri().path())).cloned() else {
                    let status: Status = refusal(
                        ErrorKind::Unavailable,
                        ErrorReason::NotReady,
                        "no way to the service",
                    );
                    return Box::pin(async move { Err(status.into()) });
                };
                let link = Self {
                    target,
                    authorization: self.authorization.clone(),
                };
                Box::pin(tower::ServiceExt::oneshot(link, request))
            }
            Target::Remote(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { answer.await.map_err(Into::into) })
            }
            Target::Local(routes) => {
                let Some(mut routes) = routes.get().cloned() else {
                    let message = "the service is starting";
                    let status: Status = refusal(ErrorKind::Unavailable, ErrorReason::NotReady, message);
                    return Box::pin(async move { Err(status.into()) });
                };
                Box::pin(async move { routes.call(request).await.map_err(Into::into) })
            }
        }
    }
}

/// The ways to every service, from this process.
#[derive(Clone, Debug)]
pub struct Links {
    targets: Arc<HashMap<String, Target>>,
    auth: Auth,
}

impl Links {
    /// Links to the services of this process are local, all others go to their configured address.
    ///
    /// # Errors
    /// [`ConfigError`] where an address is none.
    pub fn new(local: &[&str], config: &config::Links, auth: Auth) -> Result<Self, ConfigError> {
        let mut targets = HashMap::new();
        for (service, address) in &config.0 {
            if !address.is_empty() {
                targets.insert(
                    service.clone(),
                    Target::Remote(channel(&format!("links.{service}"), address)?),
                );
            }
        }
        for service in local {
            targets.insert((*service).to_owned(), Target::Local(Arc::new(OnceLock::new())));
        }
        Ok(Self {
            targets: Arc::new(targets),
            auth,
        })
    }

    /// The way to `service` for `caller`.
    ///
    /// # Errors
    /// [`ConfigError`] where the service is neither in this process nor configured, or the caller has no
    /// token here.
    pub fn to(&self, service: &str, caller: &str) -> Result<Link, ConfigError> {
        let target = self.targets.get(service).ok_or_else(|| {
            ConfigError::new(
                format!("links.{service}"),
                format!("{caller} needs {service}, which does not run in this process"),
            )
        })?;
        Link::new(target.clone(), &self.auth.token_of(caller)?)
    }

    /// One way to every service: the method that is called says to which.
    ///
    /// # Errors
    /// [`ConfigError`] where the caller has no token here.
    pub fn to_any(&self, caller: &str) -> Result<Link, ConfigError> {
        Link::new(Target::ByPath(self.targets.clone()), &self.auth.token_of(caller)?)
    }

    /// Opens the links to a service of this process.
    pub(crate) fn fill(&self, service: &str, routes: &Routes) {
        if let Some(Target::Local(slot)) = self.targets.get(service) {
            // A second fill would be of the same routes.
            drop(slot.set(routes.clone()));
        }
    }
}
