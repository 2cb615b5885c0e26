//! The routes: the control plane's from its committed description, the runner's as the contract has them.

use gauntlet::seed::Numbers;
use serde_json::{Value, json};

use crate::hostile;
use crate::json::{Json, quoted};
use crate::request::Side;

const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Job types that run, that nobody takes, that fail, and that are behind a flag that is off.
pub(crate) const JOB_TYPES: [&str; 10] = [
    NOBODY,
    NOBODY,
    NOBODY,
    NOBODY,
    NOBODY,
    NOBODY,
    NOBODY,
    "works",
    "fails",
    "captorator_compose",
];

/// What each job that runs costs is no matter of the requests, so most do not run.
const NOBODY: &str = "nobody_takes_it";

/// What a parameter of a query or a body may be.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    schema: Value,
}

/// A route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) side: Side,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<Parameter>,
    pub(crate) takes_key: bool,
    pub(crate) body: Option<Value>,
}

impl Route {
    pub(crate) fn name(&self) -> String {
        let side = match self.side {
            Side::ControlPlane => "",
            Side::Runner => "runner ",
        };
        format!("{side}{} {}", self.method, self.path)
    }

    pub(crate) fn names_a_job(&self) -> bool {
        self.path.contains("{id}")
    }

    /// Whether anyone may ask.
    pub(crate) fn is_open(&self) -> bool {
        ["/healthz", "/livez", "/readyz", "/gates/{token}"].contains(&self.path.as_str())
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) all: Vec<Route>,
    components: Value,
}

impl Routes {
    pub(crate) fn read() -> Self {
        let document: Value = serde_json::from_str(OPENAPI).expect("a committed description");
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            // A paused fleet takes no job for the rest of the run; its body is read as that of an abort.
            if path.ends_with("/fleet/pause") {
                continue;
            }
            for (method, operation) in item.as_object().expect("methods") {
                all.push(route(path, method, operation));
            }
        }
        all.extend(runner());
        Self {
            all,
            components: document["components"]["schemas"].clone(),
        }
    }

    /// The routes of this method whose path ends so.
    pub(crate) fn find(&self, method: &str, end: &str) -> &Route {
        let route = self
            .all
            .iter()
            .find(|route| route.method == method && route.path.ends_with(end));
        route.unwrap_or_else(|| panic!("no {method} {end} in the description"))
    }

    /// A value that fits a schema, and the names that mean more than their schema says.
    pub(crate) fn fitting(
        &self,
        name: &str,
        schema: &Value,
        numbers: &mut Numbers,
        id: &str,
    ) -> Json {
        if let Some(reference) = schema["$ref"].as_str() {
            let name_of_it = reference.rsplit('/').next().unwrap_or_default();
            return self.fitting(name, &self.components[name_of_it], numbers, id);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            return self.fitting(name, &choices[numbers.index(choices.len())], numbers, id);
        }
        match name {
            "job_type" => return Json::string(JOB_TYPES[numbers.index(JOB_TYPES.len())]),
            "job_id" => return Json::string(id),
            "run_at" | "created_after" | "created_before" => {
                return Json::string("2026-01-02T03:04:05Z");
            }
            "payload" => return any(numbers, 3),
            "status" => return Json::string(["failed", "aborted"][numbers.index(2)]),
            "timeout_seconds" => return Json::text("30"),
            _ => {}
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds[0].as_str().unwrap_or_default(),
            kind => kind.as_str().unwrap_or_default(),
        };
        match kind {
            "object" => self.object(schema, numbers, id),
            "array" => {
                let count = numbers.index(4) + 1;
                Json::List(
                    (0..count)
                        .map(|_| self.fitting("", &schema["items"], numbers, id))
                        .collect(),
                )
            }
            "string" => Json::string(["a", "default", "nightly_run"][numbers.index(3)]),
            "integer" => Json::text(integer(schema, numbers).to_string()),
            "boolean" => Json::text(["true", "false"][numbers.index(2)]),
            "null" => Json::text("null"),
            _ => any(numbers, 2),
        }
    }

    fn object(&self, schema: &Value, numbers: &mut Numbers, id: &str) -> Json {
        let Some(properties) = schema["properties"].as_object() else {
            let labels = ["team", "env", "x"];
            let count = numbers.index(3);
            let members = labels
                .iter()
                .take(count)
                .map(|label| (quoted(label), Json::string("one")));
            return Json::Object(members.collect());
        };
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut members = Vec::new();
        for (name, property) in properties {
            // Without a limit, each replay would queue all that the others left.
            let is_needed = required.iter().any(|needed| needed == name) || name == "limit";
            if is_needed || numbers.index(3) == 0 {
                members.push((quoted(name), self.fitting(name, property, numbers, id)));
            }
        }
        Json::Object(members)
    }
}

fn integer(schema: &Value, numbers: &mut Numbers) -> i64 {
    let low = schema["minimum"].as_i64().unwrap_or(0);
    let high = schema["maximum"].as_i64().unwrap_or(100).min(low + 50);
    low + i64::try_from(numbers.index(usize::try_from(high - low + 1).unwrap_or(1))).unwrap_or(0)
}

/// Any JSON, of at most this depth.
fn any(numbers: &mut Numbers, depth: usize) -> Json {
    match numbers.index(if depth == 0 { 4 } else { 6 }) {
        0 => Json::text("{}"),
        1 => Json::text(numbers.index(1000).to_string()),
        2 => Json::string("text"),
        3 => Json::text("null"),
        4 => Json::List(
            (0..numbers.index(3))
                .map(|_| any(numbers, depth - 1))
                .collect(),
        ),
        _ => Json::object([
            ("a", any(numbers, depth - 1)),
            ("b", any(numbers, depth - 1)),
        ]),
    }
}

fn route(path: &str, method: &str, operation: &Value) -> Route {
    let parameters = operation["parameters"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let of = |place: &str| {
        let these = parameters
            .iter()
            .filter(|parameter| parameter["in"] == place);
        let read = these.map(|parameter| Parameter {
            name: parameter["name"].as_str().unwrap_or_default().to_owned(),
            schema: parameter["schema"].clone(),
        });
        read.collect::<Vec<_>>()
    };
    Route {
        side: Side::ControlPlane,
        method: method.to_uppercase(),
        path: path.to_owned(),
        query: of("query"),
        takes_key: of("header")
            .iter()
            .any(|header| header.name == "Idempotency-Key"),
        body: operation["requestBody"]["content"]["application/json"]
            .get("schema")
            .cloned(),
    }
}

fn runner() -> Vec<Route> {
    let text = |kind: &str| json!({ "type": kind });
    let run = json!({"oneOf": [
        {"type": "object", "required": ["job_id"], "properties": {"job_id": text("string")}},
        {"type": "object", "required": ["job_type"], "properties": {"job_type": text("string"), "payload": {}}},
    ]});
    let routes = [
        ("POST", "/run", Some(run)),
        ("POST", "/tick", None),
        ("GET", "/v1/meta", None),
        ("GET", "/healthz", None),
        ("GET", "/livez", None),
        ("GET", "/readyz", None),
    ];
    let route = |(method, path, body): (&str, &str, Option<Value>)| Route {
        side: Side::Runner,
        method: method.to_owned(),
        path: path.to_owned(),
        query: Vec::new(),
        takes_key: path == "/run",
        body,
    };
    routes.into_iter().map(route).collect()
}

impl Parameter {
    /// A value for a query.
    pub(crate) fn value(&self, numbers: &mut Numbers) -> String {
        match self.name.as_str() {
            "status" => [
                "queued",
                "running",
                "failed",
                "aborted",
                "succeeded",
                "waiting",
            ][numbers.index(6)]
            .to_owned(),
            "label" => ["team=one", "env:one", "x=one"][numbers.index(3)].to_owned(),
            "stalled" => ["true", "false"][numbers.index(2)].to_owned(),
            "created_after" | "created_before" => "2026-01-02T03:04:05Z".to_owned(),
            "job_type" => JOB_TYPES[numbers.index(JOB_TYPES.len())].to_owned(),
            _ if self.schema["type"][0] == "integer" => integer(&self.schema, numbers).to_string(),
            "cursor" => hostile::text(numbers),
            _ => "default".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_gives_every_route_with_its_parameters_and_bodies() {
        let routes = Routes::read();
        let names: Vec<String> = routes.all.iter().map(Route::name).collect();
        for name in ["POST /api/v1/ops/jobs", "runner POST /run", "GET /readyz"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        let list = routes.find("GET", "/jobs");
        assert!(
            list.query
                .iter()
                .any(|parameter| parameter.name == "limit" && !parameter.schema.is_null())
        );
        assert!(routes.find("POST", "/jobs").takes_key);
    }

    #[test]
    fn what_fits_a_schema_is_json_with_what_is_required() {
        let routes = Routes::read();
        let body = routes.find("POST", "/jobs").body.clone().expect("a body");
        for seed in 0..200 {
            let fitting = routes
                .fitting("", &body, &mut Numbers::of(seed), "x")
                .bytes();
            let value: Value = serde_json::from_slice(&fitting).expect("JSON");
            assert!(value["job_type"].is_string(), "{value}");
        }
    }
}
