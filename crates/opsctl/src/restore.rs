//! `opsctl db restore`: a dump into an empty database, or into the place of the present one, which is put aside. The copy begins
//! paused, in the transaction that fills it, so that nothing in it starts by itself. Has no SQL; the store has.

use std::path::{Path, PathBuf};

use jobs::{DatabaseFacts, Store, after_restore};
use local_postgres::Clients;
use serde_json::json;
use url::Url;

use crate::backup::folder::{BackupFiles, hex, sum_of};
use crate::backup::manifest::Manifest;
use crate::backup::{clients, depot, objects, open};
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen, harmless};
use crate::settings::{Backups, Settings};

/// The longest name that PostgreSQL keeps whole.
const LONGEST_NAME: usize = 63;
/// The table in which a dump says which migrations it has.
const VERSIONS: &str = "ops_schema_migrations";

/// A dump that is what was written.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) files: BackupFiles,
    /// None beside a dump that was made by pg_dump alone.
    pub(crate) manifest: Option<Manifest>,
    pub(crate) schema_version: i64,
}

/// Looks whether a dump is what was written, whole, and of a schema that this program knows.
pub(crate) async fn check(dump: &Path, clients: &Clients, expected: i64) -> Result<Checked, Error> {
    let files = BackupFiles::of_dump(dump)?;
    let (bytes, sha256) = sum_of(&files.dump())?;
    let beside =
        std::fs::read_to_string(files.sha256()).map_err(Error::io("read", &files.sha256()))?;
    let written = beside.split_whitespace().next().unwrap_or_default();
    if written != hex(&sha256) {
        return Err(Error::Failed(format!(
            "{} is not what was written: its SHA-256 is {}, and {} says {}",
            dump.display(),
            hex(&sha256),
            files.sha256().display(),
            harmless(written)
        )));
    }
    let manifest = if files.manifest().exists() {
        Some(Manifest::read(&files.manifest())?)
    } else {
        None
    };
    if let Some(manifest) = &manifest
        && (manifest.bytes, manifest.sha256.as_str()) != (bytes, written)
    {
        return Err(Error::Failed(format!(
            "{} is not the dump that its manifest is of: {} bytes, and the manifest says {}",
            dump.display(),
            bytes,
            manifest.bytes
        )));
    }
    let contents = clients.contents(&files.dump()).await?;
    if let Some(manifest) = &manifest {
        let missing = manifest.missing_from(&contents);
        if !missing.is_empty() {
            return Err(Error::Failed(format!(
                "{} is not whole: {}",
                dump.display(),
                missing.join("; ")
            )));
        }
    }
    let versions = clients.rows(&files.dump(), VERSIONS).await?;
    let version = versions
        .iter()
        .filter_map(|row| row.split('\t').next()?.parse::<i64>().ok())
        .max();
    match version {
        Some(schema_version) if schema_version <= expected => Ok(Checked {
            files,
            manifest,
            schema_version,
        }),
        Some(version) => Err(Error::Failed(format!(
            "{} has the schema's version {version}, and this opsctl knows {expected}: use the opsctl of the release that made it",
            dump.display()
        ))),
        None => Err(Error::Failed(format!(
            "{} is no backup of ops-jobs: it has no {VERSIONS}",
            dump.display()
        ))),
    }
}

/// The same server, another database.
pub(crate) fn on_database(url: &str, name: &str) -> Result<String, Error> {
    // Whoever is here has been connected to it.
    let mut url =
        Url::parse(url).map_err(|_| Error::Usage("DATABASE_URL is no address".to_owned()))?;
    url.set_path(name);
    Ok(url.into())
}

/// A name that is as short as it must be.
fn named(base: &str, end: &str) -> String {
    let most = LONGEST_NAME.saturating_sub(end.len());
    let mut cut = base.len().min(most);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{end}", &base[..cut])
}

/// What a copy begins with.
struct Begun {
    lost: u64,
    fence: i64,
}

pub(crate) async fn run(
    dump: &Path,
    yes: bool,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let backups = settings.backups()?;
    let store = open(backups.url.expose())?;
    let facts = store
        .database_facts()
        .await
        .map_err(Error::database("look at the database"));
    let now = store
        .now()
        .await
        .map_err(Error::database("read the database's clock"));
    store.close().await;
    let (facts, now) = (facts?, now?);
    let clients = clients(&backups, facts.server_major)?;
    let checked = check(dump, &clients, jobs::expected_version()).await?;
    if let Some(manifest) = &checked.manifest {
        let problems = objects::check(&checked.files, manifest);
        if !problems.is_empty() {
            return Err(Error::Failed(problems.join("; ")));
        }
    }
    if facts.tables > 0 && !yes {
        return Err(Error::Usage(format!(
            "the database {} is not empty: name an empty one in DATABASE_URL, or add --yes to have the dump in its place; \
             it is then kept under another name",
            harmless(&facts.name)
        )));
    }
    let why = format!(
        "restored from {}{}",
        dump.file_name().unwrap_or_default().to_string_lossy(),
        checked
            .manifest
            .as_ref()
            .map(|manifest| format!(", a backup of {}", manifest.taken_at))
            .unwrap_or_default()
    );
    let restoring = Restoring {
        clients: &clients,
        dump: checked.files.dump(),
        backups: &backups,
        why,
    };
    let (begun, aside) = if facts.tables == 0 {
        (restoring.fill(backups.url.expose()).await?, None)
    } else {
        let stamp = now.unix_timestamp();
        let aside = named(&facts.name, &format!("_before_{stamp}"));
        let begun = restoring.in_place_of(&facts, &aside, stamp).await?;
        (begun, Some(aside))
    };
    finish(&checked, &backups, screen, &begun, aside.as_deref()).await
}

struct Restoring<'a> {
    clients: &'a Clients,
    dump: PathBuf,
    backups: &'a Backups,
    why: String,
}

impl Restoring<'_> {
    async fn fill(&self, url: &str) -> Result<Begun, Error> {
        let said = self
            .clients
            .restore(&self.dump, url, after_restore(&self.why))
            .await?;
        let numbers = said
            .lines()
            .find_map(|line| line.strip_prefix("restored|")?.split_once('|'));
        numbers
            .and_then(|(lost, fence)| {
                Some(Begun {
                    lost: lost.parse().ok()?,
                    fence: fence.parse().ok()?,
                })
            })
            .ok_or_else(|| {
                Error::Failed("the restored copy did not say that it is paused: drop it".to_owned())
            })
    }

    /// Fills a database beside the present one, and changes their names once it is whole.
    async fn in_place_of(
        &self,
        facts: &DatabaseFacts,
        aside: &str,
        stamp: i64,
    ) -> Result<Begun, Error> {
        let url = self.backups.url.expose();
        let making = Error::database("make a database for the copy beside the present one");
        let scratch = named(&facts.name, &format!("_restoring_{stamp}"));
        let present = open(url)?;
        let made = present.create_database(&scratch).await.map_err(making);
        present.close().await;
        made?;
        let copy_url = on_database(url, &scratch)?;
        let begun = self.fill(&copy_url).await;
        let swapped = match begun {
            Ok(begun) => swap(&copy_url, &facts.name, aside, &scratch)
                .await
                .map(|()| begun),
            Err(error) => Err(error),
        };
        if swapped.is_err() {
            let present = open(url)?;
            // What cannot be dropped now is told by its name, and does nothing: it is paused, or empty.
            let _ = present.drop_database(&scratch).await;
            present.close().await;
        }
        swapped
    }
}

/// Puts the copy in the place of the database of this name, which is put aside.
async fn swap(copy_url: &str, name: &str, aside: &str, copy: &str) -> Result<(), Error> {
    // Nobody can give a database another name while being connected to it: each is done from the other.
    let from_copy = open(copy_url)?;
    let renamed = from_copy.rename_database(name, aside).await;
    from_copy.close().await;
    renamed.map_err(Error::database("put the present database aside"))?;
    let from_aside = open(&on_database(copy_url, aside)?)?;
    let renamed = from_aside.rename_database(copy, name).await;
    from_aside.close().await;
    let Err(error) = renamed else { return Ok(()) };
    let from_copy = open(copy_url)?;
    let back = from_copy.rename_database(aside, name).await;
    from_copy.close().await;
    back.map_err(Error::database("give the present database its name back"))?;
    Err(Error::database(
        "put the copy in the place of the present database, which has its name again",
    )(error))
}

async fn finish(
    checked: &Checked,
    backups: &Backups,
    screen: &Screen,
    begun: &Begun,
    aside: Option<&str>,
) -> Result<Exit, Error> {
    let store = open(backups.url.expose())?;
    let done = after(&store, checked, backups, screen).await;
    store.close().await;
    let put = done?;
    if screen.output() == Output::Json {
        screen.json(&json!({
            "schema_version": checked.schema_version, "lost": begun.lost, "fence": begun.fence, "objects": put, "kept_as": aside,
            "paused": true,
        }));
    }
    screen.say(&format!(
        "restored, and paused: {} jobs that were running are taken back, fences go on above {}, {put} objects were put back",
        begun.lost, begun.fence
    ));
    if let Some(aside) = aside {
        screen.say(&format!(
            "what was there is now the database {}: drop it when it is not needed any more",
            harmless(aside)
        ));
    }
    if checked.schema_version < jobs::expected_version() {
        screen.say("its schema is older than this release: run opsctl db migrate");
    }
    screen.say(
        "look it over (opsctl verify, opsctl jobs list), then let it go on: opsctl fleet resume",
    );
    Ok(Exit::Ok)
}

/// The rights of the roles, and the objects.
async fn after(
    store: &Store,
    checked: &Checked,
    backups: &Backups,
    screen: &Screen,
) -> Result<u64, Error> {
    let Some(manifest) = &checked.manifest else {
        screen.say("the dump has no manifest: if programs have roles, run opsctl db bootstrap");
        return Ok(0);
    };
    if manifest.bootstrapped
        && checked.schema_version == jobs::expected_version()
        && let Err(error) = store.bootstrap_roles().await
    {
        screen.say(&format!(
            "the roles have no rights in the copy yet ({error}): run opsctl db bootstrap"
        ));
    }
    if manifest.objects.is_empty() {
        return Ok(0);
    }
    let depot = depot(store, backups)?;
    if !depot.has_objects() {
        screen.say(&format!(
            "{} objects are beside the dump, and ARTIFACT_STORE names no object store: set it and restore again, \
             or copy them there by hand",
            manifest.objects.len()
        ));
        return Ok(0);
    }
    objects::put_back(&depot, &checked.files, manifest).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_end_and_fit() {
        assert_eq!(named("jobs", "_before_1"), "jobs_before_1");
        let long = named(&"ä".repeat(40), "_before_1700000000");
        assert!(long.len() <= LONGEST_NAME && long.ends_with("_before_1700000000"));
    }

    #[test]
    fn another_database_keeps_the_rest_of_the_address() {
        let url =
            on_database("postgres://me:p%40ss@h:1/old?host=/a%20b", "new").expect("an address");
        assert_eq!(url, "postgres://me:p%40ss@h:1/new?host=/a%20b");
        assert_eq!(
            on_database("postgresql://h", "n").expect("an address"),
            "postgresql://h/n"
        );
    }
}
