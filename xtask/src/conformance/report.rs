//! What the tests come to: one line a statement, totals, and what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    claim::{Claim, Test},
    statement::{Binds, Id, Standard, Statements},
    suite::{Outcome, Outcomes},
};

/// Statements that bind a server and may be called unobservable, in percent.
const UNOBSERVABLE_PERCENT: usize = 5;

/// Where a statement stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Covered,
    Unobservable,
    Missing,
}

/// The table of all statements.
#[derive(Debug)]
pub(super) struct Report<'a> {
    statements: &'a Statements,
    tests: BTreeMap<Id, BTreeSet<&'a Test>>,
    /// What must be put right.
    pub(super) faults: Vec<String>,
}

impl<'a> Report<'a> {
    /// Compares; without `outcomes` the tests were not run.
    pub(super) fn new(
        statements: &'a Statements,
        claims: &'a [Claim],
        outcomes: Option<&Outcomes>,
    ) -> Self {
        let mut report = Self {
            statements,
            tests: BTreeMap::new(),
            faults: Vec::new(),
        };
        for claim in claims {
            let unknown = statements.unknown(&claim.ids.iter().copied().collect());
            for id in &unknown {
                let fault = format!("{}: there is no statement {id}", claim.test);
                report.faults.push(fault);
            }
            if let Err(why) = runs(claim, outcomes) {
                report.faults.push(format!("{}: {why}", claim.test));
                continue;
            }
            for id in claim.ids.iter().filter(|id| !unknown.contains(id)) {
                report.tests.entry(*id).or_default().insert(&claim.test);
            }
        }
        report.check();
        report
    }

    fn check(&mut self) {
        let mut faults = Vec::new();
        let mut server = 0;
        let mut unobservable = 0;
        let mut missing = 0;
        for (id, statement) in &self.statements.all {
            let state = self.state(*id);
            if statement.binds.server() {
                server += 1;
                unobservable += usize::from(state == State::Unobservable);
                missing += usize::from(state == State::Missing);
            }
            if state == State::Covered && self.statements.unobservable.contains_key(id) {
                faults.push(format!("{id}: called unobservable, but a test names it"));
            }
        }
        if missing > 0 {
            faults.push(format!(
                "{missing} statements for servers have neither a test nor a reason"
            ));
        }
        if unobservable * 100 > server * UNOBSERVABLE_PERCENT {
            faults.push(format!(
                "{unobservable} of {server} statements for servers are called unobservable; \
                 {UNOBSERVABLE_PERCENT}% may be"
            ));
        }
        self.faults.extend(faults);
    }

    fn state(&self, id: Id) -> State {
        if self.tests.contains_key(&id) {
            State::Covered
        } else if self.statements.unobservable.contains_key(&id) {
            State::Unobservable
        } else {
            State::Missing
        }
    }

    /// A line for each statement; or for those only that have neither a test nor a reason.
    pub(super) fn lines(&self, only_missing: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, statement) in &self.statements.all {
            let state = self.state(*id);
            if only_missing && state != State::Missing {
                continue;
            }
            let what = match state {
                State::Covered => {
                    let tests = self.tests[id].iter().map(|test| test.to_string());
                    tests.collect::<Vec<_>>().join(", ")
                }
                State::Unobservable => {
                    format!("not observable: {}", self.statements.unobservable[id])
                }
                State::Missing if statement.binds == Binds::Client => {
                    format!("no test (client): {}", statement.text)
                }
                State::Missing => format!("MISSING: {}", statement.text),
            };
            let binds = statement.binds.name();
            lines.push(format!("{id:<16} {binds:<6} {what}"));
        }
        lines
    }

    /// A line for each standard.
    pub(super) fn totals(&self) -> Vec<String> {
        let totals = Standard::ALL.map(|standard| {
            let of = |server: bool| Total {
                states: self
                    .statements
                    .all
                    .iter()
                    .filter(|(id, statement)| {
                        id.standard() == standard && statement.binds.server() == server
                    })
                    .map(|(id, _)| self.state(*id))
                    .collect(),
            };
            let name = standard.name();
            let (server, client) = (of(true), of(false));
            format!("{name:<10}  server: {server}; client only: {client}")
        });
        totals.to_vec()
    }
}

/// Whether the test of a claim exists, is not ignored and passed.
fn runs(claim: &Claim, outcomes: Option<&Outcomes>) -> Result<(), &'static str> {
    if claim.ignored {
        return Err("is ignored");
    }
    let Some(outcomes) = outcomes else {
        return Ok(());
    };
    match outcomes.get(&claim.test) {
        Some(Outcome::Passed) => Ok(()),
        Some(Outcome::Failed) => Err("failed"),
        Some(Outcome::Ignored) => Err("is ignored"),
        None => Err("did not run, or did not end"),
    }
}

struct Total {
    states: Vec<State>,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |state| self.states.iter().filter(|one| **one == state).count();
        write!(
            f,
            "{} of {} covered, {} not observable, {} missing",
            count(State::Covered),
            self.states.len(),
            count(State::Unobservable),
            count(State::Missing)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::statement::Statement;

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    /// Statements 1 to `count` of 5.0 that bind a server, and one that binds a client.
    fn statements(count: usize) -> Statements {
        let mut statements = Statements::default();
        let mut add = |text: &str, binds| {
            let text_of = "text".to_owned();
            let statement = Statement {
                binds,
                text: text_of,
            };
            statements.all.insert(id(text), statement);
        };
        for number in 1..=count {
            add(&format!("MQTT-3.1.2-{number}"), Binds::Server);
        }
        add("MQTT3-9.9.9-1", Binds::Client);
        statements
    }

    fn claim(name: &str, ids: &[&str]) -> Claim {
        Claim {
            test: Test {
                folder: "mqtt-broker",
                binary: Some("broker".to_owned()),
                path: name.to_owned(),
            },
            ids: ids.iter().map(|text| id(text)).collect(),
            ignored: false,
        }
    }

    #[test]
    fn statements_are_covered_missing_or_not_observable() {
        let mut statements = statements(40);
        statements
            .unobservable
            .insert(id("MQTT-3.1.2-39"), "no socket".to_owned());
        let names: Vec<String> = (1..=38).map(|n| format!("MQTT-3.1.2-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let claims = [claim("a", &names), claim("b", &names[..1])];
        let report = Report::new(&statements, &claims, None);
        assert_eq!(
            report.faults,
            ["1 statements for servers have neither a test nor a reason"]
        );
        assert_eq!(
            report.totals(),
            [
                "MQTT 5.0    server: 38 of 40 covered, 1 not observable, 1 missing; \
                 client only: 0 of 0 covered, 0 not observable, 0 missing",
                "MQTT 3.1.1  server: 0 of 0 covered, 0 not observable, 0 missing; \
                 client only: 0 of 1 covered, 0 not observable, 1 missing",
            ]
        );
        let lines = report.lines(false);
        assert_eq!(lines.len(), 41);
        assert_eq!(lines[0], "MQTT-3.1.2-1     server broker::a, broker::b");
        assert_eq!(
            report.lines(true),
            [
                "MQTT-3.1.2-40    server MISSING: text",
                "MQTT3-9.9.9-1    client no test (client): text",
            ]
        );
    }

    #[test]
    fn a_test_counts_only_if_it_passed() {
        let statements = statements(1);
        let claims = [claim("a", &["MQTT-3.1.2-1"])];
        let missing = "1 statements for servers have neither a test nor a reason";
        for (outcome, faults) in [
            (Some(Outcome::Passed), &[][..]),
            (Some(Outcome::Failed), &["broker::a: failed", missing]),
            (Some(Outcome::Ignored), &["broker::a: is ignored", missing]),
            (None, &["broker::a: did not run, or did not end", missing]),
        ] {
            let outcomes = outcome.map(|outcome| (claims[0].test.clone(), outcome));
            let outcomes = outcomes.into_iter().collect();
            assert_eq!(
                Report::new(&statements, &claims, Some(&outcomes)).faults,
                faults
            );
        }
        let mut ignored = claims.clone();
        ignored[0].ignored = true;
        assert_eq!(Report::new(&statements, &ignored, None).faults.len(), 2);
    }

    #[test]
    fn unknown_and_contradictory_statements_are_faults() {
        let mut statements = statements(20);
        let names: Vec<String> = (1..=20).map(|n| format!("MQTT-3.1.2-{n}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.push("MQTT3-3.1.2-1");
        statements
            .unobservable
            .insert(id("MQTT-3.1.2-7"), "reason".to_owned());
        let claims = [claim("a", &names)];
        assert_eq!(
            Report::new(&statements, &claims, None).faults,
            [
                "broker::a: there is no statement MQTT3-3.1.2-1",
                "MQTT-3.1.2-7: called unobservable, but a test names it",
            ]
        );
    }

    #[test]
    fn only_a_few_may_be_unobservable() {
        let mut statements = statements(39);
        for number in [1, 2] {
            statements
                .unobservable
                .insert(id(&format!("MQTT-3.1.2-{number}")), "reason".to_owned());
        }
        let names: Vec<String> = (3..=39).map(|n| format!("MQTT-3.1.2-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let claims = [claim("a", &names)];
        assert_eq!(
            Report::new(&statements, &claims, None).faults,
            ["2 of 39 statements for servers are called unobservable; 5% may be"]
        );
    }
}
