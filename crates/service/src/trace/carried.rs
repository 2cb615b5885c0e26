//! What goes from one program to the next: W3C `traceparent` and `tracestate`. Parsed at the door; what is not well-formed is
//! as if it had not been sent.

use std::str::FromStr;

use axum::http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Longer ones may be left out, says the standard.
const LONGEST_STATE: usize = 512;

/// The span that caused something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// `00-` trace id `-` span id `-` flags, in lower-case hexadecimal digits.
    pub traceparent: String,
    /// What vendors of tracing add.
    pub tracestate: Option<String>,
}

impl Carried {
    /// Takes both as they were sent or kept; a state that cannot be handed on is left out.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        is_traceparent(traceparent).then(|| Self {
            traceparent: traceparent.to_owned(),
            tracestate: tracestate
                .filter(|state| (1..=LONGEST_STATE).contains(&state.len()))
                .filter(|state| state.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
                .map(str::to_owned),
        })
    }

    /// Reads them from a request.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut sent = headers.get_all("traceparent").iter();
        let only = sent.next().filter(|_| sent.next().is_none())?;
        let states: Vec<&str> = headers
            .get_all("tracestate")
            .iter()
            .filter_map(|state| state.to_str().ok())
            .collect();
        Self::parse(only.to_str().ok()?, Some(states.join(",").as_str()))
    }

    /// The id of the whole trace.
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }

    pub(super) fn of(context: &SpanContext) -> Self {
        let state = context.trace_state().header();
        Self {
            traceparent: format!(
                "00-{}-{}-{:02x}",
                context.trace_id(),
                context.span_id(),
                context.trace_flags().to_u8()
            ),
            tracestate: (!state.is_empty()).then_some(state),
        }
    }

    pub(super) fn span_context(&self) -> Option<SpanContext> {
        let mut parts = self.traceparent.split('-').skip(1);
        let trace = TraceId::from_hex(parts.next()?).ok()?;
        let span = SpanId::from_hex(parts.next()?).ok()?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        let state = self
            .tracestate
            .as_deref()
            .and_then(|state| TraceState::from_str(state).ok())
            .unwrap_or_default();
        Some(SpanContext::new(
            trace,
            span,
            TraceFlags::new(flags),
            true,
            state,
        ))
    }
}

/// Version 00, and neither id all zeros.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_id =
        |part: &str, length: usize| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    match parts[..] {
        [version, trace, span, flags] => {
            version == "00" && is_id(trace, 32) && is_id(span, 16) && is_hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_a_well_formed_traceparent_is_taken() {
        assert!(Carried::parse(RIGHT, None).is_some());
        for wrong in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(Carried::parse(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_handed_on_is_left_out() {
        let state = |state: &str| {
            Carried::parse(RIGHT, Some(state))
                .expect("right")
                .tracestate
        };
        assert_eq!(state("a=b,c=d").as_deref(), Some("a=b,c=d"));
        for wrong in ["", "a=\u{e9}", "a=b\n", &"a".repeat(513)] {
            assert_eq!(state(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_read_is_what_is_handed_on() {
        let carried = Carried::parse(RIGHT, Some("a=b")).expect("right");
        let context = carried.span_context().expect("a context");
        assert_eq!(Carried::of(&context), carried);
        assert_eq!(carried.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn a_doubled_traceparent_is_none() {
        let mut headers = HeaderMap::new();
        let value: axum::http::HeaderValue = RIGHT.parse().expect("a header");
        headers.append("traceparent", value.clone());
        assert!(Carried::of_headers(&headers).is_some());
        headers.append("traceparent", value);
        assert!(Carried::of_headers(&headers).is_none());
    }
}
