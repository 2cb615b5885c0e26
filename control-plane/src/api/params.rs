//! What requests bear beside their bodies: a job's id in the path, an idempotency key in a header.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use service::{FieldError, Path, Problem};
use uuid::Uuid;

use crate::error::no_such_job;

/// The job that the path names; what is no id names no job.
pub(crate) struct JobId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for JobId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<Uuid>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id)).map_err(|_| no_such_job())
    }
}

/// The header `Idempotency-Key`, if it was sent.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl IdempotencyKey {
    /// Refuses the key where it would mean nothing.
    pub(crate) fn refuse(&self, why: &'static str) -> Result<(), Problem> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(Problem::invalid_fields(vec![FieldError::new(
                "Idempotency-Key",
                why,
            )])),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut sent = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = sent.next() else {
            return Ok(Self(None));
        };
        let is_visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
        match value.to_str() {
            Ok(key) if is_visible && (1..=255).contains(&key.len()) && sent.next().is_none() => {
                Ok(Self(Some(key.to_owned())))
            }
            Ok(_) | Err(_) => {
                let why = "must be sent once, with 1 to 255 visible ASCII characters";
                Err(Problem::invalid_fields(vec![FieldError::new(
                    "Idempotency-Key",
                    why,
                )]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn key(values: &[&str]) -> Result<Option<String>, u16> {
        let mut request = Request::builder();
        for value in values {
            request = request.header("idempotency-key", *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let key = IdempotencyKey::from_request_parts(&mut parts, &()).await;
        key.map(|key| key.0)
            .map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn an_idempotency_key_is_visible_ascii_sent_once() {
        let longest = "k".repeat(255);
        assert_eq!(key(&[]).await, Ok(None));
        for good in ["a", "5e1b-~!", &longest] {
            assert_eq!(key(&[good]).await, Ok(Some(good.to_owned())));
        }
        let too_long = "k".repeat(256);
        for bad in [&[""][..], &["a b"], &["ä"], &[&too_long], &["a", "a"]] {
            assert_eq!(key(bad).await, Err(422), "{bad:?}");
        }
    }
}
