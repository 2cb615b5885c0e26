//! Completions and the manual page, both made from the command line's own tree.

use clap_complete::Shell;

use crate::cli::command;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::Screen;

#[expect(
    clippy::unnecessary_wraps,
    reason = "every group of commands ends in the same way"
)]
pub(crate) fn completions(shell: Shell, screen: &Screen) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "opsctl", &mut script);
    screen.raw(&script);
    Ok(Exit::Ok)
}

pub(crate) fn man(screen: &Screen) -> Result<Exit, Error> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command())
        .render(&mut page)
        .map_err(|source| Error::Io {
            doing: "write the manual page".to_owned(),
            source,
        })?;
    screen.raw(&page);
    Ok(Exit::Ok)
}
