//! Finds the program that a bare name means, as the system's own search would. Worth doing beforehand: with a path the
//! standard library starts it by `posix_spawn`, with a name it has to fork.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The program, or `None` where only the system's own search can tell.
pub(super) fn program(name: &str, environment: &[(String, String)]) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    // The last one counts.
    let mut variables = environment.iter().rev();
    let (_, path) = variables.find(|(variable, _)| variable == "PATH")?;
    for folder in path.split(':') {
        // Relative to where the command is to start, which is not here.
        if !folder.starts_with('/') {
            return None;
        }
        let found = Path::new(folder).join(name);
        if found.is_file() && access(&found, Access::EXEC_OK).is_ok() {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn found(name: &str, path: &str) -> Option<PathBuf> {
        let environment = [("PATH", "/nowhere"), ("PATH", path), ("HOME", "/")];
        let owned = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        program(name, &owned)
    }

    #[test]
    fn a_name_means_the_first_program_of_that_name() {
        let outer = tempfile::tempdir().expect("a folder");
        for (folder, mode) in [("a", 0o644), ("b", 0o755), ("c", 0o755)] {
            let folder = outer.path().join(folder);
            fs::create_dir(&folder).expect("made");
            fs::write(folder.join("x"), "").expect("written");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(folder.join("x"), mode).expect("set");
        }
        fs::create_dir(outer.path().join("x")).expect("made");
        let at = outer.path().display();
        let path = format!("/nowhere:{at}:{at}/a:{at}/b:{at}/c");
        assert_eq!(found("x", &path), Some(outer.path().join("b/x")));
        assert_eq!(found("y", &path), None);
    }

    #[test]
    fn what_depends_on_where_it_starts_is_left_to_the_system() {
        for (name, path) in [
            ("/bin/true", "/bin"),
            ("./true", "/bin"),
            ("true", ".:/bin"),
            ("true", ":/bin"),
            ("", "/bin"),
        ] {
            assert_eq!(found(name, path), None, "{name} in {path}");
        }
        assert_eq!(program("true", &[]), None);
    }
}
