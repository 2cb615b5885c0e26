//! One declared setting, and the documentation's table made from a list of them. Reads nothing.

use std::fmt::Write as _;

/// One thing a program can be told, as it is declared, documented and checked.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name in the environment, for example `RUNNER_LEASE_SECONDS`.
    pub name: &'static str,
    /// What its text must look like.
    pub kind: Kind,
    /// What holds when it is not set.
    pub fallback: Fallback,
    /// One sentence for the documentation, without a full stop.
    pub meaning: &'static str,
}

/// What the text of a setting must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// Comma-separated texts that are never shown.
    SecretList,
    /// `0`, `1`, `true` or `false`.
    Switch,
    /// A whole number within these bounds, both included.
    Integer(u64, u64),
    /// Whole seconds within these bounds, both included.
    Seconds(u64, u64),
    /// An IP address and a port.
    Address,
    /// An absolute `http://` or `https://` address.
    Url,
    /// A `postgres://` or `postgresql://` address, never shown because it bears a password.
    DatabaseUrl,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Comma-separated texts.
    List,
    /// A path on this machine.
    Path,
}

/// What holds when a setting is not set, or set to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This text, as if it had been set.
    Is(&'static str),
    /// Nothing; the program reads it as absent.
    Unset,
    /// Nothing, and what the program then does, said in words.
    Means(&'static str),
    /// The program does not start.
    Required,
    /// The program does not start under this condition, which the program checks.
    RequiredWhen(&'static str),
}

impl Setting {
    /// Declares a setting.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        fallback: Fallback,
        meaning: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            fallback,
            meaning,
        }
    }
}

impl Kind {
    /// Whether a value of this kind must never be shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretList | Self::DatabaseUrl)
    }

    /// What a value of this kind looks like, in words for documentation and errors.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Secret => "secret text".to_owned(),
            Self::SecretList => "secret texts, comma-separated".to_owned(),
            Self::Switch => "`0` or `1`".to_owned(),
            Self::Integer(0, u64::MAX) => "whole number".to_owned(),
            Self::Integer(low, u64::MAX) => format!("whole number, at least {low}"),
            Self::Integer(low, high) => format!("whole number, {low} to {high}"),
            Self::Seconds(0, u64::MAX) => "whole seconds".to_owned(),
            Self::Seconds(low, u64::MAX) => format!("whole seconds, at least {low}"),
            Self::Seconds(low, high) => format!("whole seconds, {low} to {high}"),
            Self::Address => "IP address and port".to_owned(),
            Self::Url => "http or https address".to_owned(),
            Self::DatabaseUrl => "PostgreSQL address, secret".to_owned(),
            Self::Choice(words) => words
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", "),
            Self::List => "texts, comma-separated".to_owned(),
            Self::Path => "path".to_owned(),
        }
    }
}

impl Fallback {
    fn describe(self) -> String {
        match self {
            Self::Is(text) => format!("`{text}`"),
            Self::Unset => "unset".to_owned(),
            Self::Means(words) => words.to_owned(),
            Self::Required => "required".to_owned(),
            Self::RequiredWhen(condition) => format!("required {condition}"),
        }
    }
}

/// Renders settings as a Markdown table, in the order in which they are declared.
pub fn markdown(settings: &[Setting]) -> String {
    let mut table =
        String::from("| setting | kind | default | meaning |\n| --- | --- | --- | --- |\n");
    for setting in settings {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            setting.name,
            setting.kind.describe().replace('|', "\\|"),
            setting.fallback.describe().replace('|', "\\|"),
            setting.meaning.replace('|', "\\|"),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_line_a_setting_in_declared_order() {
        let settings = [
            Setting::new(
                "B_LEASE",
                Kind::Seconds(1, 60),
                Fallback::Is("30"),
                "how long",
            ),
            Setting::new(
                "A_KEY",
                Kind::Secret,
                Fallback::RequiredWhen("in prod"),
                "a | b",
            ),
        ];
        assert_eq!(
            markdown(&settings),
            "| setting | kind | default | meaning |\n\
             | --- | --- | --- | --- |\n\
             | `B_LEASE` | whole seconds, 1 to 60 | `30` | how long |\n\
             | `A_KEY` | secret text | required in prod | a \\| b |\n"
        );
    }
}
