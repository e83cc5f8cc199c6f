//! The table of what passed and failed.

use std::time::Duration;

use super::{Outcome, cases::Case};
use crate::step::seconds;

/// Prints a row for each group and pair of clients, then what failed; returns how many did.
pub(super) fn print(cases: &[Case], results: &[Outcome]) -> usize {
    struct Row<'a> {
        group: &'a str,
        who: &'a str,
        passed: usize,
        failed: usize,
        longest: Duration,
    }
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (case, (result, took)) in cases.iter().zip(results) {
        let same = |row: &Row<'_>| row.group == case.group && row.who == case.who;
        let index = rows.iter().position(same).unwrap_or_else(|| {
            rows.push(Row {
                group: case.group,
                who: &case.who,
                passed: 0,
                failed: 0,
                longest: Duration::ZERO,
            });
            rows.len() - 1
        });
        let row = &mut rows[index];
        match result {
            Ok(()) => row.passed += 1,
            Err(_) => row.failed += 1,
        }
        row.longest = row.longest.max(*took);
    }
    println!(
        "\n{:<12} {:<26} {:>6} {:>6}  longest",
        "case", "from -> to", "passed", "failed"
    );
    for row in &rows {
        let (group, who, longest) = (row.group, row.who, seconds(row.longest));
        println!(
            "{group:<12} {who:<26} {:>6} {:>6}  {longest}",
            row.passed, row.failed
        );
    }
    println!();
    let failures = cases
        .iter()
        .zip(results)
        .filter(|(_, (result, _))| result.is_err());
    let mut count = 0;
    for (case, _) in failures {
        println!("FAILED {}", case.name());
        count += 1;
    }
    count
}
