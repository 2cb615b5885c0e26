//! What a page says of a job, and what the database must have for it. Never payload, result, labels or log. Pure.

use jobs::ClaimedOutcome;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The properties that the database must have, with their types.
pub const PROPERTIES: [(&str, &str); 9] = [
    ("Job", "title"),
    (JOB_ID, "rich_text"),
    ("Status", "select"),
    ("Type", "select"),
    ("Queue", "select"),
    ("Attempts", "number"),
    ("Created", "date"),
    ("Finished", "date"),
    ("Error", "rich_text"),
];

/// By which the page of a job is found again.
pub(crate) const JOB_ID: &str = "Job ID";

/// Notion takes no longer text; it counts as JavaScript does.
const LONGEST_TEXT: usize = 2000;

/// What a page says of a job.
pub(crate) fn properties(job: &ClaimedOutcome) -> Value {
    let id = job.job_id.to_string();
    json!({
        "Job": {"title": text(&format!("{} {id}", job.job_type))},
        JOB_ID: {"rich_text": text(&id)},
        "Status": {"select": {"name": job.status}},
        "Type": {"select": {"name": job.job_type}},
        "Queue": {"select": {"name": job.queue}},
        "Attempts": {"number": job.job_attempt},
        "Created": {"date": {"start": instant(job.created_at)}},
        "Finished": {"date": {"start": instant(job.finished_at)}},
        // An empty list empties what an earlier end has left.
        "Error": {"rich_text": job.error.as_deref().map_or_else(|| json!([]), text)},
    })
}

/// What is wrong with a database as Notion describes it; empty: nothing.
pub(crate) fn faults(database: &Value) -> Vec<String> {
    let is_set = |name: &str| database[name].as_bool().unwrap_or_default();
    if is_set("archived") || is_set("in_trash") {
        return vec!["the database is in the trash".to_owned()];
    }
    let fault = |(name, wanted): (&str, &str)| match database["properties"][name]["type"].as_str() {
        Some(found) if found == wanted => None,
        Some(found) => Some(format!(
            "the property \"{name}\" is of type {found}, not {wanted}"
        )),
        None => Some(format!("the property \"{name}\" ({wanted}) is missing")),
    };
    PROPERTIES.into_iter().filter_map(fault).collect()
}

fn text(content: &str) -> Value {
    json!([{"type": "text", "text": {"content": cut(content)}}])
}

/// To milliseconds, as Notion shows instants itself.
fn instant(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(u32::from(at.millisecond()) * 1_000_000);
    // The database keeps no instant that cannot be written so.
    whole.unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

fn cut(text: &str) -> String {
    let length = |letters: &str| letters.encode_utf16().count();
    if length(text) <= LONGEST_TEXT {
        return text.to_owned();
    }
    let mut left = LONGEST_TEXT - 1;
    let fits = |letter: &char| match left.checked_sub(letter.len_utf16()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    fn job(error: Option<&str>) -> ClaimedOutcome {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_785_000_000_123_456_000);
        let at = at.expect("an instant");
        ClaimedOutcome {
            wait: Duration::ZERO,
            job_id: Uuid::from_u128(7),
            attempt: 1,
            seq: 3,
            page_id: None,
            look: false,
            job_type: "deploy".to_owned(),
            queue: "default".to_owned(),
            status: "failed".to_owned(),
            job_attempt: 2,
            error: error.map(str::to_owned),
            created_at: at,
            finished_at: at,
        }
    }

    #[test]
    fn a_page_says_what_the_database_has_a_property_for_and_nothing_else() {
        let said = properties(&job(Some("exit 1")));
        let names: Vec<&String> = said.as_object().expect("an object").keys().collect();
        let mut wanted = PROPERTIES.map(|(name, _)| name);
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        for (name, kind) in PROPERTIES {
            assert!(said[name].get(kind).is_some(), "{name}: {said}");
        }
        assert_eq!(
            said["Finished"]["date"]["start"],
            "2026-07-25T17:20:00.123Z"
        );
        assert_eq!(
            said["Error"]["rich_text"][0]["text"]["content"],
            json!("exit 1")
        );
        assert_eq!(properties(&job(None))["Error"]["rich_text"], json!([]));
    }

    #[test]
    fn a_text_is_cut_as_notion_counts_it() {
        for (letter, letters) in [("a", 1999), ("ä", 1999), ("😀", 999)] {
            let said = properties(&job(Some(&letter.repeat(3000))));
            let kept = said["Error"]["rich_text"][0]["text"]["content"].clone();
            let kept = kept.as_str().expect("a text");
            assert_eq!(kept, format!("{}…", letter.repeat(letters)));
            assert!(kept.encode_utf16().count() <= 2000);
        }
        let whole = "a".repeat(2000);
        assert_eq!(cut(&whole), whole);
    }

    #[test]
    fn each_property_that_is_missing_or_of_another_type_is_named() {
        let right: serde_json::Map<String, Value> = PROPERTIES
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), json!({"type": kind})))
            .collect();
        assert!(faults(&json!({"properties": right.clone()})).is_empty());
        let mut wrong = right;
        wrong.remove("Queue");
        wrong["Status"] = json!({"type": "status"});
        let said = faults(&json!({"properties": wrong}));
        assert_eq!(
            said,
            [
                "the property \"Status\" is of type status, not select",
                "the property \"Queue\" (select) is missing"
            ]
        );
        assert_eq!(faults(&json!({"archived": true})).len(), 1);
    }
}
