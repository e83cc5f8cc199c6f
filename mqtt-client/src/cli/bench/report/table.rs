//! The figures as tables for a terminal: names and values in columns, and the percentiles of each latency in a row.

use std::fmt::Write as _;

use super::{Figure, Figures};
use crate::cli::colours::{Colour, Colours};

/// Ends of the names that stand in a row together, and what stands above them. The first begins the row.
const COLUMNS: [(&str, &str); 7] = [
    ("_p50_us", "p50"),
    ("_p90_us", "p90"),
    ("_p99_us", "p99"),
    ("_p999_us", "p99.9"),
    ("_p9999_us", "p99.99"),
    ("_max_us", "max"),
    ("_samples", "samples"),
];
/// Above the names of the rows of percentiles.
const UNIT: &str = "in microseconds";

impl Figures {
    /// The same figures as [`format`](Self::format) gives, for people.
    pub(in crate::cli::bench) fn table(&self, colours: Colours) -> String {
        let mut rows: Vec<[String; 8]> = Vec::new();
        let mut single: Vec<(&str, String)> = Vec::new();
        for (name, figure) in &self.figures {
            match self.place(name) {
                Some((series, column)) => {
                    if rows.last().is_none_or(|row| row[0] != series) {
                        rows.push(std::array::from_fn(|_| String::new()));
                    }
                    if let Some(row) = rows.last_mut() {
                        series.clone_into(&mut row[0]);
                        row[column + 1] = figure.grouped();
                    }
                }
                None => single.push((name, figure.grouped())),
            }
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let names = single.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let values = single.iter().map(|(_, value)| value.chars().count());
        let values = values.max().unwrap_or(0);
        for (name, value) in &single {
            let colour = match self.is_fault(name) {
                true => Colour::BoldRed,
                false => Colour::Bold,
            };
            let name = colours.paint(Colour::Faint, &format!("{name:names$}"));
            let value = colours.paint(colour, &format!("{value:>values$}"));
            let _ = writeln!(text, "{name}  {value}");
        }
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&percentiles(&rows, colours));
        }
        for failure in &self.failures {
            let word = colours.paint(Colour::Red, "failure");
            let _ = writeln!(text, "\n{word}  {failure}");
        }
        let result = match self.is_good() {
            true => colours.paint(Colour::BoldGreen, "good"),
            false => colours.paint(Colour::BoldRed, &format!("faults: {}", self.faults())),
        };
        let _ = writeln!(text, "\nresult  {result}");
        text
    }

    /// The row and the column of a percentile.
    fn place<'n>(&self, name: &'n str) -> Option<(&'n str, usize)> {
        let mut columns = COLUMNS.iter().enumerate();
        let (column, series) =
            columns.find_map(|(column, (end, _))| Some((column, name.strip_suffix(end)?)))?;
        let first = |known: &str| {
            let known = known.strip_suffix(COLUMNS[0].0);
            known.is_some_and(|known| known == series)
        };
        let is_row = self.figures.iter().any(|(known, _)| first(known));
        is_row.then_some((series, column))
    }

    fn is_fault(&self, name: &str) -> bool {
        let mut faults = self.faults.iter().filter_map(|fault| fault.split_once('='));
        faults.any(|(fault, _)| fault == name)
    }
}

fn percentiles(rows: &[[String; 8]], colours: Colours) -> String {
    let mut head: [String; 8] = std::array::from_fn(|_| UNIT.to_owned());
    for (cell, (_, title)) in head.iter_mut().skip(1).zip(COLUMNS) {
        title.clone_into(cell);
    }
    let lines = || std::iter::once(&head).chain(rows);
    let widths: [usize; 8] =
        std::array::from_fn(|column| lines().map(|line| line[column].len()).max().unwrap_or(0));
    let mut text = String::new();
    for (number, line) in lines().enumerate() {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let colour = if number == 0 || column == 0 {
                Colour::Faint
            } else {
                Colour::Bold
            };
            let padded = match column {
                0 => format!("{cell:width$}"),
                _ => format!("  {cell:>width$}"),
            };
            text.push_str(&colours.paint(colour, &padded));
        }
        text.push('\n');
    }
    text
}

impl Figure {
    /// As it is shown, the digits of long numbers in groups.
    fn grouped(&self) -> String {
        let shown = self.shown();
        if matches!(self, Self::Text(_) | Self::Flag(_)) {
            return shown;
        }
        let (whole, rest) = match shown.find('.') {
            Some(point) => shown.split_at(point),
            None => (shown.as_str(), ""),
        };
        let mut text = String::new();
        for (index, digit) in whole.char_indices() {
            let left = whole.len() - index;
            if left.is_multiple_of(3) && text.ends_with(|last: char| last.is_ascii_digit()) {
                text.push(',');
            }
            text.push(digit);
        }
        text + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::report::{histogram, percentiles};

    fn figures() -> Figures {
        let mut figures = Figures::default();
        figures.text("load", "p2p");
        figures.count("sent", 1_234_567);
        figures.number("cost", 0.25);
        figures.number("growth", -1234.5);
        figures.account("lost", 3, true);
        let mut latencies = histogram();
        latencies.saturating_record(2_000_000);
        percentiles(&mut figures, "latency", &latencies);
        figures.flag("open_loop", true);
        figures
    }

    #[test]
    fn values_and_percentiles_are_aligned() {
        let plain = "\
load             p2p
sent       1,234,567
cost          0.2500
growth        -1,234
lost               3
open_loop       true

in microseconds    p50    p90    p99  p99.9  p99.99    max  samples
latency          2,001  2,001  2,001  2,001   2,001  2,001        1

result  faults: lost=3
";
        assert_eq!(figures().table(Colours::new(false)), plain);
    }

    /// The same text, with the fault in red.
    #[test]
    fn colours_change_no_column() {
        let coloured = figures().table(Colours::new(true));
        assert!(coloured.contains("\x1b[1;31mfaults: lost=3\x1b[0m"));
        assert!(
            coloured.contains("\x1b[1;31m        3\x1b[0m"),
            "{coloured}"
        );
        let mut plain = String::new();
        for (index, part) in coloured.split('\x1b').enumerate() {
            let text = match index {
                0 => part,
                _ => part.split_once('m').unwrap().1,
            };
            plain.push_str(text);
        }
        assert_eq!(plain, figures().table(Colours::new(false)));
    }

    #[test]
    fn a_name_like_that_of_a_percentile_stands_alone() {
        let mut figures = Figures::default();
        figures.count("wait_max_us", 5);
        let text = figures.table(Colours::new(false));
        assert_eq!(text, "wait_max_us  5\n\nresult  good\n");
    }
}
