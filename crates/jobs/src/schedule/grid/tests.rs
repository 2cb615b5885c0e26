//! The grid against a naive enumeration that looks at every minute of a year, in every zone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::{TimeZone, db};
use proptest::prelude::*;
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, Month, OffsetDateTime};

use super::*;

/// Minutes since 1970: of UTC, or of a wall clock.
type Minute = i64;

const YEAR: (Minute, Minute) = (minute_of(2026), minute_of(2027));

const fn minute_of(year: i64) -> Minute {
    // Good for 1970 to 2099.
    (365 * (year - 1970) + (year - 1969) / 4) * 1440
}

/// A pattern as the test reads it: lists, ranges and steps of numbers, and nothing else.
struct Naive {
    fields: Vec<BTreeSet<u32>>,
    any_day: bool,
    any_weekday: bool,
    repeating: bool,
}

impl Naive {
    fn new(pattern: &str) -> Self {
        let texts: Vec<&str> = pattern.split(' ').collect();
        let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
        let fields: Vec<BTreeSet<u32>> = texts
            .iter()
            .zip(bounds)
            .map(|(text, (low, high))| field(text, low, high))
            .collect();
        Self {
            any_day: texts[2] == "*",
            any_weekday: texts[4] == "*",
            repeating: texts[0].starts_with('*')
                || texts[1].starts_with('*')
                || fields[1].len() == 24,
            fields,
        }
    }

    fn matches(&self, wall_clock: Minute) -> bool {
        let at = OffsetDateTime::UNIX_EPOCH + Duration::minutes(wall_clock);
        let day = self.fields[2].contains(&u32::from(at.day()));
        let weekday = self.fields[4].contains(&u32::from(at.weekday().number_days_from_sunday()));
        let date = match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            (_, _) => day && weekday,
        };
        date && self.fields[0].contains(&u32::from(at.minute()))
            && self.fields[1].contains(&u32::from(at.hour()))
            && self.fields[3].contains(&u32::from(u8::from(at.month())))
    }
}

fn field(text: &str, low: u32, high: u32) -> BTreeSet<u32> {
    let item = |item: &str| {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().expect("from"), to.parse().expect("to")),
            None if range == "*" => (low, high),
            None => (
                range.parse().expect("a number"),
                range.parse().expect("a number"),
            ),
        };
        (from..=to)
            .step_by(step.parse().expect("a step"))
            .collect::<Vec<u32>>()
    };
    text.split(',').flat_map(item).collect()
}

/// From which minute on a zone has which offset, in minutes; found by asking each hour, and each minute where it changed.
fn changes(zone: &TimeZone) -> Vec<(Minute, Minute)> {
    let offset = |minute: Minute| {
        let stamp = Timestamp::from_second(minute * 60).expect("in range");
        i64::from(zone.to_offset(stamp).seconds()).div_euclid(60)
    };
    // A day before, so that the first occurrence of what comes twice is known.
    let begin = YEAR.0 - 1440;
    let mut changes = vec![(begin, offset(begin))];
    for hour in (begin..YEAR.1).step_by(60) {
        let mut before = changes.last().expect("one").1;
        if offset(hour + 60) != before {
            for minute in hour..=hour + 60 {
                if offset(minute) != before {
                    before = offset(minute);
                    changes.push((minute, before));
                }
            }
        }
    }
    changes
}

/// What a pattern matches on a wall clock around the year.
struct Matching {
    begin: Minute,
    minutes: Vec<bool>,
}

impl Matching {
    fn new(pattern: &Naive) -> Self {
        let begin = YEAR.0 - 3 * 1440;
        let minutes = (begin..YEAR.1 + 2 * 1440).map(|minute| pattern.matches(minute));
        Self {
            begin,
            minutes: minutes.collect(),
        }
    }

    fn at(&self, minute: Minute) -> bool {
        self.minutes[usize::try_from(minute - self.begin).expect("within the year")]
    }
}

/// Every instant of the year, found by looking at every minute of it.
fn naive(repeating: bool, matching: &Matching, changes: &[(Minute, Minute)]) -> Vec<Minute> {
    let mut instants = Vec::new();
    let mut furthest = changes[0].0 + changes[0].1 - 1;
    for (place, &(from, offset)) in changes.iter().enumerate() {
        let to = changes.get(place + 1).map_or(YEAR.1, |change| change.0);
        for minute in from..to {
            let shows = minute + offset;
            let fires = if repeating {
                matching.at(shows)
            } else {
                // What is shown for the first time, and what was skipped on the way to it.
                (furthest + 1..=shows).any(|minute| matching.at(minute))
            };
            furthest = furthest.max(shows);
            if fires && minute >= YEAR.0 {
                instants.push(minute);
            }
        }
    }
    instants
}

/// Every instant of the year, as the grid gives them one after the other.
fn by_grid(grid: &Grid) -> Vec<Minute> {
    let begin = OffsetDateTime::UNIX_EPOCH + Duration::minutes(YEAR.0);
    let mut instants = Vec::new();
    let mut next = grid.next_from(begin);
    while let Some(instant) = next {
        assert_eq!(instant.unix_timestamp() % 60, 0, "a whole minute");
        let minute = instant.unix_timestamp() / 60;
        if minute >= YEAR.1 {
            break;
        }
        instants.push(minute);
        next = grid.next_after(instant);
    }
    instants
}

fn shown(minutes: &[Minute]) -> Vec<String> {
    let at = |minute: &Minute| OffsetDateTime::UNIX_EPOCH + Duration::minutes(*minute);
    minutes
        .iter()
        .map(|minute| at(minute).format(&Rfc3339).expect("a time"))
        .collect()
}

fn compare(pattern: &str, zone_name: &str, expected: &[Minute]) {
    let grid = Grid::new(pattern, zone_name).expect("a grid");
    let found = by_grid(&grid);
    if found != expected {
        let missing: Vec<_> = expected
            .iter()
            .filter(|m| !found.contains(m))
            .copied()
            .collect();
        let surplus: Vec<_> = found
            .iter()
            .filter(|m| !expected.contains(m))
            .copied()
            .collect();
        panic!(
            "{pattern} in {zone_name}: missing {:?}, surplus {:?}",
            shown(&missing),
            shown(&surplus)
        );
    }
}

#[test]
fn every_instant_of_a_year_is_accounted_for_in_every_zone() {
    // The last two, which are dense, once for each way in which clocks change; the others under every name.
    let patterns = [
        "30 2 * * *",
        "0,30 1-3 1,15 * 0-5",
        "0 */6 * * *",
        "*/15 * * * *",
        "*/10 1,2 * * *",
    ];
    let patterns = patterns.map(|text| {
        let pattern = Naive::new(text);
        (text, pattern.repeating, Matching::new(&pattern))
    });
    let mut known: BTreeMap<Vec<(Minute, Minute)>, Vec<Vec<Minute>>> = BTreeMap::new();
    let mut zones = 0;
    for name in db().available() {
        let name = name.as_str();
        let changes = changes(&TimeZone::get(name).expect("a zone"));
        zones += 1;
        let first = !known.contains_key(&changes);
        let expected = known.entry(changes.clone()).or_insert_with(|| {
            let all = patterns.iter();
            all.map(|(_, repeating, matching)| naive(*repeating, matching, &changes))
                .collect()
        });
        let tried = if first { patterns.len() } else { 3 };
        for ((pattern, _, _), expected) in patterns.iter().zip(expected).take(tried) {
            compare(pattern, name, expected);
        }
    }
    assert!(zones > 500, "{zones} zones are not all");
    assert!(known.len() > 40, "{} ways to change clocks", known.len());
}

#[test]
fn berlin_and_lord_howe_hold_minute_by_minute() {
    for zone_name in ["Europe/Berlin", "Australia/Lord_Howe"] {
        let changes = changes(&TimeZone::get(zone_name).expect("a zone"));
        assert_eq!(changes.len(), 3, "two changes a year");
        for text in [
            "* * * * *",
            "*/5 * * * *",
            "0 * * * *",
            "15,45 2 * * *",
            "45 1 * * *",
            "0 2 29 3 *",
            "59 23 31 12 *",
        ] {
            let pattern = Naive::new(text);
            let expected = naive(pattern.repeating, &Matching::new(&pattern), &changes);
            compare(text, zone_name, &expected);
        }
    }
}

/// The instants of a day, as the wall clock there shows them.
fn day(pattern: &str, zone_name: &str, (month, day): (Month, u8)) -> Vec<String> {
    let grid = Grid::new(pattern, zone_name).expect("a grid");
    let date = Date::from_calendar_date(2026, month, day).expect("a date");
    let mut instants = Vec::new();
    let mut from = date.midnight().assume_utc() - Duration::DAY;
    while let Some(next) = grid.next_after(from) {
        let local = grid.local(next);
        let today = date.to_string();
        if local.as_str() > format!("{today}T99").as_str() {
            break;
        }
        if local.starts_with(&today) {
            instants.push(local[11..].to_owned());
        }
        from = next;
    }
    instants
}

#[test]
fn what_happens_when_clocks_change() {
    let spring = (Month::March, 29);
    let autumn = (Month::October, 25);
    for (pattern, zone, on, expected) in [
        // 02:00 to 03:00 is left out.
        (
            "30 2 * * *",
            "Europe/Berlin",
            spring,
            vec!["03:00:00+02:00"],
        ),
        (
            "0,30 2 * * *",
            "Europe/Berlin",
            spring,
            vec!["03:00:00+02:00"],
        ),
        (
            "0 2,3 * * *",
            "Europe/Berlin",
            spring,
            vec!["03:00:00+02:00"],
        ),
        (
            "*/30 1-3 * * *",
            "Europe/Berlin",
            spring,
            vec![
                "01:00:00+01:00",
                "01:30:00+01:00",
                "03:00:00+02:00",
                "03:30:00+02:00",
            ],
        ),
        // 02:00 to 03:00 comes twice.
        (
            "30 2 * * *",
            "Europe/Berlin",
            autumn,
            vec!["02:30:00+02:00"],
        ),
        (
            "0 2,14 * * *",
            "Europe/Berlin",
            autumn,
            vec!["02:00:00+02:00", "14:00:00+01:00"],
        ),
        (
            "*/30 2 * * *",
            "Europe/Berlin",
            autumn,
            vec![
                "02:00:00+02:00",
                "02:30:00+02:00",
                "02:00:00+01:00",
                "02:30:00+01:00",
            ],
        ),
        // Half an hour: 01:30 to 02:00 comes twice in April, 02:00 to 02:30 is left out in October.
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            (Month::April, 5),
            vec!["01:45:00+11:00"],
        ),
        ("45 * * * *", "Australia/Lord_Howe", (Month::April, 5), {
            let mut all = vec!["00:45:00+11:00", "01:45:00+11:00", "01:45:00+10:30"];
            all.extend([
                "02:45:00+10:30",
                "03:45:00+10:30",
                "04:45:00+10:30",
                "05:45:00+10:30",
                "06:45:00+10:30",
                "07:45:00+10:30",
                "08:45:00+10:30",
                "09:45:00+10:30",
                "10:45:00+10:30",
                "11:45:00+10:30",
                "12:45:00+10:30",
                "13:45:00+10:30",
                "14:45:00+10:30",
                "15:45:00+10:30",
                "16:45:00+10:30",
                "17:45:00+10:30",
                "18:45:00+10:30",
                "19:45:00+10:30",
                "20:45:00+10:30",
                "21:45:00+10:30",
                "22:45:00+10:30",
                "23:45:00+10:30",
            ]);
            all
        }),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            (Month::October, 4),
            vec!["02:30:00+11:00"],
        ),
        (
            "30 2 * * *",
            "Australia/Lord_Howe",
            (Month::October, 4),
            vec!["02:30:00+11:00"],
        ),
        // The day begins at one o'clock.
        (
            "0 0 * * *",
            "Africa/Cairo",
            (Month::April, 24),
            vec!["01:00:00+03:00"],
        ),
    ] {
        assert_eq!(day(pattern, zone, on), expected, "{pattern} in {zone}");
    }
}

#[test]
fn what_is_no_pattern_or_no_zone_is_refused_with_a_reason() {
    for (cron, part) in [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("60 * * * *", "five fields"),
        ("x * * * *", "five fields"),
        ("@reboot", "five fields"),
        ("*/0 * * * *", "five fields"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("ä * * * *", "ASCII"),
    ] {
        match Grid::new(cron, "UTC") {
            Err(NoGrid::Cron(why)) => assert!(why.contains(part), "{cron}: {why}"),
            other => panic!("{cron}: {other:?}"),
        }
    }
    for zone in [
        "",
        "Europe",
        "Mars/Olympus",
        "+02:00",
        "Etc/Unknown",
        "local",
    ] {
        assert!(
            matches!(Grid::new("* * * * *", zone), Err(NoGrid::Timezone(_))),
            "{zone}"
        );
    }
    for right in [
        "@hourly",
        "@daily",
        "0 9 * * MON-FRI",
        "0 0 29 2 *",
        "0 0 L * *",
        "0 0 * * 5#1",
    ] {
        assert!(Grid::new(right, "europe/berlin").is_ok(), "{right}");
    }
    assert_eq!(
        Grid::check_timezone("europe/berlin"),
        Ok("Europe/Berlin".to_owned())
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_the_grid_only_goes_forward(
        text in "[-0-9*/,LW#?@+A-Z ]{0,24}",
        seconds in 0_i64..4_102_444_800,
    ) {
        if let Ok(grid) = Grid::new(&text, "Australia/Lord_Howe") {
            let from = OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
            if let Some(next) = grid.next_after(from) {
                prop_assert!(next > from);
                prop_assert_eq!(grid.next_from(next), Some(next));
                // Wherever between the two it is asked from, the answer is the same.
                let middle = from + (next - from) / 2;
                prop_assert_eq!(grid.next_after(middle), Some(next));
            }
        }
    }

    #[test]
    fn patterns_of_the_usual_kinds_give_the_same_from_anywhere(
        minute in prop::sample::select(vec!["*", "*/7", "0", "30", "5,35", "10-20"]),
        hour in prop::sample::select(vec!["*", "*/3", "2", "1-3", "0,23"]),
        weekday in prop::sample::select(vec!["*", "0", "1-5"]),
        seconds in 1_767_225_600_i64..1_798_761_600,
    ) {
        let grid = Grid::new(&format!("{minute} {hour} * * {weekday}"), "Europe/Berlin").expect("a grid");
        let from = OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
        let next = grid.next_after(from).expect("there is always one");
        prop_assert!(next > from);
        prop_assert_eq!(grid.next_after(from + (next - from) / 2), Some(next));
        prop_assert_eq!(grid.next_from(next), Some(next));
    }
}
