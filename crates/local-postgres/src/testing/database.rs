//! A database for each test, copied from a template that is built once. Drops it in the background when the test is done.

use std::error::Error as StdError;
use std::fmt;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::Error;
use crate::blocking::blocking;
use crate::files::lock;
use crate::psql::checked_name;
use crate::testing::TestServer;
use crate::url::with_database;

/// A database that one test has for itself, dropped with this value.
pub struct TestDatabase {
    /// The address to connect to; with a given server it may hold a password.
    pub url: String,
    /// The name of the database.
    pub name: String,
    server: TestServer,
}

impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabase")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The template is there under its own name only when it is finished.
enum Copied {
    Made(String),
    NoTemplate,
}

impl TestServer {
    /// As [`testing::database`](crate::testing::database), on this server.
    pub async fn database<Build>(
        &self,
        template_key: &str,
        build: Build,
    ) -> Result<TestDatabase, Error>
    where
        Build: AsyncFnOnce(String) -> Result<(), Box<dyn StdError + Send + Sync>>,
    {
        let template = checked_name(&format!("tpl_{template_key}"))?.to_owned();
        let draft = checked_name(&format!("draft_{template_key}"))?.to_owned();
        if let Copied::Made(name) = self.copy(&template).await? {
            return Ok(self.test_database(name));
        }
        // One process builds; the others wait here and find it done. The lock ends with its holder.
        let path = self.locks.join(&template);
        let _building = blocking(move || lock(&path)).await?;
        if let Copied::Made(name) = self.copy(&template).await? {
            return Ok(self.test_database(name));
        }
        self.administer(vec![
            format!("drop database if exists {draft} with (force)"),
            format!("create database {draft}"),
        ])
        .await?;
        build(with_database(&self.admin_url, &draft))
            .await
            .map_err(|source| Error::Template { source })?;
        self.administer(finish(&draft, &template)).await?;
        match self.copy(&template).await? {
            Copied::Made(name) => Ok(self.test_database(name)),
            Copied::NoTemplate => Err(Error::Program {
                program: "psql",
                output: format!("{template} vanished"),
            }),
        }
    }

    /// Makes a database from the template, under a name that nobody else has.
    async fn copy(&self, template: &str) -> Result<Copied, Error> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        loop {
            let name = format!(
                "test_{}_{}",
                std::process::id(),
                MADE.fetch_add(1, Ordering::Relaxed)
            );
            match self
                .administer(vec![format!("create database {name} template {template}")])
                .await
            {
                Ok(()) => return Ok(Copied::Made(name)),
                // Left by a process that was killed and had the same number.
                Err(Error::Program { output, .. })
                    if output.contains(&format!("\"{name}\" already exists")) => {}
                Err(Error::Program { output, .. })
                    if output.contains(&format!("\"{template}\" does not exist")) =>
                {
                    return Ok(Copied::NoTemplate);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn administer(&self, statements: Vec<String>) -> Result<(), Error> {
        let (psql, url) = (self.psql.clone(), self.admin_url.clone());
        blocking(move || {
            psql.run(
                &url,
                &statements.iter().map(String::as_str).collect::<Vec<_>>(),
            )
            .map(drop)
        })
        .await
    }

    fn test_database(&self, name: String) -> TestDatabase {
        TestDatabase {
            url: with_database(&self.admin_url, &name),
            name,
            server: self.clone(),
        }
    }
}

/// Closes the draft, ends connections that the builder left (they would make each copy wait), and gives it its name.
fn finish(draft: &str, template: &str) -> Vec<String> {
    vec![
        format!("alter database {draft} with allow_connections false"),
        format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{draft}'"
        ),
        format!("alter database {draft} rename to {template}"),
    ]
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let mut command = self.server.psql.command(&self.server.admin_url);
        command.args([
            "-c",
            &format!("drop database if exists {} with (force)", self.name),
        ]);
        // Started here and awaited elsewhere: it goes on when the process ends first, and no async thread waits for it.
        // What remains goes with the server.
        if let Ok(mut child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            let server = self.server.clone();
            thread::spawn(move || child.wait().map(|_| drop(server)));
        }
    }
}
