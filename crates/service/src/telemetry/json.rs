//! Log events as flat JSON objects: the event's own fields over those of the spans around it.

use std::fmt;
use std::fs::File;
use std::io::Write;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Writes each event as one line of JSON.
pub(super) enum JsonLines {
    /// To standard output.
    Stdout,
    /// To the end of a file.
    File(File),
}

/// The fields of a span, kept with it until its events are written.
struct SpanFields(Map<String, Value>);

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields.0));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(kept) = span.extensions_mut().get_mut::<SpanFields>() {
            let mut fields = Fields(std::mem::take(&mut kept.0));
            values.record(&mut fields);
            kept.0 = fields.0;
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = line(event, &context).to_string();
        line.push('\n');
        let written = match self {
            Self::Stdout => std::io::stdout().lock().write_all(line.as_bytes()),
            // One write a line, so that lines of several threads do not mix.
            Self::File(file) => (&mut &*file).write_all(line.as_bytes()),
        };
        // Where nobody reads the log any more, there is nobody to tell.
        let _ = written;
    }
}

fn line<S>(event: &Event<'_>, context: &Context<'_, S>) -> Value
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let mut fields = Fields(Map::new());
    for span in context
        .event_scope(event)
        .into_iter()
        .flat_map(|scope| scope.from_root())
    {
        if let Some(kept) = span.extensions().get::<SpanFields>() {
            fields.0.extend(kept.0.clone());
        }
    }
    event.record(&mut fields);
    let Fields(mut object) = fields;
    object.insert("timestamp".to_owned(), timestamp().into());
    object.insert("level".to_owned(), event.metadata().level().as_str().into());
    object.insert("target".to_owned(), event.metadata().target().into());
    Value::Object(object)
}

/// Now, in UTC, as RFC 3339.
fn timestamp() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

struct Fields(Map<String, Value>);

impl Fields {
    fn keep(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.keep(field, text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    struct Kept(Arc<Mutex<Vec<Value>>>);

    impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Kept {
        fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            JsonLines::Stdout.on_new_span(attributes, id, context);
        }

        fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
            JsonLines::Stdout.on_record(id, values, context);
        }

        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            self.0.lock().expect("lines").push(line(event, &context));
        }
    }

    fn lines_of(work: impl FnOnce()) -> Vec<Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Kept(Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, work);
        let lines = lines.lock().expect("lines");
        lines.clone()
    }

    #[test]
    fn span_fields_and_event_fields_stand_in_one_flat_object() {
        let lines = lines_of(|| {
            let outer =
                tracing::info_span!("request", request_id = "r1", late = tracing::field::Empty);
            outer.record("late", 7);
            let _outer = outer.enter();
            let _inner = tracing::info_span!("job", job_id = "j1").entered();
            tracing::warn!(event = "claimed", attempt = 2, "a message");
        });
        let line = &lines[0];
        for (name, expected) in [
            ("request_id", Value::from("r1")),
            ("late", Value::from(7)),
            ("job_id", Value::from("j1")),
            ("event", Value::from("claimed")),
            ("attempt", Value::from(2)),
            ("message", Value::from("a message")),
            ("level", Value::from("WARN")),
        ] {
            assert_eq!(line[name], expected, "{name}");
        }
        assert!(
            line["timestamp"]
                .as_str()
                .is_some_and(|at| at.ends_with('Z'))
        );
    }

    #[test]
    fn a_file_gets_each_event_as_a_line() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let lines = JsonLines::File(path.reopen().expect("opened"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info!(event = "first");
            tracing::info!(event = "second");
        });
        let text = std::fs::read_to_string(path.path()).expect("read");
        let events: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["event"].clone())
            .collect();
        assert_eq!(events, ["first", "second"]);
    }

    #[test]
    fn a_line_break_in_a_field_cannot_make_a_second_line() {
        let lines = lines_of(|| tracing::info!(name = "a\r\n{\"forged\":1}\u{1b}[31m", "x"));
        let text = lines[0].to_string();
        assert!(!text.contains(['\n', '\r', '\u{1b}']), "{text}");
    }
}
