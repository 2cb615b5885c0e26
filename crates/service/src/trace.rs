//! Traces: W3C Trace Context in and out, and spans that are exported over OTLP where an endpoint is set.
//!
//! What a caller sends is handed on whether or not anything is exported. Nothing waits for an export, and one that fails is
//! said once and costs no request and no job.

mod carried;
mod export;
mod watch;

use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use url::Url;

pub use carried::Carried;
pub use export::TraceError;
pub use watch::Caused;

use crate::settings::{Fallback, Kind, Setting, Values};

/// How long the last spans may take to be exported when a program ends.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// Where traces go.
#[derive(Debug, Clone, Default)]
pub struct TraceSettings {
    /// The whole address that spans are posted to; `None`: nothing is exported.
    pub endpoint: Option<Url>,
}

impl TraceSettings {
    /// The declarations.
    pub const SETTINGS: &'static [Setting] = &[
        Setting::new(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            Kind::Url,
            Fallback::Unset,
            "where traces are exported to, by OTLP over HTTP with protobuf: `/v1/traces` is appended. The other standard OTEL variables hold, in the environment only",
        ),
        Setting::new(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            Kind::Url,
            Fallback::Unset,
            "the same as a whole address, to which nothing is appended; it wins",
        ),
        Setting::new(
            "OTEL_SDK_DISABLED",
            Kind::Switch,
            Fallback::Is("0"),
            "`true`: nothing is exported, whatever else is set",
        ),
    ];

    /// Reads them.
    pub fn read(values: &mut Values) -> Self {
        let base = values.optional_url("OTEL_EXPORTER_OTLP_ENDPOINT");
        let whole = values.optional_url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let disabled = values.switch("OTEL_SDK_DISABLED");
        Self {
            endpoint: whole.or_else(|| base.map(with_path)).filter(|_| !disabled),
        }
    }
}

fn with_path(mut base: Url) -> Url {
    if let Ok(mut segments) = base.path_segments_mut() {
        segments.pop_if_empty().extend(["v1", "traces"]);
    }
    base
}

/// What a span stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A request that is answered.
    Server,
    /// A call to another service.
    Client,
    /// Work that is recorded for later.
    Producer,
    /// Work that was recorded before.
    Consumer,
    /// A part of any of these.
    Internal,
}

impl From<Role> for SpanKind {
    fn from(role: Role) -> Self {
        match role {
            Role::Server => Self::Server,
            Role::Client => Self::Client,
            Role::Producer => Self::Producer,
            Role::Consumer => Self::Consumer,
            Role::Internal => Self::Internal,
        }
    }
}

/// Makes the spans of one program. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracing {
    exporting: Option<Exporting>,
}

#[derive(Debug, Clone)]
struct Exporting {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Tracing {
    /// Begins to export where an endpoint is set; call it within the runtime that the program runs on.
    ///
    /// # Errors
    /// When the exporter cannot be made; the endpoint need not be there.
    pub fn start(
        settings: &TraceSettings,
        program: &'static str,
        version: &'static str,
    ) -> Result<Self, TraceError> {
        let Some(endpoint) = &settings.endpoint else {
            return Ok(Self::default());
        };
        let provider = export::provider(endpoint, program, version)?;
        let tracer = provider.tracer("ops-jobs");
        Ok(Self {
            exporting: Some(Exporting { tracer, provider }),
        })
    }

    /// Begins a span; it ends when it is dropped. Without a parent it is the root of a trace of its own. Its name and its
    /// attributes are asked for only where spans are exported.
    pub fn begin<const COUNT: usize>(
        &self,
        role: Role,
        parent: Option<&Carried>,
        describe: impl FnOnce() -> (String, [(&'static str, Value); COUNT]),
    ) -> Span {
        let own = self.exporting.as_ref().map(|exporting| {
            let context = match parent.and_then(Carried::span_context) {
                Some(parent) => Context::new().with_remote_span_context(parent),
                None => Context::new(),
            };
            let (name, attributes) = describe();
            let attributes = attributes.map(|(key, value)| KeyValue::new(key, value));
            let builder = exporting.tracer.span_builder(name);
            let builder = builder.with_kind(role.into()).with_attributes(attributes);
            Box::new(builder.start_with_context(&exporting.tracer, &context))
        });
        Span {
            own,
            parent: parent.cloned(),
        }
    }

    /// Exports what is left, for a while at most.
    pub async fn stop(&self) {
        let Some(Exporting { provider, .. }) = self.exporting.clone() else {
            return;
        };
        // It waits for a thread of its own.
        let stopping =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS));
        let _ = tokio::time::timeout(LAST_SPANS, stopping).await;
    }
}

/// A span that is under way, or nothing where nothing is exported. Dropping it ends it.
#[derive(Debug)]
pub struct Span {
    /// Apart, as it is large and mostly there is none.
    own: Option<Box<opentelemetry_sdk::trace::Span>>,
    parent: Option<Carried>,
}

impl Span {
    /// What children of it bear: itself, or where nothing is exported what it would have been a child of.
    pub fn carried(&self) -> Option<Carried> {
        match &self.own {
            Some(own) => Some(Carried::of(own.span_context())),
            None => self.parent.clone(),
        }
    }

    /// Adds what is known only now.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(own) = &mut self.own {
            own.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Notes an instant within it.
    pub fn event(&mut self, name: &'static str) {
        if let Some(own) = &mut self.own {
            own.add_event(name, Vec::new());
        }
    }

    /// Marks it as failed, with a word of ours that says how; never with what a handler said.
    pub fn fail(&mut self, word: &'static str) {
        if let Some(own) = &mut self.own {
            own.set_attribute(KeyValue::new("error.type", word));
            own.set_status(Status::error(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_endpoint_a_span_hands_on_what_it_was_given_and_nothing_else() {
        let tracing = Tracing::default();
        let caller = Carried::parse(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("a=b"),
        );
        assert!(caller.is_some());
        let span = tracing.begin(Role::Server, caller.as_ref(), || ("x".to_owned(), []));
        assert_eq!(span.carried(), caller);
        let root = tracing.begin(Role::Server, None, || ("x".to_owned(), []));
        assert_eq!(root.carried(), None);
    }

    #[test]
    fn the_path_of_traces_is_appended_to_whatever_the_endpoint_has() {
        for (base, whole) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://h/otlp/", "https://h/otlp/v1/traces"),
        ] {
            assert_eq!(with_path(base.parse().expect("an address")).as_str(), whole);
        }
    }
}
