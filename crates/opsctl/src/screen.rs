//! What the command writes: data on standard output, words on standard error, colour where it is wanted. Asks nobody.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::error::{Error, sentence};
use crate::exit::Exit;

/// In which form data are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables and lines for people.
    Text,
    /// The control plane's own JSON.
    Json,
}

/// Whether lines for people bear colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a piece of text stands for; the terminal's own palette shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Good,
    Bad,
    Busy,
    Faint,
    Strong,
}

impl Ink {
    /// The ink of a status or an event kind.
    pub(crate) fn of(word: &str) -> Self {
        match word {
            "succeeded" => Self::Good,
            "failed" | "dead_lettered" | "lease_expired" | "stale_result_refused" => Self::Bad,
            "running" | "waiting" | "retry_scheduled" => Self::Busy,
            _ => Self::Strong,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "33",
            Self::Faint => "2",
            Self::Strong => "1",
        }
    }
}

/// Where the command writes to.
#[derive(Clone, Debug)]
pub(crate) struct Screen {
    output: Output,
    colored: Colored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colored {
    Yes,
    No,
}

impl Screen {
    /// A screen for people without colours.
    pub(crate) fn plain() -> Self {
        Self {
            output: Output::Text,
            colored: Colored::No,
        }
    }

    /// A screen in this form; `no_color` and `force_color` are what the environment says of `auto`.
    pub(crate) fn new(
        output: Output,
        color: Color,
        no_color: Option<&str>,
        force_color: Option<&str>,
    ) -> Self {
        let forced = force_color.is_some_and(|word| word != "0");
        let colored = match color {
            Color::Always => Colored::Yes,
            Color::Never => Colored::No,
            Color::Auto if no_color.is_some() => Colored::No,
            Color::Auto if forced || std::io::stdout().is_terminal() => Colored::Yes,
            Color::Auto => Colored::No,
        };
        Self { output, colored }
    }

    pub(crate) fn output(&self) -> Output {
        self.output
    }

    /// One line of data.
    pub(crate) fn line(&self, text: &str) {
        // Whoever stopped reading, as `head` does, wants no more.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// Data as they are, without a newline of ours.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        // As above.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    /// Data as JSON, indented.
    pub(crate) fn json(&self, data: &impl Serialize) {
        // What we serialise has text keys only, so it cannot fail.
        self.line(&serde_json::to_string_pretty(data).unwrap_or_default());
    }

    /// A remark for the person, beside the data.
    pub(crate) fn say(&self, text: &str) {
        // Where standard error is closed, nobody listens.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// A line of a story: data for people, but only a remark beside JSON.
    pub(crate) fn tell(&self, text: &str) {
        match self.output {
            Output::Text => self.line(text),
            Output::Json => self.say(text),
        }
    }

    /// Tells an error, and how the command ends with it.
    pub(crate) fn complain(&self, error: &Error) -> Exit {
        match error {
            Error::Settings(error) => {
                self.say(&format!("opsctl: the configuration is wrong:\n{error}"));
            }
            _ => self.say(&format!("opsctl: {}", sentence(error))),
        }
        error.exit()
    }

    /// A text in colour, if colours are wanted.
    pub(crate) fn paint(&self, ink: Ink, text: &str) -> String {
        match self.colored {
            Colored::Yes => format!("\u{1b}[{}m{text}\u{1b}[0m", ink.code()),
            Colored::No => text.to_owned(),
        }
    }
}

/// A text that cannot move the cursor or change colours, because others wrote it.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_asked_for_or_follows_the_environment() {
        let paint = |color, no_color, force| {
            Screen::new(Output::Text, color, no_color, force).paint(Ink::Good, "x")
        };
        assert_eq!(
            paint(Color::Always, Some("1"), None),
            "\u{1b}[32mx\u{1b}[0m"
        );
        assert_eq!(paint(Color::Never, None, Some("1")), "x");
        assert_eq!(paint(Color::Auto, Some("1"), Some("1")), "x");
        assert_eq!(paint(Color::Auto, None, Some("1")), "\u{1b}[32mx\u{1b}[0m");
    }

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\tc\r"), "a\u{fffd}[2Jb\tc\u{fffd}");
    }
}
