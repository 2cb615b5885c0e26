//! How much a key opens: a ladder, each rung with those below it. Knows no route.

use std::fmt;
use std::str::FromStr;

/// What a key is good for; each also for what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Looking: changes nothing.
    Read,
    /// Recording jobs, and having them begun.
    Enqueue,
    /// Steering what is there: jobs, gates, schedules, runners, the fleet.
    Operate,
    /// Keys.
    Admin,
}

impl Scope {
    /// Every scope, the narrowest first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Enqueue, Self::Operate, Self::Admin];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Enqueue => "enqueue",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// Whether a key of this scope opens what needs another.
    pub fn allows(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| "must be read, enqueue, operate or admin".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_allows_itself_and_what_stands_before_it() {
        for (place, scope) in Scope::ALL.into_iter().enumerate() {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            for (other_place, other) in Scope::ALL.into_iter().enumerate() {
                assert_eq!(scope.allows(other), other_place <= place, "{scope} {other}");
            }
        }
        assert!("Admin".parse::<Scope>().is_err());
    }
}
