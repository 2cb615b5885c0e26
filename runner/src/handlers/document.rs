//! The built-in job type `document_render`: an uploaded template (DOCX, Markdown, text) and a task's data become a document
//! and a report. Missing required input ends with exit code 2, a failed strict check with 4.

mod docx;
mod package;
mod report;
mod template;
mod tree;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Handler;
use super::command::exit_code;
use crate::context::Context;
use crate::error::JobError;
use crate::keeping::blocking;
use crate::payload_schema::PayloadSchema;
use crate::run_folder::{RunFolder, private_file};
use report::{Outcome, Report};
use template::{Findings, Unusable, render_text, require};

pub(crate) const NAME: &str = "document_render";

/// Exit codes, as callers of a synchronous run see them.
const MISSING: i32 = 2;
const NOT_STRICT: i32 = 4;
/// The largest template of plain text.
const LARGEST_TEXT: u64 = 4 * 1024 * 1024;

/// Renders documents.
#[derive(Debug)]
pub(crate) struct DocumentRender;

/// Its payload, which [`schema`] describes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payload {
    template: Option<String>,
    #[serde(default)]
    data: Map<String, Value>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    strict: bool,
    data_schema: Option<Value>,
    output: Option<String>,
}

/// What a payload must look like.
pub(crate) fn schema() -> Value {
    let path = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
    json!({
        "type": "object",
        "properties": {
            "template": { "type": "string", "description": "which of the uploaded files; may be left out where there is one" },
            "data": { "type": "object", "description": "what the placeholders stand for" },
            "required": { "type": "array", "items": path, "maxItems": 1000,
                "description": "paths that must be there beside those that placeholders ask for: a.b, items[].name" },
            "strict": { "type": "boolean", "default": false, "description": "end with exit code 4 where anything is formally wrong" },
            "data_schema": { "type": "object", "description": "a JSON Schema that the data must fit" },
            "output": { "type": "string", "pattern": "^[^/\\\\]{1,100}$", "description": "the document's name; the template's, unless said" },
        },
        "additionalProperties": false,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Docx,
    Text,
}

impl Format {
    fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "docx" => Some(Self::Docx),
            "md" | "markdown" | "txt" | "text" => Some(Self::Text),
            _ => None,
        }
    }
}

/// A template among the job's inputs.
#[derive(Debug)]
struct Template {
    path: PathBuf,
    name: String,
    format: Format,
}

impl Handler for DocumentRender {
    type Payload = Payload;
    type Output = Value;

    async fn run(&self, context: &Context, payload: Payload) -> Result<Value, JobError> {
        let folder = Arc::clone(context.folder().await?);
        let rendered = blocking(move || Ok(render(&folder, &payload))).await;
        let report = rendered.map_err(JobError::retry)??;
        context.log(&report.summary());
        match report.outcome {
            Outcome::Ok => Ok(report.result()),
            Outcome::MissingRequired => Err(ended(MISSING, &report)),
            Outcome::StrictFailed => Err(ended(NOT_STRICT, &report)),
        }
    }
}

fn ended(code: i32, report: &Report) -> JobError {
    JobError::Fail(format!("{}: {}", exit_code(code), report.summary()))
}

fn render(folder: &RunFolder, payload: &Payload) -> Result<Report, JobError> {
    let template = template_of(folder, payload)?;
    let output = output_name(payload, &template)?;
    let mut findings = Findings::default();
    for path in &payload.required {
        require(path, &payload.data, &mut findings);
    }
    check_schema(payload, &mut findings)?;
    // Rendered beside the artifacts: a document that lacks what it needs is not kept.
    let draft = folder.path().join("draft");
    let data = Value::Object(payload.data.clone());
    write_draft(&template, &data, &mut findings, &draft)?;
    let used = std::mem::take(&mut findings.used);
    for name in payload.data.keys().filter(|name| !used.contains(*name)) {
        findings.fault(format!(
            "{name} is in the data, and no placeholder asks for it"
        ));
    }
    let report = Report::of(findings, payload.strict, template.name, output);
    if report.outcome != Outcome::MissingRequired {
        std::fs::rename(&draft, folder.artifacts().join(&report.output)).map_err(not_written)?;
    }
    report.write(&folder.artifacts()).map_err(not_written)?;
    Ok(report)
}

fn write_draft(
    template: &Template,
    data: &Value,
    findings: &mut Findings,
    draft: &Path,
) -> Result<(), JobError> {
    let source = File::open(&template.path).map_err(not_written)?;
    match template.format {
        Format::Docx => docx::render_docx(source, data, findings, || private_file(draft))
            .map_err(refused)?
            .map_err(not_written),
        Format::Text => {
            let mut text = String::new();
            let size = source
                .take(LARGEST_TEXT + 1)
                .read_to_string(&mut text)
                .map_err(|_| JobError::fail("the template is no UTF-8 text"))?;
            if size as u64 > LARGEST_TEXT {
                return Err(JobError::Fail(format!(
                    "the template is larger than {LARGEST_TEXT} bytes"
                )));
            }
            let rendered = render_text(&text, data, findings).map_err(refused)?;
            let mut draft = private_file(draft).map_err(not_written)?;
            draft.write_all(rendered.as_bytes()).map_err(not_written)
        }
    }
}

fn template_of(folder: &RunFolder, payload: &Payload) -> Result<Template, JobError> {
    let list = std::fs::read(folder.inputs_list()).map_err(not_written)?;
    let list: Value = serde_json::from_slice(&list).map_err(JobError::fail)?;
    let inputs: Vec<(String, String)> = list["inputs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|input| {
            Some((
                input["file"].as_str()?.to_owned(),
                input["name"].as_str()?.to_owned(),
            ))
        })
        .collect();
    let found = match (&payload.template, inputs.as_slice()) {
        (Some(wanted), inputs) => inputs.iter().find(|(_, name)| name == wanted),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some((file, name)) = found else {
        return Err(JobError::fail(
            "there is no template: upload one file with the job, or name one of several as `template`",
        ));
    };
    let format = Format::of(name)
        .ok_or_else(|| JobError::fail("the template is none of .docx, .md and .txt"))?;
    Ok(Template {
        path: folder.inputs().join(file),
        name: name.clone(),
        format,
    })
}

/// The document's name; never that of the report.
fn output_name(payload: &Payload, template: &Template) -> Result<String, JobError> {
    let name = payload.output.as_ref().unwrap_or(&template.name);
    if Format::of(name) != Some(template.format) {
        return Err(JobError::fail(
            "`output` ends otherwise than the template does",
        ));
    }
    if !files::is_artifact_name(name)
        || name.contains('/')
        || report::NAMES.contains(&name.as_str())
    {
        return Err(JobError::fail(
            "`output` is a name that a document cannot have",
        ));
    }
    Ok(name.clone())
}

fn check_schema(payload: &Payload, findings: &mut Findings) -> Result<(), JobError> {
    let Some(schema) = &payload.data_schema else {
        return Ok(());
    };
    let schema = PayloadSchema::of_a_stranger(schema)
        .map_err(|why| JobError::Fail(format!("data_schema {why}")))?;
    for fault in schema.faults(&Value::Object(payload.data.clone())) {
        let place = fault.field.strip_prefix("/payload").unwrap_or(&fault.field);
        findings.fault(format!("data{place}: {}", fault.detail));
    }
    Ok(())
}

fn refused(why: Unusable) -> JobError {
    JobError::Fail(why.0)
}

#[expect(clippy::needless_pass_by_value, reason = "it is mapped to")]
fn not_written(error: std::io::Error) -> JobError {
    JobError::retry(format!("the document could not be written: {error}"))
}

#[cfg(test)]
mod tests;
