//! What handlers did, in their own words: records of one size, each one `write` to a file opened for appending, so that
//! those of many processes never mix. Judges nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

use crate::clock;

/// Bytes of a record.
pub const RECORD: usize = 64;
/// The bytes of it that the sum behind them vouches for.
const SUMMED: usize = RECORD - 8;

/// What a handler was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It began.
    Start,
    /// It lived.
    Beat,
    /// It is about to end with exit code 0.
    Done,
    /// It is about to end with 75.
    Again,
    /// The sink refused its fence; it is about to end with 1.
    Refused,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Start,
        Self::Beat,
        Self::Done,
        Self::Again,
        Self::Refused,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Beat => 2,
            Self::Done => 3,
            Self::Again => 4,
            Self::Refused => 5,
        }
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The job.
    pub job: Uuid,
    /// The fence that the handler was given.
    pub fence: i64,
    /// The attempt that it was told.
    pub attempt: i32,
    /// What it was at.
    pub phase: Phase,
    /// Its process.
    pub pid: u32,
    /// Who started it: tells one start of a runner from the next.
    pub parent: u32,
    /// When, by the monotonic clock, in nanoseconds.
    pub at: u64,
    /// How many lines it has printed.
    pub lines: u32,
}

impl Record {
    /// The bytes of the file.
    pub fn to_bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[0..16].copy_from_slice(self.job.as_bytes());
        bytes[16..24].copy_from_slice(&self.fence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[28] = self.phase.code();
        bytes[32..36].copy_from_slice(&self.pid.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.parent.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.at.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.lines.to_le_bytes());
        let sum = sum(&bytes[..SUMMED]);
        bytes[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the bytes of one record; `None` when they are not whole.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        fn part<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
            bytes.get(from..from + N)?.try_into().ok()
        }
        if sum(bytes.get(..SUMMED)?) != u64::from_le_bytes(part(bytes, SUMMED)?) {
            return None;
        }
        Some(Self {
            job: Uuid::from_bytes(part(bytes, 0)?),
            fence: i64::from_le_bytes(part(bytes, 16)?),
            attempt: i32::from_le_bytes(part(bytes, 24)?),
            phase: Phase::ALL
                .into_iter()
                .find(|phase| phase.code() == bytes[28])?,
            pid: u32::from_le_bytes(part(bytes, 32)?),
            parent: u32::from_le_bytes(part(bytes, 36)?),
            at: u64::from_le_bytes(part(bytes, 40)?),
            lines: u32::from_le_bytes(part(bytes, 48)?),
        })
    }
}

/// FNV-1a: tells a torn record from a whole one.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The ledger as a handler writes it.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    record: Record,
}

impl Ledger {
    /// Opens the file for the handler of this job under this fence.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, job: Uuid, fence: i64, attempt: i32) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let record = Record {
            job,
            fence,
            attempt,
            phase: Phase::Start,
            pid: std::process::id(),
            parent: std::os::unix::process::parent_id(),
            at: 0,
            lines: 0,
        };
        Ok(Self { file, record })
    }

    /// Notes that a line was printed.
    pub fn printed(&mut self) {
        self.record.lines += 1;
    }

    /// Says what the handler is at, now.
    ///
    /// # Errors
    /// When the record was not written whole.
    pub fn write(&mut self, phase: Phase) -> io::Result<()> {
        let record = Record {
            phase,
            at: clock::monotonic(),
            ..self.record
        };
        let written = self.file.write(&record.to_bytes())?;
        if written == RECORD {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

/// The whole ledger; the number of torn records beside it.
///
/// # Errors
/// When the file cannot be read; one that is not there is empty.
pub fn read(path: &Path) -> io::Result<(Vec<Record>, usize)> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let records: Vec<Option<Record>> = bytes.chunks(RECORD).map(Record::from_bytes).collect();
    let torn = records.iter().filter(|record| record.is_none()).count();
    Ok((records.into_iter().flatten().collect(), torn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let record = Record {
            job: Uuid::max(),
            fence: -7,
            attempt: 3,
            phase: Phase::Again,
            pid: 8,
            parent: 9,
            at: 10,
            lines: 11,
        };
        let mut bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Some(record));
        bytes[20] ^= 1;
        assert_eq!(Record::from_bytes(&bytes), None);
        assert_eq!(Record::from_bytes(&bytes[..40]), None);
    }
}
