//! Everything that is wrong with a configuration, told at once and without a single value.

use std::fmt;

/// One wrong setting: its name, and what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// The setting, the file, or the key in the file.
    pub name: String,
    /// What is wrong and what to do, without the value.
    pub detail: String,
}

/// A configuration that cannot be used; prints one line for each wrong setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// Every wrong setting, in the order in which it was found.
    pub problems: Vec<SettingProblem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {}", problem.name, problem.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}
