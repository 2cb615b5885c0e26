//! The program itself: that it is built, and what it says of itself. The system tests start it from where this puts it.

use std::process::Command;

#[test]
fn it_tells_its_version_and_its_usage() {
    for (argument, expected) in [
        ("--version", env!("CARGO_PKG_VERSION")),
        ("--help", "--config"),
    ] {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test of the program as a process"
        )]
        let answer = Command::new(env!("CARGO_BIN_EXE_control-plane"))
            .arg(argument)
            .output()
            .expect("started");
        assert!(answer.status.success(), "{argument}: {answer:?}");
        let said = String::from_utf8_lossy(&answer.stdout);
        assert!(said.contains(expected), "{argument}: {said}");
    }
}
