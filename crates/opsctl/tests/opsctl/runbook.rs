//! The runbook of a restore, run as it is written: each of its blocks, in order, in one shell, against a server of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::backup::Server;
use crate::program::outcome;

/// The blocks of a page that are to be run, as one script that says which it is at.
fn script(page: &str) -> String {
    let mut script = String::from("set -euo pipefail\n");
    let mut block: Option<(bool, String)> = None;
    let mut count = 0;
    for line in page.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some((false, String::new())),
            (None, "```sql") => block = Some((true, String::new())),
            (Some((is_sql, text)), "```") => {
                count += 1;
                let text = if *is_sql {
                    format!(
                        "psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 <<'END_OF_SQL'\n{text}END_OF_SQL\n"
                    )
                } else {
                    text.clone()
                };
                script.push_str(&format!("echo 'block {count}' >&2\n{text}"));
                block = None;
            }
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(block.is_none() && count > 10, "{count} blocks");
    script
}

#[tokio::test]
async fn each_step_of_the_runbook_works_as_it_is_written() {
    let server = Server::new().await;
    server.live().await;
    let (code, _, err) = outcome(&mut server.opsctl(&["db", "backup"]));
    assert_eq!(code, 0, "{err}");
    server.live().await;

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/runbooks/restore.md")).expect("the runbook");
    let programs = server.cluster.programs().directory().display();
    let opsctl = Path::new(env!("CARGO_BIN_EXE_opsctl"));
    let path = format!(
        "{}:{programs}:/usr/bin:/bin",
        opsctl.parent().expect("a folder").display()
    );
    #[expect(clippy::disallowed_methods, reason = "the runbook is run by a shell")]
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script(&page)])
        .env_clear()
        .env("PATH", path)
        .env("DATABASE_URL", &server.url)
        .env("MAINTENANCE_URL", server.cluster.url("postgres"))
        .env("BACKUP_DIR", server.backups())
        .current_dir(server.folder.path());
    let (code, out, err) = outcome(&mut shell);
    assert_eq!(code, 0, "{out}\n{err}");
    // It ended with what had been there before, ten jobs, and open.
    assert!(
        out.contains("proved equal") || err.contains("proved equal"),
        "{out}\n{err}"
    );
    let options = jobs::StoreOptions::new(server.url.clone(), 1, "opsctl-tests");
    let store = jobs::Store::new(&options).expect("an address");
    let verified = store.verify(|_| {}).await.expect("an answer");
    assert_eq!((verified.jobs, verified.findings), (10, 0));
    assert!(store.pause().await.expect("an answer").is_none());
    store.close().await;
    server.cluster.stop().await.expect("stopped");
}
