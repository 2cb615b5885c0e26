//! OTLP over HTTP, through the client that everything of ours uses. The SDK's own thread exports; it reads the standard OTEL
//! variables by itself.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use url::Url;

use crate::http_client;

const SERVICE_NAME: Key = Key::from_static_str("service.name");

/// Why traces cannot be exported.
#[derive(Debug)]
pub enum TraceError {
    /// The client cannot be made.
    Client(reqwest::Error),
    /// The exporter cannot be made.
    Exporter(opentelemetry_otlp::ExporterBuildError),
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "cannot make a client for OTEL_EXPORTER_OTLP_ENDPOINT",
            Self::Exporter(_) => "cannot use OTEL_EXPORTER_OTLP_ENDPOINT",
        })
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(cause) => Some(cause),
            Self::Exporter(cause) => Some(cause),
        }
    }
}

pub(super) fn provider(
    endpoint: &Url,
    program: &'static str,
    version: &'static str,
) -> Result<SdkTracerProvider, TraceError> {
    let http = http_client::client(Duration::from_secs(10), program).map_err(TraceError::Client)?;
    let client = Client {
        http,
        runtime: Handle::current(),
        is_failing: AtomicBool::new(false),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(endpoint.as_str())
        .build()
        .map_err(TraceError::Exporter)?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource(program, version))
        .build())
}

/// What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, else who we are.
fn resource(program: &'static str, version: &'static str) -> Resource {
    let detected = Resource::builder().build();
    let is_named = detected
        .get(&SERVICE_NAME)
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", version));
    if is_named {
        builder.build()
    } else {
        builder
            .with_service_name(format!("ops-jobs-{program}"))
            .build()
    }
}

/// Sends what the exporter has encoded.
struct Client {
    http: reqwest::Client,
    /// The exporter asks from a thread of its own, where no connection could live.
    runtime: Handle,
    is_failing: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl HttpClient for Client {
    fn send_bytes<'own, 'sending>(
        &'own self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'own: 'sending,
        Self: 'sending,
    {
        Box::pin(async move {
            let sent = in_runtime(&self.runtime, self.send(request)).await;
            let failed = !matches!(&sent, Ok(response) if response.status().is_success());
            if failed && !self.is_failing.swap(failed, Ordering::Relaxed) {
                tracing::warn!(
                    event = "traces_not_exported",
                    "told once, until it works again"
                );
            } else if !failed && self.is_failing.swap(failed, Ordering::Relaxed) {
                tracing::info!(event = "traces_exported");
            }
            sent
        })
    }
}

impl Client {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let response = self
            .http
            .execute(request)
            .await
            .map_err(reqwest::Error::without_url)?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(reqwest::Error::without_url)?;
        Ok(Response::builder().status(status).body(body)?)
    }
}

/// Polls a future as if on the runtime, from whatever thread.
async fn in_runtime<T>(runtime: &Handle, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _entered = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}
