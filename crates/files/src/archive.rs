//! ZIP archives of files, streamed: sizes and checksums are on record, so that every header, and the length of the whole,
//! is known before the first byte is read. Entries are stored as they are; most are compressed already.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jobs::File;
use time::OffsetDateTime;

use crate::depot::Depot;
use crate::reader::Piece;

/// From here on a field needs its 64-bit form.
const BIG: u64 = 0xFFFF_FFFF;
/// Names are UTF-8.
const UTF8_NAMES: u16 = 1 << 11;
const STORED: u16 = 0;
/// Made on Unix, by version 4.5, which has 64-bit sizes.
const MADE_BY: u16 = (3 << 8) | 45;
/// A regular file that its owner may write and everybody read.
const MODE: u32 = 0o100_644 << 16;

/// An archive that is ready to be read.
#[derive(Debug)]
pub struct Archive {
    files: Vec<File>,
    headers: Vec<Bytes>,
    end: Bytes,
    length: u64,
}

impl Archive {
    /// Lays out an archive of these files.
    pub fn of(files: Vec<File>) -> Self {
        let mut at = 0;
        let mut headers = Vec::with_capacity(files.len());
        let mut directory = BytesMut::new();
        for file in &files {
            let header = local_header(file);
            put_directory_entry(&mut directory, file, at);
            at += header.len() as u64 + file.sum.size;
            headers.push(header);
        }
        let end = end(directory, files.len() as u64, at);
        let length = at + end.len() as u64;
        Self {
            files,
            headers,
            end,
            length,
        }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its bytes.
    pub fn stream(self, depot: &Depot) -> BoxStream<'static, Piece> {
        let depot = depot.clone();
        let entries = stream::iter(self.headers.into_iter().zip(self.files));
        let entries = entries.flat_map(move |(header, file)| {
            stream::once(async move { Ok(header) }).chain(depot.read_all(&file))
        });
        let end = self.end;
        entries.chain(stream::once(async move { Ok(end) })).boxed()
    }
}

/// The name in the archive: artifacts of stages are parted by them.
fn entry_name(file: &File) -> String {
    match &file.stage {
        Some(stage) => format!("{stage}/{}", file.name),
        None => file.name.clone(),
    }
}

fn local_header(file: &File) -> Bytes {
    let name = entry_name(file);
    let big = file.sum.size >= BIG;
    let mut header = BytesMut::with_capacity(64 + name.len());
    header.put_u32_le(0x0403_4b50);
    put_what_both_have(&mut header, file);
    header.put_u16_le(length_of(&name));
    header.put_u16_le(if big { 20 } else { 0 });
    header.put_slice(name.as_bytes());
    if big {
        header.put_u16_le(1);
        header.put_u16_le(16);
        header.put_u64_le(file.sum.size);
        header.put_u64_le(file.sum.size);
    }
    header.freeze()
}

fn put_directory_entry(directory: &mut BytesMut, file: &File, at: u64) {
    let name = entry_name(file);
    let (big, far) = (file.sum.size >= BIG, at >= BIG);
    let extra = 16 * u16::from(big) + 8 * u16::from(far);
    directory.put_u32_le(0x0201_4b50);
    directory.put_u16_le(MADE_BY);
    put_what_both_have(directory, file);
    directory.put_u16_le(length_of(&name));
    directory.put_u16_le(if extra > 0 { extra + 4 } else { 0 });
    // No comment, the first disk, binary.
    directory.put_slice(&[0; 6]);
    directory.put_u32_le(MODE);
    directory.put_u32_le(u32::try_from(at).unwrap_or(u32::MAX));
    directory.put_slice(name.as_bytes());
    if extra > 0 {
        directory.put_u16_le(1);
        directory.put_u16_le(extra);
        if big {
            directory.put_u64_le(file.sum.size);
            directory.put_u64_le(file.sum.size);
        }
        if far {
            directory.put_u64_le(at);
        }
    }
}

fn put_what_both_have(header: &mut BytesMut, file: &File) {
    let (date, time) = dos_instant(file.created_at);
    let size = u32::try_from(file.sum.size).unwrap_or(u32::MAX);
    header.put_u16_le(45);
    header.put_u16_le(UTF8_NAMES);
    header.put_u16_le(STORED);
    header.put_u16_le(time);
    header.put_u16_le(date);
    header.put_u32_le(file.sum.crc32);
    header.put_u32_le(size);
    header.put_u32_le(size);
}

fn end(directory: BytesMut, count: u64, at: u64) -> Bytes {
    let length = directory.len() as u64;
    let mut end = directory;
    if count >= 0xFFFF || length >= BIG || at >= BIG {
        let record = at + length;
        end.put_u32_le(0x0606_4b50);
        end.put_u64_le(44);
        end.put_u16_le(MADE_BY);
        end.put_u16_le(45);
        end.put_slice(&[0; 8]);
        end.put_u64_le(count);
        end.put_u64_le(count);
        end.put_u64_le(length);
        end.put_u64_le(at);
        end.put_u32_le(0x0706_4b50);
        end.put_u32_le(0);
        end.put_u64_le(record);
        end.put_u32_le(1);
    }
    let short = u16::try_from(count).unwrap_or(u16::MAX);
    end.put_u32_le(0x0605_4b50);
    end.put_slice(&[0; 4]);
    end.put_u16_le(short);
    end.put_u16_le(short);
    end.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    end.put_u32_le(u32::try_from(at).unwrap_or(u32::MAX));
    end.put_u16_le(0);
    end.freeze()
}

/// Names are bounded far below this.
fn length_of(name: &str) -> u16 {
    u16::try_from(name.len()).unwrap_or(u16::MAX)
}

/// Date and time as ZIP has them, in UTC, from 1980 to 2107.
fn dos_instant(at: OffsetDateTime) -> (u16, u16) {
    let at = at.to_offset(time::UtcOffset::UTC);
    let year = u16::try_from((at.year() - 1980).clamp(0, 127)).unwrap_or(0);
    let date = (year << 9) | (u16::from(u8::from(at.month())) << 5) | u16::from(at.day());
    let time =
        (u16::from(at.hour()) << 11) | (u16::from(at.minute()) << 5) | u16::from(at.second() / 2);
    (date, time)
}

#[cfg(test)]
mod tests {
    use jobs::Sum;

    use super::*;

    fn file(name: &str, size: u64) -> File {
        File {
            id: uuid::Uuid::nil(),
            name: name.to_owned(),
            content_type: String::new(),
            stage: None,
            object: None,
            sum: Sum {
                size,
                sha256: [0; 32],
                crc32: 0,
            },
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Everything but the files' own bytes, which are left out.
    fn skeleton(archive: &Archive) -> u64 {
        let headers: usize = archive.headers.iter().map(Bytes::len).sum();
        (headers + archive.end.len()) as u64
    }

    #[test]
    fn an_archive_of_nothing_is_an_archive() {
        let archive = Archive::of(Vec::new());
        assert_eq!(archive.length(), 22);
        let read = zip::ZipArchive::new(std::io::Cursor::new(archive.end)).expect("an archive");
        assert_eq!(read.len(), 0);
    }

    #[test]
    fn a_length_is_known_beforehand_also_of_what_is_huge_or_many() {
        let huge = Archive::of(vec![file("a", BIG), file("b", 5 * BIG), file("c", 1)]);
        assert_eq!(huge.length(), 6 * BIG + 1 + skeleton(&huge));
        assert!(
            huge.end
                .windows(4)
                .any(|word| word == 0x0606_4b50_u32.to_le_bytes())
        );
        let many = Archive::of(
            (0..70_000)
                .map(|number| file(&number.to_string(), 0))
                .collect(),
        );
        let bytes: Vec<u8> = many
            .headers
            .iter()
            .flatten()
            .chain(&many.end)
            .copied()
            .collect();
        let read = zip::ZipArchive::new(std::io::Cursor::new(bytes)).expect("an archive");
        assert_eq!(read.len(), 70_000);
    }
}
