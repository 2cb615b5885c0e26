//! Rows in columns for people. Scripts read JSON instead; nothing here is promised to them.

use crate::screen::{Ink, Screen, harmless};

/// Writes rows under a heading, each column as wide as its widest cell; words that are a status are coloured.
pub(crate) fn table(screen: &Screen, heading: &[&str], rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| harmless(cell)).collect())
        .collect();
    let widths = widths(heading, &rows);
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    screen.line(&screen.paint(Ink::Faint, &line(&heading, &widths, |cell| cell.to_owned())));
    for row in &rows {
        screen.line(&line(row, &widths, |cell| match Ink::of(cell) {
            Ink::Strong => cell.to_owned(),
            ink => screen.paint(ink, cell),
        }));
    }
}

fn widths(heading: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let cell_width = |cell: &String| cell.chars().count();
    heading
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(cell_width)
                .max()
                .unwrap_or(0);
            cells.max(title.chars().count())
        })
        .collect()
}

/// The cells of one line; the last is not padded, so that lines end where their text does.
fn line(cells: &[String], widths: &[usize], paint: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for (column, cell) in cells.iter().enumerate() {
        text.push_str(&paint(cell));
        if column + 1 < cells.len() {
            let width = widths.get(column).copied().unwrap_or(0);
            text.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.chars().count()) + 2,
            ));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let rows = [row("1", "jobs"), row("1000", "ä")];
        let widths = widths(&["no", "name"], &rows);
        assert_eq!(widths, [4, 4]);
        assert_eq!(line(&rows[0], &widths, str::to_owned), "1     jobs");
        assert_eq!(line(&rows[1], &widths, str::to_owned), "1000  ä");
    }
}
