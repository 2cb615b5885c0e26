//! What a dump holds, told beside it: counts and fingerprints of exactly its snapshot, and the objects that go with it. Compares
//! a copy with that, in words.

use std::fs;
use std::path::Path;

use jobs::TableFigures;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::folder::write_whole;
use crate::error::Error;

/// Another layout gets another number.
pub(crate) const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// The release that made it.
    pub(crate) opsctl: String,
    /// The instant of the snapshot.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) taken_at: OffsetDateTime,
    pub(crate) schema_version: i64,
    pub(crate) server_major: i32,
    pub(crate) pg_dump: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Whether the roles of `opsctl db bootstrap` had their rights.
    pub(crate) bootstrapped: bool,
    pub(crate) tables: Vec<TableFigures>,
    pub(crate) verified: Verdict,
    pub(crate) objects: Vec<ObjectCopy>,
    /// Objects of which there is no good copy, each with why.
    pub(crate) objects_lost: Vec<String>,
}

/// What `opsctl verify` said of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) jobs: u64,
    pub(crate) events: u64,
    pub(crate) seals: u64,
    pub(crate) findings: u64,
}

impl From<jobs::Verified> for Verdict {
    fn from(verified: jobs::Verified) -> Self {
        Self {
            jobs: verified.jobs,
            events: verified.events,
            seals: verified.seals,
            findings: verified.findings,
        }
    }
}

/// A copy of an object in the folder beside the dump, by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectCopy {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let manifest: Self = serde_json::from_str(&text)
            .map_err(|why| Error::Failed(format!("{} is no manifest: {why}", path.display())))?;
        if manifest.format == FORMAT {
            Ok(manifest)
        } else {
            Err(Error::Failed(format!(
                "{} has format {}, and this opsctl knows {FORMAT}: use the one that made it",
                path.display(),
                manifest.format
            )))
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|why| Error::Failed(format!("the manifest cannot be written: {why}")))?;
        write_whole(path, &format!("{text}\n"))
    }

    pub(crate) fn rows(&self, table: &str) -> i64 {
        let found = self.tables.iter().find(|figures| figures.name == table);
        found.map_or(0, |figures| figures.rows)
    }

    /// The tables whose rows the dump's table of contents does not have.
    pub(crate) fn missing_from(&self, contents: &[String]) -> Vec<String> {
        let has = |table: &str| {
            let data = format!(" TABLE DATA public {table} ");
            contents.iter().any(|line| line.contains(&data))
        };
        let missing = self.tables.iter().filter(|table| !has(&table.name));
        missing
            .map(|table| {
                format!(
                    "table {} ({} rows) is missing from the dump",
                    table.name, table.rows
                )
            })
            .collect()
    }

    /// How the tables of a copy differ from those of the snapshot.
    pub(crate) fn differences(&self, copy: &[TableFigures]) -> Vec<String> {
        let mut problems = Vec::new();
        for then in &self.tables {
            match copy.iter().find(|now| now.name == then.name) {
                None => problems.push(format!("table {} is missing from the copy", then.name)),
                Some(now) if now.rows != then.rows => problems.push(format!(
                    "table {} has {} rows, and had {} in the snapshot",
                    then.name, now.rows, then.rows
                )),
                Some(now) if now.fingerprint != then.fingerprint => problems.push(format!(
                    "table {} has the {} rows of the snapshot, but not their content",
                    then.name, then.rows
                )),
                Some(_) => {}
            }
        }
        for now in copy {
            if !self.tables.iter().any(|then| then.name == now.name) {
                problems.push(format!("table {} was not in the snapshot", now.name));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn figures(name: &str, rows: i64, fingerprint: &str) -> TableFigures {
        TableFigures {
            name: name.to_owned(),
            rows,
            fingerprint: fingerprint.to_owned(),
        }
    }

    fn manifest(tables: Vec<TableFigures>) -> Manifest {
        Manifest {
            format: FORMAT,
            opsctl: "0".to_owned(),
            taken_at: datetime!(2026-03-01 10:20:30 UTC),
            schema_version: 12,
            server_major: 15,
            pg_dump: "15.1".to_owned(),
            bytes: 1,
            sha256: String::new(),
            bootstrapped: false,
            tables,
            verified: Verdict {
                jobs: 0,
                events: 0,
                seals: 0,
                findings: 0,
            },
            objects: Vec::new(),
            objects_lost: Vec::new(),
        }
    }

    #[test]
    fn each_difference_is_said_in_a_sentence() {
        let manifest = manifest(vec![
            figures("a", 1, "x"),
            figures("b", 2, "x"),
            figures("c", 3, "x"),
            figures("d", 4, "x"),
        ]);
        assert_eq!(manifest.differences(&manifest.tables), Vec::<String>::new());
        let copy = [
            figures("a", 1, "x"),
            figures("b", 3, "x"),
            figures("c", 3, "y"),
            figures("e", 0, "x"),
        ];
        assert_eq!(
            manifest.differences(&copy),
            [
                "table b has 3 rows, and had 2 in the snapshot",
                "table c has the 3 rows of the snapshot, but not their content",
                "table d is missing from the copy",
                "table e was not in the snapshot",
            ]
        );
        let contents = [
            "1; 0 1 TABLE DATA public a me".to_owned(),
            "2; 1 2 TABLE public b me".to_owned(),
        ];
        assert_eq!(manifest.missing_from(&contents).len(), 3);
    }

    #[test]
    fn what_is_written_is_read_again_and_another_format_is_refused() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("manifest.json");
        let mut written = manifest(vec![figures("a", 1, "x")]);
        written.write(&path).expect("written");
        assert_eq!(Manifest::read(&path).expect("read"), written);
        fs::remove_file(&path).expect("removed");
        written.format = 2;
        written.write(&path).expect("written");
        assert!(Manifest::read(&path).is_err());
        fs::write(&path, "{}").expect("written");
        assert!(Manifest::read(&path).is_err());
    }
}
