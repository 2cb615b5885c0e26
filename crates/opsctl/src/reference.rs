//! `opsctl reference`: the documents that are made from the code, written or proved fresh. Same code, same bytes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use service::settings;

use crate::cli::command;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::Screen;

const MADE: &str =
    "<!-- Made from the code by `opsctl reference`; edit the code, not this file. -->";

/// Help is wrapped at this width on every terminal.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct Reference {
    /// Write nothing; name the files that are stale, and fail if there is one
    #[arg(long)]
    check: bool,
    /// The repository's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
}

pub(crate) fn run(reference: &Reference, screen: &Screen) -> Result<Exit, Error> {
    let mut stale = Vec::new();
    for (name, text) in documents()? {
        let path = reference.root.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        if !reference.check {
            write(&path, &text)?;
        }
        stale.push(name);
    }
    let word = if reference.check { "stale" } else { "written" };
    match screen.output() {
        crate::screen::Output::Json => screen.json(&serde_json::json!({ word: stale })),
        crate::screen::Output::Text => stale
            .iter()
            .for_each(|name| screen.line(&format!("{word}: {name}"))),
    }
    if reference.check && !stale.is_empty() {
        screen.say("opsctl: these do not fit the code: run `cargo opsctl reference`");
        return Ok(Exit::Failed);
    }
    Ok(Exit::Ok)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
    }
    std::fs::write(path, text).map_err(Error::io("write", path))
}

/// Every document, by its path in the repository.
fn documents() -> Result<[(&'static str, String); 3], Error> {
    Ok([
        ("docs/configuration.md", configuration()),
        ("docs/cli.md", command_line()),
        ("docs/openapi.json", openapi()?),
    ])
}

fn configuration() -> String {
    let sections = [
        (
            "Both programs",
            settings::markdown(service::SharedSettings::SETTINGS),
        ),
        ("Control plane", settings::markdown(control_plane::SETTINGS)),
        (
            "Control plane: other origins (CORS)",
            settings::markdown(service::Cors::SETTINGS),
        ),
        ("Runner", settings::markdown(runner::SETTINGS)),
        (
            "Webhooks, both programs",
            settings::markdown(service::WebhookSettings::SETTINGS),
        ),
        (
            "Notion, both programs",
            settings::markdown(service::NotionSettings::SETTINGS),
        ),
        ("opsctl", settings::markdown(crate::settings::SETTINGS)),
        (
            "Feature flags",
            format!(
                "Every flag is `0` unless set to `1`.\n\n{}",
                service::flags::markdown()
            ),
        ),
    ];
    let mut text = format!("{MADE}\n\n# Configuration\n\n{INTRODUCTION}");
    for (title, table) in sections {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {title}\n\n{table}");
    }
    text
}

const INTRODUCTION: &str = "\
Later wins: defaults, the TOML or YAML file of `--config` or `OPS_CONFIG`, the environment. In the file a setting
has the name of its variable, in capitals or all in lower case. A program names every wrong setting at once, without
its value, and ends with 2 before it listens.
";

fn openapi() -> Result<String, Error> {
    let json = serde_json::to_string_pretty(&control_plane::openapi());
    json.map(|text| text + "\n")
        .map_err(|error| Error::Failed(format!("openapi.json cannot be made: {error}")))
}

fn command_line() -> String {
    let mut text = format!("{MADE}\n\n# The opsctl command\n");
    let mut root = command().term_width(WIDTH).max_term_width(WIDTH);
    root.build();
    section(&root, &mut text);
    text
}

/// The help of a command and of all below it, without those that clap adds by itself.
fn section(command: &clap::Command, text: &mut String) {
    let mut command = command
        .clone()
        .term_width(WIDTH)
        .max_term_width(WIDTH)
        .color(clap::ColorChoice::Never);
    let name = command.get_bin_name().unwrap_or("opsctl").to_owned();
    if name != "opsctl" {
        // What every command takes is told once.
        command = command.mut_args(|argument| {
            if argument.is_global_set() {
                argument.hide(true)
            } else {
                argument
            }
        });
    }
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(text, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n"));
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        section(below, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(root: &Path, check: bool) -> Exit {
        let reference = Reference {
            check,
            root: root.to_path_buf(),
        };
        run(&reference, &Screen::plain()).expect("done")
    }

    #[test]
    fn a_missing_or_changed_document_is_stale_until_written() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(check(folder.path(), true), Exit::Failed);
        assert!(!folder.path().join("docs").exists());
        assert_eq!(check(folder.path(), false), Exit::Ok);
        assert_eq!(check(folder.path(), true), Exit::Ok);
        std::fs::write(folder.path().join("docs/cli.md"), "old").expect("written");
        assert_eq!(check(folder.path(), true), Exit::Failed);
    }

    #[test]
    fn the_same_code_makes_the_same_documents() {
        assert_eq!(documents().expect("made"), documents().expect("made"));
    }

    #[test]
    fn every_command_and_setting_has_its_place() {
        let text = command_line();
        for heading in [
            "opsctl dev reset",
            "opsctl db rollback",
            "opsctl jobs submit",
            "opsctl reference",
        ] {
            assert!(text.contains(&format!("\n## {heading}\n")), "{heading}");
        }
        let text = configuration();
        for name in ["APP_ENV", "OPS_URL", "JOBS_ENABLED"] {
            assert!(text.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
