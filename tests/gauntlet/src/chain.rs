//! The lines that handlers print: numbered, and each with a hash over all before it, so that a line that is missing,
//! doubled, torn or of another claim shows. Prints nothing itself.

use uuid::Uuid;

/// The lines of one claim, from the first.
#[derive(Clone, Debug)]
pub struct Chain {
    hash: u64,
    number: u32,
}

impl Chain {
    /// Before its first line.
    pub fn of(job: Uuid, fence: i64) -> Self {
        let (high, low) = job.as_u64_pair();
        Self {
            hash: mixed(high ^ low.rotate_left(32) ^ fence.cast_unsigned()),
            number: 0,
        }
    }

    /// The number of the newest line.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The next line.
    pub fn next_line(&mut self) -> String {
        self.number += 1;
        self.hash = mixed(self.hash ^ u64::from(self.number));
        format!("{} {:016x}", self.number, self.hash)
    }
}

fn mixed(number: u64) -> u64 {
    crate::seed::Numbers::of(number).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_claim_has_lines_of_its_own() {
        let lines = |fence| {
            let mut chain = Chain::of(Uuid::nil(), fence);
            [chain.next_line(), chain.next_line()]
        };
        assert_eq!(lines(1), lines(1));
        assert_ne!(lines(1)[0], lines(1)[1]);
        assert_ne!(lines(1)[1], lines(2)[1]);
        assert!(lines(1)[1].starts_with("2 "));
    }
}
