//! The figures of all runs, their medians, and how they stand to the targets.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    super::{
        generator::{Figures, median},
        peer::Peer,
    },
    load::{LOADS, Load, Metric, THROUGHPUT, Target},
};
use crate::step::Verdict;

/// Figures that are shown beside what is compared.
const SHOWN: [(&str, &str, f64); 5] = [
    ("messages_per_s", "k messages/s", 1e-3),
    ("latency_p50_us", "us p50", 1.0),
    ("latency_p99_us", "us p99", 1.0),
    ("broker_rss_kib", "MiB RSS", 1.0 / 1024.0),
    ("generator_cpu_percent", "% generator", 1.0),
];

/// One run.
struct Run {
    load: &'static str,
    peer: Peer,
    figures: Figures,
}

/// All runs, in the order in which they were made.
#[derive(Default)]
pub(super) struct Results {
    runs: Vec<Run>,
    /// Loads that came to no figures or to faults on this broker.
    failed: Vec<&'static str>,
}

impl Results {
    pub(super) fn add(&mut self, load: &Load, peer: Peer, figures: Figures) {
        if figures.faults().is_some() {
            self.fail(load, peer);
        }
        self.runs.push(Run {
            load: load.name,
            peer,
            figures,
        });
    }

    /// Notes a run without figures, or with faults.
    pub(super) fn fail(&mut self, load: &Load, peer: Peer) {
        if matches!(peer, Peer::Ours | Peer::InMemory) && !self.failed.contains(&load.name) {
            self.failed.push(load.name);
        }
    }

    /// The values of a figure, a run each.
    fn values(&self, load: &Load, peer: Peer, figure: &str) -> Vec<f64> {
        self.runs
            .iter()
            .filter(|run| run.load == load.name && run.peer == peer)
            .filter_map(|run| run.figures.number(figure))
            .collect()
    }

    fn median(&self, load: &Load, peer: Peer, figure: &str) -> Option<f64> {
        median(self.values(load, peer, figure))
    }

    /// Prints what the last run of each server gave.
    pub(super) fn print_round(&self, load: &Load) {
        for (metric, _) in load.metrics {
            print!("  {:<26}", load.name);
            for &peer in load.peers {
                if let Some(value) = self.values(load, peer, metric.figure).last() {
                    print!("  {} {}", peer.name(), shown(*value));
                }
            }
            println!("  {}", metric.unit);
        }
    }

    /// Prints medians, ratios and targets; returns what they come to.
    pub(super) fn judge(&self) -> Verdict {
        let mut missed = Vec::new();
        for load in LOADS {
            let Some(&ours) = load.peers.first() else {
                continue;
            };
            if !self.runs.iter().any(|run| run.load == load.name) {
                continue;
            }
            println!("{}", load.name);
            for &peer in load.peers {
                self.print_peer(load, peer);
            }
            for &(metric, target) in load.metrics {
                match self.compare(load, ours, metric, target) {
                    Some((line, met)) => {
                        println!("  {line}: {}", if met { "met" } else { "MISSED" });
                        if !met {
                            missed.push(format!("{} ({})", load.name, metric.unit));
                        }
                    }
                    None => println!("  target {}: not compared", target.shown()),
                }
            }
            if load.flood
                && let Some(ours) = self.median(load, ours, "messages_per_s")
                && let Some(mosquitto) = self.median(load, Peer::Mosquitto, "messages_per_s")
            {
                let met = ours >= THROUGHPUT * mosquitto;
                let times = ours / mosquitto;
                println!(
                    "  {times:.1} times the messages of Mosquitto, {THROUGHPUT} at least: {}",
                    if met { "met" } else { "MISSED" }
                );
                if !met {
                    missed.push(format!("{} (messages a second)", load.name));
                }
            }
        }
        println!();
        if !self.failed.is_empty() {
            println!("faults of this broker: {}", self.failed.join(", "));
        }
        if missed.is_empty() {
            println!("all targets that could be compared are met");
        } else {
            println!("missed: {}", missed.join(", "));
        }
        if missed.is_empty() && self.failed.is_empty() {
            Verdict::Passed
        } else {
            Verdict::Failed
        }
    }

    fn print_peer(&self, load: &Load, peer: Peer) {
        let mut line = format!("  {:<16}", peer.name());
        let mut measured = false;
        for (metric, _) in load.metrics {
            if let Some(value) = self.median(load, peer, metric.figure) {
                measured = true;
                line += &format!(" {:>8} {}", shown(value), metric.unit);
                if let Some(mosquitto) = self.median(load, Peer::Mosquitto, metric.figure)
                    && peer != Peer::Mosquitto
                {
                    line += &format!(" ({:.3} x Mosquitto)", value / mosquitto);
                }
            }
        }
        for (figure, unit, scale) in SHOWN {
            if let Some(value) = self.median(load, peer, figure)
                && !load
                    .metrics
                    .iter()
                    .any(|(metric, _)| metric.figure == figure)
            {
                line += &format!("  {} {unit}", shown(value * scale));
            }
        }
        if measured {
            println!("{line}");
        }
    }

    /// How this broker stands to a target, in words, and whether it meets it.
    fn compare(
        &self,
        load: &Load,
        ours: Peer,
        metric: Metric,
        target: Target,
    ) -> Option<(String, bool)> {
        let value = self.median(load, ours, metric.figure)?;
        let mosquitto = self.median(load, Peer::Mosquitto, metric.figure);
        let relay = self.median(load, Peer::Relay, metric.figure);
        let limit = target.limit(mosquitto, relay)?;
        let line = format!(
            "{} {}, target {} = {} at most",
            shown(value),
            metric.unit,
            target.shown(),
            shown(limit)
        );
        Some((line, value <= limit))
    }

    /// Every run with all its figures.
    pub(super) fn json(&self) -> Result<String> {
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| json!({"name": run.load, "peer": run.peer.name(), "figures": run.figures.0}))
            .collect();
        let kernel = std::fs::read_to_string("/proc/version").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let whole = json!({"kernel": kernel.trim(), "processors": processors, "runs": runs});
        Ok(serde_json::to_string_pretty(&whole)?)
    }
}

/// A number with three digits that count.
fn shown(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(ours: &[f64], mosquitto: &[f64]) -> Results {
        let mut results = Results::default();
        let load = &LOADS[0];
        let (metric, _) = load.metrics[0];
        for (peer, values) in [(Peer::Ours, ours), (Peer::Mosquitto, mosquitto)] {
            for value in values {
                let mut figures = Figures::default();
                figures.set(metric.figure, *value);
                results.add(load, peer, figures);
            }
        }
        results
    }

    /// The first load allows 0.036 of Mosquitto.
    #[test]
    fn medians_are_compared_with_the_target() {
        let quick = results(&[0.03, 9.0, 0.02], &[1.0, 1.0, 0.1]);
        assert_eq!(quick.judge(), Verdict::Passed);
        let slow = results(&[0.04, 0.04, 0.001], &[1.0, 1.0, 9.0]);
        assert_eq!(slow.judge(), Verdict::Failed);
    }

    #[test]
    fn a_fault_of_this_broker_fails() {
        let mut results = results(&[0.01], &[1.0]);
        results.fail(&LOADS[0], Peer::Mosquitto);
        assert_eq!(results.judge(), Verdict::Passed);
        results.fail(&LOADS[0], Peer::Ours);
        assert_eq!(results.judge(), Verdict::Failed);
    }

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.03612, 1.234, 12.34, 1234.5];
        assert_eq!(numbers.map(shown), ["0.036", "1.23", "12.3", "1234"]);
    }
}
