//! What goes wrong, as problem+json.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    title: &'static str,
    status: u16,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str) -> Self {
        Self {
            title,
            status: status.as_u16(),
        }
    }
}

pub(crate) fn nobody() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "Nobody is signed in")
}

pub(crate) fn no_persona() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "There is no such persona")
}

pub(crate) fn no_template() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "There is no such template")
}

pub(crate) fn fault() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here")
}

pub(crate) fn name_missing() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "A persona has a name of 1 to 200 characters, none of them NUL",
    )
}

pub(crate) fn account_missing() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "An account has an id")
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(error = %error, "the database failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The database failed")
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        if status.code() == tonic::Code::InvalidArgument {
            return Self::new(
                StatusCode::BAD_REQUEST,
                "An account has an id of 1 to 128 of [A-Za-z0-9_.:-]",
            );
        }
        tracing::error!(error = %status, "Octroi did not answer as it should");
        Self::new(StatusCode::BAD_GATEWAY, "Octroi did not answer as it should")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}
