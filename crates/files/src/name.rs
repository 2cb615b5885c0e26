//! Names of files: which ones an artifact may have, and what becomes of a name from outside before it is a path.

use std::collections::BTreeSet;

const LONGEST_NAME: usize = 512;
const LONGEST_PART: usize = 255;
const DEEPEST: usize = 16;
/// Bytes of a name that is made up from one from outside.
const LONGEST_SAFE: usize = 100;

/// Whether a file may be kept under this name: a relative path of plain parts, the same on every system.
pub fn is_artifact_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.split('/').count() <= DEEPEST
        && name.split('/').all(is_plain_part)
}

fn is_plain_part(part: &str) -> bool {
    let blank = |letter: char| letter.is_whitespace();
    !part.is_empty()
        && part.len() <= LONGEST_PART
        && part != "."
        && part != ".."
        && !part.starts_with(blank)
        && !part.ends_with(blank)
        && !part.chars().any(is_treacherous)
}

/// What ends a line, hides, turns the direction of writing, or parts a path elsewhere.
fn is_treacherous(letter: char) -> bool {
    letter.is_control()
        || letter == '\\'
        || matches!(letter,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}')
}

/// A name from outside, as it is kept and shown: never a path, one line, of bounded length.
pub fn file_name_of(sent: Option<&str>) -> String {
    let last = sent
        .unwrap_or_default()
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or_default();
    let clean: String = last
        .chars()
        .map(|letter| if is_treacherous(letter) { '_' } else { letter })
        .take(LONGEST_PART / 4)
        .collect();
    let clean = clean.trim();
    if clean.is_empty() || clean == "." || clean == ".." {
        "file".to_owned()
    } else {
        clean.to_owned()
    }
}

/// A name in a folder for each, in their order: ASCII letters, digits, `.`, `_` and `-` only, none hidden, no two the same
/// also where case does not matter.
pub fn unique_file_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let unique = names.into_iter().map(|name| {
        let safe = safe(name);
        let (stem, ending) = match safe.rfind('.') {
            Some(dot) if dot > 0 => safe.split_at(dot),
            _ => (safe.as_str(), ""),
        };
        let mut unique = safe.clone();
        let mut number = 1;
        while !taken.insert(unique.to_ascii_lowercase()) {
            number += 1;
            unique = format!("{stem}-{number}{ending}");
        }
        unique
    });
    unique.collect()
}

fn safe(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let name: String = name
        .chars()
        .map(|letter| if plain(letter) { letter } else { '_' })
        .collect();
    let name = name.trim_start_matches(['.', '-']).trim_end_matches('.');
    let (stem, ending) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= 16 => name.split_at(dot),
        _ => (name, ""),
    };
    // All of it is ASCII by now.
    let stem = &stem[..stem.len().min(LONGEST_SAFE - ending.len())];
    if stem.is_empty() {
        format!("file{ending}")
    } else {
        format!("{stem}{ending}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_named_by_a_plain_relative_path() {
        let deep = vec!["d"; DEEPEST].join("/");
        for good in [
            "a",
            "a.txt",
            "deep/er/ü b.txt",
            "10:15.log",
            "..a",
            "a..",
            ".hidden",
            "%2e%2e",
            &deep,
        ] {
            assert!(is_artifact_name(good), "{good}");
        }
        let (long, deeper) = ("x".repeat(256), vec!["d"; DEEPEST + 1].join("/"));
        for bad in [
            "",
            ".",
            "..",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "./a",
            "a\\b",
            "a\0",
            "a\nb",
            " a",
            "a ",
            "a/ ",
            "\u{202e}txt.exe",
            "\u{feff}a",
            &long,
            &deeper,
        ] {
            assert!(!is_artifact_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn names_from_outside_never_become_paths() {
        for (sent, kept) in [
            (Some("../../etc/passwd"), "passwd"),
            (Some("C:\\Users\\x\\Report.docx"), "Report.docx"),
            (Some("a\r\nb"), "a__b"),
            (Some(".."), "file"),
            (Some("  "), "file"),
            (None, "file"),
            (Some("Prüfung 1.docx"), "Prüfung 1.docx"),
        ] {
            assert_eq!(file_name_of(sent), kept, "{sent:?}");
        }
    }

    #[test]
    fn files_in_a_folder_are_told_apart() {
        let names = [
            "a b.txt",
            "a_b.txt",
            "A_B.TXT",
            ".bashrc",
            "-rf",
            "ü",
            "..",
            &"x".repeat(300),
        ];
        let unique = unique_file_names(names);
        assert_eq!(
            &unique[..6],
            ["a_b.txt", "a_b-2.txt", "A_B-3.TXT", "bashrc", "rf", "_"]
        );
        assert_eq!(unique[6], "file");
        assert_eq!(unique[7].len(), LONGEST_SAFE);
    }
}
