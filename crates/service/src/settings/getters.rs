//! The typed getters of [`Values`]: each reads one declared setting and collects what is wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::parse::{self, Fault};
use super::table::{Fallback, Kind};
use super::values::Values;
use crate::secret::Secret;

impl Values {
    /// A text that is required or has a default.
    pub fn text(&mut self, name: &str) -> String {
        self.optional_text(name).unwrap_or_default()
    }

    /// A text, if it is set.
    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        self.read(name, |kind, text| match kind {
            Kind::Text => Ok(text.to_owned()),
            _ => Err(undeclared("text")),
        })
    }

    /// A secret that is required; kept exactly as it was given.
    pub fn secret(&mut self, name: &str) -> Secret {
        self.optional_secret(name)
            .unwrap_or_else(|| Secret::new(String::new()))
    }

    /// A secret, if it is set; kept exactly as it was given.
    pub fn optional_secret(&mut self, name: &str) -> Option<Secret> {
        self.read(name, |kind, text| match kind {
            Kind::Secret => Ok(Secret::new(text.to_owned())),
            _ => Err(undeclared("secret")),
        })
    }

    /// The secrets of a list, trimmed; empty when it is not set.
    pub fn secret_list(&mut self, name: &str) -> Vec<Secret> {
        let secrets = self.read(name, |kind, text| match kind {
            Kind::SecretList => {
                let secrets: Vec<_> = parse::items(text).map(Secret::new).collect();
                if secrets.is_empty() {
                    return Err("holds nothing but commas: set it to at least one".to_owned());
                }
                Ok(secrets)
            }
            _ => Err(undeclared("secret list")),
        });
        secrets.unwrap_or_default()
    }

    /// The address of the database, checked to be PostgreSQL's.
    pub fn database_url(&mut self, name: &str) -> Secret {
        if self.raw(name).is_none() {
            self.refuse(
                name,
                "is required: set it to the address of a PostgreSQL database, \
                 like postgres://user@host:5432/database",
            );
        }
        self.optional_database_url(name)
            .unwrap_or_else(|| Secret::new(String::new()))
    }

    /// An address of PostgreSQL, if it is set.
    pub fn optional_database_url(&mut self, name: &str) -> Option<Secret> {
        self.read(name, |kind, text| match kind {
            Kind::DatabaseUrl => parse::database_url(text).map(|()| Secret::new(text)),
            _ => Err(undeclared("database address")),
        })
    }

    /// A switch, off when it is not set.
    pub fn switch(&mut self, name: &str) -> bool {
        self.optional_switch(name).unwrap_or_default()
    }

    /// Yes or no, if it is set or has a default.
    pub fn optional_switch(&mut self, name: &str) -> Option<bool> {
        self.read(name, |kind, text| match kind {
            Kind::Switch => parse::switch(text),
            _ => Err(undeclared("switch")),
        })
    }

    /// A whole number that is required or has a default, in the type that the caller holds it in.
    pub fn integer<N: TryFrom<u64> + Default>(&mut self, name: &str) -> N {
        let number = self.read(name, |kind, text| match kind {
            Kind::Integer(..) => {
                let number = parse::whole(kind, text)?;
                N::try_from(number).map_err(|_| "is too large: set it lower".to_owned())
            }
            _ => Err(undeclared("integer")),
        });
        number.unwrap_or_default()
    }

    /// A span of whole seconds that is required or has a default.
    pub fn seconds(&mut self, name: &str) -> Duration {
        self.optional_seconds(name).unwrap_or_default()
    }

    /// A span of whole seconds, if it is set.
    pub fn optional_seconds(&mut self, name: &str) -> Option<Duration> {
        self.read(name, |kind, text| match kind {
            Kind::Seconds(..) => parse::whole(kind, text).map(Duration::from_secs),
            _ => Err(undeclared("seconds")),
        })
    }

    /// An IP address and a port that is required or has a default.
    pub fn address(&mut self, name: &str) -> SocketAddr {
        let address = self.read(name, |kind, text| match kind {
            Kind::Address => parse::address(text),
            _ => Err(undeclared("address")),
        });
        address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// An address to listen on: beyond this machine only with `ALLOW_EXTERNAL_BIND`.
    pub fn bind_address(&mut self, name: &str) -> SocketAddr {
        let address = self.address(name);
        if !self.switch("ALLOW_EXTERNAL_BIND") && !address.ip().is_loopback() {
            self.refuse(
                name,
                "would listen beyond this machine: set ALLOW_EXTERNAL_BIND=1 if that is meant, \
                 or bind to 127.0.0.1",
            );
        }
        address
    }

    /// An `http://` or `https://` address, if it is set.
    pub fn optional_url(&mut self, name: &str) -> Option<Url> {
        self.read(name, |kind, text| match kind {
            Kind::Url => parse::url(text),
            _ => Err(undeclared("address")),
        })
    }

    /// One of the declared words, if it is set or has a default.
    pub fn choice(&mut self, name: &str) -> Option<&'static str> {
        self.read(name, |kind, text| match kind {
            Kind::Choice(words) => parse::choice(words, text),
            _ => Err(undeclared("choice")),
        })
    }

    /// The texts of a list, trimmed; empty when it is not set.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let items = self.read(name, |kind, text| match kind {
            Kind::List => Ok(parse::items(text).map(str::to_owned).collect()),
            _ => Err(undeclared("list")),
        });
        items.unwrap_or_default()
    }

    /// A path, if it is set; exactly as it was given.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.read(name, |kind, text| match kind {
            Kind::Path => Ok(PathBuf::from(text)),
            _ => Err(undeclared("path")),
        })
    }

    /// Whether a setting is set, or has a default.
    pub fn is_set(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Refuses the configuration if a setting is absent that its declaration requires under a
    /// condition which the caller has found to hold.
    pub fn require(&mut self, name: &str) {
        if self.raw(name).is_some() {
            return;
        }
        match self.declared(name).map(|setting| setting.fallback) {
            Some(Fallback::RequiredWhen(condition)) => {
                self.refuse(name, format!("is required {condition}: set it"));
            }
            _ => self.refuse(name, "is required: set it"),
        }
    }

    fn read<T>(&mut self, name: &str, read: impl Fn(Kind, &str) -> Result<T, Fault>) -> Option<T> {
        let Some(setting) = self.declared(name) else {
            self.refuse(
                name,
                "is read but not declared: add it to the program's settings",
            );
            return None;
        };
        let Some(text) = self.raw(name) else {
            if setting.fallback == Fallback::Required {
                let kind = setting.kind.describe();
                self.refuse(name, format!("is required: set it ({kind})"));
            }
            return None;
        };
        match read(setting.kind, text) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.refuse(name, fault);
                None
            }
        }
    }
}

/// A getter that does not fit the declaration is a mistake of the program, found by its first run.
fn undeclared(getter: &str) -> Fault {
    format!("is read as {getter} but declared as another kind: correct the program")
}
