//! The layers of a configuration laid over each other: defaults, file, environment.
//!
//! Environment values stay raw text until a getter parses them, so that no library can guess a
//! type or print a value. Problems are collected; [`Values::finish`] tells all of them at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use super::table::{Fallback, Kind, Setting};
use super::{Environment, SettingProblem, SettingsError, file};

/// Variables that begin like this are ours, so that a near miss is a spelling mistake.
const OUR_PREFIXES: [&str; 6] = [
    "RUNNER_",
    "CONTROL_PLANE_",
    "CONSOLE_",
    "OPS_",
    "CORS_",
    "LOG_",
];

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The `--config` file; without it, the file named by `OPS_CONFIG`, if any.
    pub config: Option<PathBuf>,
    /// The environment that is laid over the file.
    pub environment: Environment,
}

/// Which layer a setting was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// The default that its declaration names.
    Default,
    /// None: it is not set and has no default.
    Unset,
}

/// The settings of one program, read by typed getters that collect what is wrong.
///
/// A getter that finds something wrong returns a placeholder, which cannot get out: the
/// configuration that was built comes back from [`Values::finish`] only if nothing was wrong.
#[derive(Debug)]
#[must_use = "what was wrong is only told by finish()"]
pub struct Values {
    declared: BTreeMap<&'static str, Setting>,
    texts: BTreeMap<&'static str, (Source, String)>,
    sections: Dict,
    config_file: Option<PathBuf>,
    warnings: Vec<String>,
    problems: Vec<SettingProblem>,
}

impl Values {
    /// Lays the sources of these settings over each other; `sections` are the tables which the
    /// file may hold beside the settings, for example `job_types`.
    pub fn load(tables: &[&[Setting]], sections: &[&str], sources: Sources) -> Self {
        let declared: BTreeMap<_, _> = tables
            .iter()
            .flat_map(|table| table.iter())
            .map(|setting| (setting.name, *setting))
            .collect();
        let mut values = Self {
            declared,
            texts: BTreeMap::new(),
            sections: Dict::new(),
            config_file: None,
            warnings: Vec::new(),
            problems: Vec::new(),
        };
        values.lay_defaults();
        let config = sources
            .config
            .or_else(|| sources.environment.raw("OPS_CONFIG").map(PathBuf::from));
        if let Some(path) = config {
            values.lay_file(&path, sections);
            values.config_file = Some(path);
        }
        values.lay_environment(&sources.environment);
        values
    }

    /// The configuration, if every setting that was read and every check that was made is right.
    pub fn finish<C>(self, configuration: C) -> Result<C, SettingsError> {
        if self.problems.is_empty() {
            Ok(configuration)
        } else {
            Err(SettingsError {
                problems: self.problems,
            })
        }
    }

    /// Notes that a setting is wrong; the detail says what is wrong and what to do, without the
    /// value.
    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let detail = detail.into();
        // The first thing said about a setting is the cause, the rest would follow from it.
        if !self.problems.iter().any(|problem| problem.name == name) {
            let name = name.to_owned();
            self.problems.push(SettingProblem { name, detail });
        }
    }

    /// Lines worth logging once the program has started, for example likely misspellings.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The configuration file that was read, so that paths in it can be taken relative to it.
    pub fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    /// Every declared setting with the layer it was taken from, in the order of the names.
    pub fn sources(&self) -> impl Iterator<Item = (&'static str, Source)> + '_ {
        self.declared.keys().map(|name| {
            let source = self
                .texts
                .get(name)
                .map_or(Source::Unset, |(source, _)| *source);
            (*name, source)
        })
    }

    /// A table of the file beside the settings; its default when the file has none.
    pub fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let Some(value) = self.sections.get(name) else {
            return T::default();
        };
        match value.deserialize() {
            Ok(section) => section,
            Err(error) => {
                self.refuse(name, file::section_fault(&error));
                T::default()
            }
        }
    }

    /// A table of tables of the file beside the settings. Each key of each table is looked at alone, so that all that is
    /// wrong is told at once; so `T` may require none.
    pub fn tables<T: DeserializeOwned>(&mut self, name: &str) -> BTreeMap<String, T> {
        let mut tables = BTreeMap::new();
        for (key, table) in self.section::<BTreeMap<String, figment::value::Value>>(name) {
            match file::table::<T>(&table) {
                Ok(table) => {
                    tables.insert(key, table);
                }
                Err(faults) => self.refuse(&format!("{name}.{key}"), faults.join("; ")),
            }
        }
        tables
    }

    pub(super) fn declared(&self, name: &str) -> Option<Setting> {
        self.declared.get(name).copied()
    }

    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(|(_, text)| text.as_str())
    }

    fn lay_defaults(&mut self) {
        for setting in self.declared.values() {
            if let Fallback::Is(text) = setting.fallback {
                self.texts
                    .insert(setting.name, (Source::Default, text.to_owned()));
            }
        }
    }

    fn lay_file(&mut self, path: &Path, sections: &[&str]) {
        let dict = match file::read(path) {
            Ok(dict) => dict,
            Err(fault) => return self.refuse(&path.display().to_string(), fault),
        };
        for (key, value) in dict {
            if sections.contains(&key.as_str()) {
                self.sections.insert(key, value);
            } else if let Some(setting) = self.declared_for_key(&key) {
                self.lay_file_value(setting, &value);
            } else {
                let advice = match self.nearest(&key.to_uppercase(), sections) {
                    Some(known) => format!("did you mean `{}`?", known.to_lowercase()),
                    None => "remove it".to_owned(),
                };
                self.refuse(&key, format!("is no setting of this program: {advice}"));
            }
        }
    }

    fn lay_file_value(&mut self, setting: Setting, value: &Value) {
        let is_text = matches!(value, Value::String(..) | Value::Array(..));
        if setting.kind.is_secret() && !is_text {
            return self.refuse(setting.name, "must be quoted text in the file: quote it");
        }
        match file::as_text(value) {
            Some(text) if text.is_empty() => {}
            Some(text) => {
                let before = self.texts.insert(setting.name, (Source::File, text));
                if matches!(before, Some((Source::File, _))) {
                    let fault =
                        "is given twice in the file, in capitals and in lower case: remove one";
                    self.refuse(setting.name, fault);
                }
            }
            None => self.refuse(setting.name, wrong_kind(setting.kind)),
        }
    }

    fn lay_environment(&mut self, environment: &Environment) {
        for setting in self.declared.clone().into_values() {
            let Some(raw) = environment.raw(setting.name) else {
                continue;
            };
            match raw.to_str() {
                Some(text) => {
                    self.texts
                        .insert(setting.name, (Source::Environment, text.to_owned()));
                }
                None => self.refuse(setting.name, "is not UTF-8 text: set it again"),
            }
        }
        for name in environment.names() {
            let ours = OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if ours
                && !self.declared.contains_key(name)
                && name != "OPS_CONFIG"
                && let Some(known) = self.nearest(name, &[])
            {
                let warning =
                    format!("{name} is no setting of this program: did you mean {known}?");
                self.warnings.push(warning);
            }
        }
    }

    /// Keys of the file are names as they are, or all in lower case; nothing in between.
    fn declared_for_key(&self, key: &str) -> Option<Setting> {
        self.declared(key).or_else(|| {
            let is_lower = !key.contains(|c: char| c.is_ascii_uppercase());
            is_lower.then(|| self.declared(&key.to_ascii_uppercase()))?
        })
    }

    /// The known name within two edits, if there is one.
    fn nearest(&self, name: &str, sections: &[&str]) -> Option<String> {
        let sections = sections.iter().map(|section| section.to_uppercase());
        self.declared
            .keys()
            .map(|known| (*known).to_owned())
            .chain(sections)
            .map(|known| (strsim::damerau_levenshtein(name, &known), known))
            .filter(|(distance, _)| *distance <= 2)
            .min()
            .map(|(_, known)| known)
    }
}

/// What to say of a value that is not of its kind.
pub(super) fn wrong_kind(kind: Kind) -> String {
    format!("is not of its kind: set it to {}", kind.describe())
}
