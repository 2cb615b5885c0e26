//! Who PostgreSQL runs as: it refuses root, so root hands it to an unprivileged user of the password file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The user that the server and everything of its folder belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUser {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    switch: Switch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    /// We are that user already.
    Stay,
    /// We are root, and our children become that user.
    FromRoot,
}

impl ServerUser {
    /// Chooses the user: who is asked for, else the owner of what is there already, else the first that fits.
    pub(crate) fn choose(asked: Option<&str>, owner: Option<u32>) -> Result<Self, Error> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let own_uid = rustix::process::geteuid().as_raw();
        let own_gid = rustix::process::getegid().as_raw();
        pick(&passwd, own_uid, own_gid, asked, owner)
    }

    /// Whoever we are, root too: for files that no server touches.
    pub(crate) fn ourselves() -> Self {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Self {
            name: uid.to_string(),
            uid,
            gid,
            switch: Switch::Stay,
        }
    }

    /// Makes a command run as this user. Standard also drops root's further groups.
    pub(crate) fn take_over(&self, command: &mut Command) {
        if self.switch == Switch::FromRoot {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Whether files that we make must be given to this user.
    pub(crate) fn is_someone_else(&self) -> bool {
        self.switch == Switch::FromRoot
    }

    /// The first directory on the way to `needed` (itself too) that this user cannot enter.
    pub(crate) fn first_closed(&self, needed: &Path) -> Option<PathBuf> {
        if self.switch == Switch::Stay {
            return None; // our own rights, further groups included, show when the directory is used
        }
        let mut ancestors: Vec<&Path> = needed
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        ancestors.reverse();
        ancestors
            .into_iter()
            .find(|path| fs::metadata(path).is_ok_and(|found| !self.may_enter(&found)))
            .map(Path::to_path_buf)
    }

    fn may_enter(&self, directory: &fs::Metadata) -> bool {
        let bit = if directory.uid() == self.uid {
            0o100
        } else if directory.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        directory.mode() & bit != 0
    }
}

fn pick(
    passwd: &str,
    own_uid: u32,
    own_gid: u32,
    asked: Option<&str>,
    owner: Option<u32>,
) -> Result<ServerUser, Error> {
    let entries: Vec<(&str, u32, u32)> = passwd.lines().filter_map(entry).collect();
    if own_uid != 0 {
        let name = entries
            .iter()
            .find(|(_, uid, _)| *uid == own_uid)
            .map_or_else(|| own_uid.to_string(), |(name, ..)| (*name).to_owned());
        return match asked {
            Some(asked) if asked != name => Err(Error::NoUser {
                problem: format!("only root can run it as {asked}"),
            }),
            _ => Ok(ServerUser {
                name,
                uid: own_uid,
                gid: own_gid,
                switch: Switch::Stay,
            }),
        };
    }
    let fits = |uid: u32, gid: u32| uid != 0 && gid != 0;
    let by_name = |wanted: &str| {
        entries
            .iter()
            .find(|(name, uid, gid)| *name == wanted && fits(*uid, *gid))
    };
    let found = match (asked, owner.filter(|uid| *uid != 0)) {
        (Some(name), _) => by_name(name).ok_or_else(|| Error::NoUser {
            problem: format!("{name} is no unprivileged user here"),
        })?,
        (None, Some(owner)) => entries
            .iter()
            .find(|(_, uid, gid)| *uid == owner && fits(*uid, *gid))
            .ok_or_else(|| Error::NoUser {
                problem: format!(
                    "the owner of the data, user id {owner}, has no entry in /etc/passwd"
                ),
            })?,
        (None, None) => by_name("postgres")
            .or_else(|| by_name("nobody"))
            .or_else(|| entries.iter().find(|(_, uid, gid)| fits(*uid, *gid)))
            .ok_or_else(|| Error::NoUser {
                problem: "/etc/passwd has no unprivileged user".to_owned(),
            })?,
    };
    Ok(ServerUser {
        name: found.0.to_owned(),
        uid: found.1,
        gid: found.2,
        switch: Switch::FromRoot,
    })
}

fn entry(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields
        .next()
        .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((name, uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\ndaemon:x:1:1::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n\
                          postgres:x:101:104:a,b:/var/lib/postgresql:/bin/bash\n";

    fn name(
        passwd: &str,
        uid: u32,
        asked: Option<&str>,
        owner: Option<u32>,
    ) -> Result<String, String> {
        pick(passwd, uid, uid, asked, owner)
            .map(|user| user.name)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn root_runs_it_as_postgres_else_nobody_else_the_first_unprivileged_user() {
        let without = |gone: &str| {
            PASSWD
                .lines()
                .filter(|line| !line.starts_with(gone))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(name(PASSWD, 0, None, None).as_deref(), Ok("postgres"));
        assert_eq!(
            name(&without("postgres"), 0, None, None).as_deref(),
            Ok("nobody")
        );
        let neither: String = PASSWD.lines().take(3).collect::<Vec<_>>().join("\n");
        assert_eq!(name(&neither, 0, None, None).as_deref(), Ok("daemon"));
        assert!(name("root:x:0:0::/:/bin/sh", 0, None, None).is_err());
    }

    #[test]
    fn the_owner_of_the_data_stays_its_user() {
        assert_eq!(name(PASSWD, 0, None, Some(65534)).as_deref(), Ok("nobody"));
        assert!(
            name(PASSWD, 0, None, Some(12345))
                .expect_err("no entry")
                .contains("12345")
        );
    }

    #[test]
    fn everybody_else_runs_it_as_themselves() {
        assert_eq!(name(PASSWD, 1, None, None).as_deref(), Ok("daemon"));
        assert_eq!(name(PASSWD, 12345, None, None).as_deref(), Ok("12345"));
        assert!(name(PASSWD, 1, Some("postgres"), None).is_err());
    }
}
