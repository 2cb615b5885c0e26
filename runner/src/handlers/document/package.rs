//! A DOCX as the archive that it is, looked at with suspicion: bounded in entries, bytes and ratio, counted while inflating;
//! no name that is a path, no second entry of a name, no macro, no embedded program, nothing that is fetched from
//! elsewhere, no entity. Nothing of it is ever unpacked to disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use quick_xml::Reader;
use quick_xml::events::Event;
use zip::read::ZipArchive;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::template::Unusable;

const MOST_ENTRIES: usize = 2_000;
const MOST_BYTES: u64 = 64 * 1024 * 1024;
const LARGEST_TEXT: u64 = 16 * 1024 * 1024;
/// What is this large and was packed this tightly is a bomb.
const SUSPICIOUS: u64 = 1024 * 1024;
const TIGHTEST: u64 = 100;

/// A package in which nothing hostile was found.
pub(super) struct Package {
    archive: ZipArchive<File>,
    /// The names of the parts with text to render.
    pub(super) texts: Vec<String>,
}

impl Package {
    /// Opens a package and looks at all of it.
    pub(super) fn open(file: File) -> Result<Self, Unusable> {
        let mut archive = ZipArchive::new(file)
            .map_err(|error| unusable(&format!("it is no ZIP archive: {error}")))?;
        if archive.len() > MOST_ENTRIES {
            return Err(unusable(&format!(
                "it has more than {MOST_ENTRIES} entries"
            )));
        }
        let (mut names, mut left) = (BTreeSet::new(), MOST_BYTES);
        let mut texts = Vec::new();
        for index in 0..archive.len() {
            let (name, bytes) = read_entry(&mut archive, index, &mut left)?;
            if !names.insert(name.to_lowercase()) {
                return Err(unusable("it has two entries of one name"));
            }
            check_part(&name, &bytes)?;
            if is_text(&name) {
                texts.push(name);
            }
        }
        for needed in ["[content_types].xml", "word/document.xml"] {
            if !names.contains(needed) {
                return Err(unusable(&format!("it has no {needed}")));
            }
        }
        Ok(Self { archive, texts })
    }

    /// The XML of a part.
    pub(super) fn text(&mut self, name: &str) -> Result<String, Unusable> {
        let entry = self
            .archive
            .by_name(name)
            .map_err(|error| unusable(&error.to_string()))?;
        let mut bytes = Vec::new();
        entry
            .take(LARGEST_TEXT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unusable(&error.to_string()))?;
        if bytes.len() as u64 > LARGEST_TEXT {
            return Err(unusable(&format!(
                "{name} is larger than {LARGEST_TEXT} bytes"
            )));
        }
        String::from_utf8(bytes).map_err(|_| unusable(&format!("{name} is not UTF-8")))
    }

    /// Writes the package with other texts; everything else is copied as it is.
    pub(super) fn write(&mut self, texts: &[(String, Vec<u8>)], to: File) -> io::Result<()> {
        let mut out = ZipWriter::new(to);
        for index in 0..self.archive.len() {
            let entry = self.archive.by_index_raw(index)?;
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            match texts.iter().find(|(changed, _)| *changed == name) {
                Some((_, xml)) => {
                    out.start_file(name, SimpleFileOptions::default())?;
                    out.write_all(xml)?;
                }
                None => out.raw_copy_file(entry)?,
            }
        }
        out.finish()?.sync_all()
    }
}

/// Inflates an entry as far as it may go; gives its name and bytes.
fn read_entry(
    archive: &mut ZipArchive<File>,
    index: usize,
    left: &mut u64,
) -> Result<(String, Vec<u8>), Unusable> {
    let entry = archive
        .by_index(index)
        .map_err(|error| unusable(&format!("an entry cannot be read: {error}")))?;
    let name = std::str::from_utf8(entry.name_raw())
        .map_err(|_| unusable("an entry's name is not UTF-8"))?
        .to_owned();
    if entry.is_symlink() {
        return Err(unusable("an entry is a link"));
    }
    if entry.enclosed_name().is_none()
        || name.contains('\\')
        || name.contains("..")
        || name.starts_with('/')
    {
        return Err(unusable("an entry's name leads out of it"));
    }
    let packed = entry.compressed_size();
    let mut bytes = Vec::new();
    entry
        .take(*left + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unusable(&format!("an entry cannot be read: {error}")))?;
    let size = bytes.len() as u64;
    *left = left
        .checked_sub(size)
        .ok_or_else(|| unusable(&format!("it inflates to more than {MOST_BYTES} bytes")))?;
    if size > SUSPICIOUS && size / TIGHTEST > packed {
        return Err(unusable("an entry is packed too tightly to be a document"));
    }
    Ok((name, bytes))
}

fn check_part(name: &str, bytes: &[u8]) -> Result<(), Unusable> {
    let lower = name.to_lowercase();
    let is_program = ["word/embeddings/", "word/activex/", "customui/"]
        .iter()
        .any(|folder| lower.starts_with(folder))
        || lower.ends_with("vbaproject.bin")
        || lower.ends_with("vbadata.xml");
    if is_program {
        return Err(unusable("it holds macros or embedded objects"));
    }
    if !lower.ends_with(".xml") && !lower.ends_with(".rels") {
        return Ok(());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| unusable(&format!("{name} is not UTF-8")))?;
    if text.contains("<!DOCTYPE") || text.contains("<!ENTITY") {
        return Err(unusable("it declares entities"));
    }
    if lower == "[content_types].xml" && text.to_lowercase().contains("macroenabled") {
        return Err(unusable("it is a document with macros"));
    }
    if lower.ends_with(".rels") {
        check_relations(text)
    } else {
        Ok(())
    }
}

/// Only links that a reader clicks may lead elsewhere.
fn check_relations(text: &str) -> Result<(), Unusable> {
    let mut reader = Reader::from_str(text);
    loop {
        let event = reader
            .read_event()
            .map_err(|_| unusable("its relations are malformed"))?;
        let (Event::Start(element) | Event::Empty(element)) = event else {
            if matches!(event, Event::Eof) {
                return Ok(());
            }
            continue;
        };
        let attribute = |name: &str| {
            let found = element.try_get_attribute(name).ok().flatten();
            found
                .map(|found| String::from_utf8_lossy(&found.value).into_owned())
                .unwrap_or_default()
        };
        let is_outside =
            !attribute("TargetMode").is_empty() && attribute("TargetMode") != "Internal";
        if is_outside && !attribute("Type").ends_with("/hyperlink") {
            return Err(unusable("it fetches something from elsewhere"));
        }
    }
}

fn is_text(name: &str) -> bool {
    let Some(part) = name
        .strip_prefix("word/")
        .and_then(|part| part.strip_suffix(".xml"))
    else {
        return false;
    };
    let numbered = |word: &str| {
        part.strip_prefix(word)
            .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    matches!(part, "document" | "footnotes" | "endnotes")
        || numbered("header")
        || numbered("footer")
}

fn unusable(why: &str) -> Unusable {
    Unusable(format!("the template is refused: {why}"))
}
