//! The little of the runner's own environment that commands inherit: nothing else of it reaches them.

use service::settings::Values;

const HANDED_ON: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

pub(super) fn read(values: &mut Values) -> Vec<(String, String)> {
    HANDED_ON
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), values.optional_text(name)?)))
        .collect()
}
