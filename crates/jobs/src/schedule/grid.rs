//! The instants of a schedule: a cron pattern on the wall clock of a time zone. Pure: reads no clock, and takes its time
//! zones from the build, so that every program of one version computes the same.
//!
//! What happens when clocks change:
//! - A *fixed* pattern names its times of day (`30 2 * * *`, `0 9,17 * * 1-5`). A time that does not exist on a day fires
//!   once, at the first instant after the gap; a time that comes twice fires once, the first time.
//! - A *repeating* pattern has a `*` in its minutes or hours, or every hour (`*/15 * * * *`, `@hourly`). It goes on by real
//!   time: it fires whenever the wall clock shows a matching time, so both times where it comes twice, and never in a gap.

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use time::OffsetDateTime;

/// The longest pattern, in bytes.
const LONGEST: usize = 255;
/// No instant lies behind the end of this year: what fires later is as good as never.
const LAST_YEAR: i16 = 2200;

/// Why there is no such grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGrid {
    /// The pattern is none.
    Cron(String),
    /// The time zone is not known.
    Timezone(String),
}

impl fmt::Display for NoGrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(why) => write!(f, "cron {why}"),
            Self::Timezone(why) => write!(f, "timezone {why}"),
        }
    }
}

impl std::error::Error for NoGrid {}

/// A cron pattern in a time zone.
#[derive(Clone, Debug)]
pub struct Grid {
    cron: Cron,
    zone: TimeZone,
    repeating: bool,
}

impl Grid {
    /// Reads a pattern of five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`; and an IANA name.
    ///
    /// # Errors
    /// Says which of the two is wrong, and why.
    pub fn new(cron: &str, timezone: &str) -> Result<Self, NoGrid> {
        let zone = zone(timezone)?;
        Self::in_zone(cron, zone).map_err(NoGrid::Cron)
    }

    /// Checks a pattern alone.
    ///
    /// # Errors
    /// Says why it is none, or that it never fires.
    pub fn check_cron(cron: &str) -> Result<(), String> {
        Self::in_zone(cron, TimeZone::UTC).map(drop)
    }

    /// The name under which a time zone is known, whatever the case of its letters.
    ///
    /// # Errors
    /// Says that it is not known.
    pub fn check_timezone(timezone: &str) -> Result<String, String> {
        match zone(timezone) {
            Ok(zone) => Ok(zone.iana_name().unwrap_or(timezone).to_owned()),
            Err(NoGrid::Timezone(why) | NoGrid::Cron(why)) => Err(why),
        }
    }

    fn in_zone(cron: &str, zone: TimeZone) -> Result<Self, String> {
        let cron = parse(cron)?;
        let pattern = &cron.pattern;
        let repeating = pattern.minutes.from_wildcard
            || pattern.hours.from_wildcard
            || (0..24).all(|hour| pattern.hour_match(hour).unwrap_or(false));
        let grid = Self {
            cron,
            zone,
            repeating,
        };
        // Patterns repeat after 400 years at the most, and within 40 where they have any date at all.
        let long_ago = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);
        match grid.wall_clock_after(long_ago, true) {
            Some(_) => Ok(grid),
            None => Err("never fires: no date matches its day, month and weekday".to_owned()),
        }
    }

    /// The first instant after this one; `None` where none is left.
    pub fn next_after(&self, instant: OffsetDateTime) -> Option<OffsetDateTime> {
        // What a pattern names are whole minutes, so fractions do not matter.
        let instant = Timestamp::from_second(instant.unix_timestamp()).ok()?;
        let next = if self.repeating {
            self.next_repeating(instant)
        } else {
            self.next_fixed(instant)
        }?;
        OffsetDateTime::from_unix_timestamp(next.as_second()).ok()
    }

    /// The first instant at this one or after it.
    pub fn next_from(&self, instant: OffsetDateTime) -> Option<OffsetDateTime> {
        self.next_after(instant - time::Duration::NANOSECOND)
    }

    /// What the wall clock of its zone shows, with the offset: `2026-03-29T03:00:00+02:00`.
    pub fn local(&self, instant: OffsetDateTime) -> String {
        match Timestamp::from_second(instant.unix_timestamp()) {
            Ok(stamp) => {
                let zoned = stamp.to_zoned(self.zone.clone());
                zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
            }
            Err(_) => instant.to_string(),
        }
    }

    /// The pattern in English.
    pub fn description(&self) -> String {
        self.cron.describe()
    }

    /// Each matching time of the wall clock stands for one instant, later times never for earlier ones.
    fn next_fixed(&self, after: Timestamp) -> Option<Timestamp> {
        let mut wall_clock = self.zone.to_datetime(after);
        loop {
            wall_clock = self.wall_clock_after(wall_clock, false)?;
            let instant = self.once(wall_clock)?;
            if instant > after {
                return Some(instant);
            }
        }
    }

    /// The one instant for a time of the wall clock.
    fn once(&self, wall_clock: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(wall_clock);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall_clock).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall_clock).ok(),
            // By the offset that holds after the gap it lies before the gap, so that the next change ends it.
            AmbiguousOffset::Gap { after, .. } => {
                self.change_after(after.to_timestamp(wall_clock).ok()?)
            }
        }
    }

    /// Between two changes of the offset the wall clock runs evenly.
    fn next_repeating(&self, after: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            let offset = self.zone.to_offset(from);
            let change = self.change_after(from);
            let wall_clock = self.wall_clock_after(offset.to_datetime(from), inclusive)?;
            let instant = offset.to_timestamp(wall_clock).ok()?;
            match change {
                Some(change) if instant >= change => (from, inclusive) = (change, true),
                Some(_) | None => return Some(instant),
            }
        }
    }

    /// When the zone's clocks change next.
    fn change_after(&self, instant: Timestamp) -> Option<Timestamp> {
        let next = self.zone.following(instant).next();
        next.map(|transition| transition.timestamp())
    }

    fn wall_clock_after(&self, wall_clock: DateTime, inclusive: bool) -> Option<DateTime> {
        let next = self
            .cron
            .find_next_occurrence(&wall_clock, inclusive)
            .ok()?;
        (next.year() <= LAST_YEAR).then_some(next)
    }
}

fn zone(name: &str) -> Result<TimeZone, NoGrid> {
    let unknown = || {
        NoGrid::Timezone(
            "is not known: use a name of the IANA database, such as Europe/Berlin or UTC"
                .to_owned(),
        )
    };
    let zone = TimeZone::get(name).map_err(|_| unknown())?;
    if zone.is_unknown() || zone.iana_name().is_none() {
        return Err(unknown());
    }
    Ok(zone)
}

fn parse(text: &str) -> Result<Cron, String> {
    if text.len() > LONGEST || !text.is_ascii() {
        return Err(format!("must have at most {LONGEST} ASCII characters"));
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    parser.parse(text).map_err(|error| {
        format!(
            "must have five fields (minute, hour, day, month, weekday) or be one of @hourly, @daily, @weekly, @monthly \
             and @yearly: {error}"
        )
    })
}

#[cfg(test)]
mod tests;
