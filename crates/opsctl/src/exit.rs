//! How the command ends: the stable exit codes that scripts rely on. Decides nothing else.

use std::process::ExitCode;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked.
    Ok,
    /// It could not, or the job that it waited for did not succeed.
    Failed,
    /// It was asked wrongly, or configured wrongly.
    WrongUsage,
    /// What it was asked about is not there.
    NotFound,
    /// The key is missing or not accepted.
    Unauthorised,
    /// What it was asked to do does not fit the present state.
    Conflict,
    /// The control plane or the database does not answer; trying again may help.
    Unavailable,
}

/// The exit codes as `--help` and the documentation show them.
pub(crate) const TABLE: &str = "\
Exit codes:
   0  ok
   1  failed, or the job that was waited for did not succeed
   2  wrong usage or configuration
   3  not found
   4  unauthorised
   5  conflict with the present state
  69  unavailable: the control plane, the runner or the database does not answer";

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::WrongUsage => 2,
            Self::NotFound => 3,
            Self::Unauthorised => 4,
            Self::Conflict => 5,
            Self::Unavailable => 69,
        }
    }

    /// What an HTTP status of the control plane means for a script.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            200..=399 => Self::Ok,
            400 | 405 | 406 | 411..=415 | 422 | 431 => Self::WrongUsage,
            401 | 403 => Self::Unauthorised,
            404 | 410 => Self::NotFound,
            409 => Self::Conflict,
            408 | 425 | 429 | 502..=504 => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_stands_in_the_help() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::WrongUsage,
            Exit::NotFound,
            Exit::Unauthorised,
            Exit::Conflict,
            Exit::Unavailable,
        ];
        for exit in all {
            assert!(
                TABLE
                    .lines()
                    .any(|line| line.starts_with(&format!("{:>4}  ", exit.code()))),
                "{exit:?}"
            );
        }
        assert_eq!(TABLE.lines().count(), 1 + all.len());
    }

    #[test]
    fn a_status_tells_a_script_what_to_do_next() {
        for (status, exit) in [
            (201, Exit::Ok),
            (400, Exit::WrongUsage),
            (401, Exit::Unauthorised),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (422, Exit::WrongUsage),
            (429, Exit::Unavailable),
            (500, Exit::Failed),
            (503, Exit::Unavailable),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }
}
