//! A client of the gateway that does what browsers and programs do, and no more: redirects, cookies and
//! headers are the test's own.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use reqwest::{
    Method, RequestBuilder,
    header::{HeaderMap, SET_COOKIE},
};
use serde_json::Value;

/// Somebody who speaks HTTP with the gateway: nobody yet, a member with a session, or a program with a key.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    base: String,
    cookie: Option<String>,
    csrf_token: Option<String>,
    /// What a browser says about the page that sends a request with a session.
    site: &'static str,
    key: Option<String>,
}

/// What the gateway answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {} {}", self.status, self.text))
    }

    /// A header's value; empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body, if the status is `status`.
    ///
    /// # Errors
    /// What it was otherwise.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(
            self.status == status,
            "{} instead of {status}: {}",
            self.status,
            self.text
        );
        if self.text.is_empty() {
            Ok(Value::Null)
        } else {
            self.json()
        }
    }

    /// The reason, if this is a refusal with `status`, in the shape that every refusal has.
    ///
    /// # Errors
    /// What is wrong with it otherwise.
    pub fn refusal(&self, status: u16) -> Result<String> {
        ensure!(
            self.status == status,
            "{} instead of {status}: {}",
            self.status,
            self.text
        );
        let content_type = self.header("content-type");
        ensure!(
            content_type == "application/problem+json",
            "a refusal as {content_type}: {}",
            self.text
        );
        let document = self.json()?;
        for name in ["type", "title", "detail", "reason"] {
            let value = document.get(name).and_then(Value::as_str).unwrap_or_default();
            ensure!(!value.is_empty(), "a refusal without {name}: {document}");
        }
        ensure!(document["status"] == status, "it says another status: {document}");
        let page = document["type"].as_str().unwrap_or_default();
        ensure!(page.starts_with("/errors/"), "its type leads nowhere: {document}");
        Ok(document["reason"].as_str().unwrap_or_default().to_owned())
    }

    /// The fields that a refusal names, with their rules.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn fields(&self) -> Result<Vec<(String, String)>> {
        let document = self.json()?;
        let errors = document["errors"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(errors
            .iter()
            .map(|error| (text(&error["field"]), text(&error["rule"])))
            .collect())
    }
}

impl Rest {
    /// Nobody yet.
    #[must_use]
    pub fn new(gateway: SocketAddr) -> Self {
        Self {
            http: reqwest::Client::new(),
            base: format!("http://{gateway}"),
            cookie: None,
            csrf_token: None,
            site: "same-origin",
            key: None,
        }
    }

    /// The same with an API key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            cookie: None,
            csrf_token: None,
            ..self.clone()
        }
    }

    /// The same without the proof that a change comes from our own page.
    #[must_use]
    pub fn without_csrf_token(&self) -> Self {
        Self {
            csrf_token: None,
            ..self.clone()
        }
    }

    /// The same in a page of another site.
    #[must_use]
    pub fn from_site(&self, site: &'static str) -> Self {
        Self { site, ..self.clone() }
    }

    /// Signs up and keeps the session.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn sign_up(&mut self, body: &Value) -> Result<Value> {
        let answer = self.post("/api/auth/sign-up", body).await?;
        self.keep_session(answer, 201)
    }

    /// Signs in and keeps the session.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn sign_in(&mut self, email: &str, password: &str) -> Result<Value> {
        let body = serde_json::json!({ "email": email, "password": password });
        let answer = self.post("/api/auth/sign-in", &body).await?;
        self.keep_session(answer, 200)
    }

    fn keep_session(&mut self, answer: Answer, status: u16) -> Result<Value> {
        let cookie = answer
            .headers
            .get(SET_COOKIE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let session = answer.expect(status)?;
        let cookie = cookie.context("no cookie")?;
        self.cookie = cookie.split(';').next().map(str::to_owned);
        self.csrf_token = session["csrf_token"].as_str().map(str::to_owned);
        Ok(session)
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, |request| request).await
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, |request| request.json(body)).await
    }

    /// Ends something.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, |request| request).await
    }

    /// Sends whatever `shape` makes of the request.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(cookie) = &self.cookie {
            request = request
                .header("cookie", cookie)
                .header("sec-fetch-site", self.site);
        }
        if let Some(csrf_token) = &self.csrf_token {
            request = request.header("x-csrf-token", csrf_token);
        }
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let answer = shape(request).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer {
            status,
            headers,
            text: answer.text().await?,
        })
    }
}
