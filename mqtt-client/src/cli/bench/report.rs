//! What a run found: named figures, and the faults among them, as text, JSON or CSV.

mod table;

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::meter::Reading;
use super::{Bench, Output};
use crate::cli::json::Value;

/// The longest latency that is told apart, in nanoseconds: ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// An empty histogram of nanoseconds, exact to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LONGEST, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds: {error}"),
    }
}

/// A value of a figure.
#[derive(Debug, Clone, PartialEq)]
enum Figure {
    Text(String),
    Count(u64),
    Number(f64),
    Flag(bool),
}

/// The figures of a run, in the order in which they are printed.
#[derive(Debug, Default)]
pub(super) struct Figures {
    figures: Vec<(String, Figure)>,
    faults: Vec<String>,
    failures: Vec<String>,
}

impl Figures {
    pub(super) fn new(bench: &Bench) -> Self {
        let mut figures = Self::default();
        figures.text("load", bench.load);
        figures.text("transport", bench.transport.name());
        if let Some(label) = &bench.label {
            figures.text("label", label);
        }
        figures.text("protocol", &bench.identity.version.to_string());
        figures.count("qos", bench.qos as u64);
        figures.count("payload", bench.payload as u64);
        figures
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        let figure = Figure::Text(text.to_owned());
        self.figures.push((name.to_owned(), figure));
    }

    pub(super) fn count(&mut self, name: &str, count: u64) {
        self.figures.push((name.to_owned(), Figure::Count(count)));
    }

    /// A number that is not finite, such as one per message of no message, is left out.
    pub(super) fn number(&mut self, name: &str, number: f64) {
        if number.is_finite() {
            self.figures.push((name.to_owned(), Figure::Number(number)));
        }
    }

    pub(super) fn flag(&mut self, name: &str, flag: bool) {
        self.figures.push((name.to_owned(), Figure::Flag(flag)));
    }

    /// A count that should be zero; it is a fault of the run if it is not and `fault` says so.
    pub(super) fn account(&mut self, name: &str, count: u64, fault: bool) {
        self.count(name, count);
        if fault && count > 0 {
            self.faults.push(format!("{name}={count}"));
        }
    }

    /// Notes that a signal has ended the run before its time, if one has.
    pub(super) fn interrupted(&mut self, bench: &Bench) {
        if bench.stop.status().is_some() {
            self.flag("interrupted", true);
        }
    }

    pub(super) fn failures(&mut self, failures: &[String]) {
        self.failures.extend_from_slice(failures);
    }

    /// Processor time and memory of the broker and of this process, per `unit`.
    pub(super) fn usage(&mut self, reading: &Reading, unit: &str, units: u64) {
        let per_unit = |nanoseconds: u64| nanoseconds as f64 / 1e3 / units as f64;
        let percent = |nanoseconds: u64| nanoseconds as f64 / 1e7 / reading.seconds;
        let (broker, own) = (&reading.broker, &reading.own);
        self.number("measured_s", reading.seconds);
        if broker.rss > 0 {
            self.number(&format!("broker_cpu_us_per_{unit}"), per_unit(broker.cpu));
            self.number("broker_cpu_percent", percent(broker.cpu));
            self.number("broker_cpu_wait_percent", percent(broker.waited));
            self.count("broker_context_switches", broker.switches);
            self.count("broker_rss_kib", broker.rss / 1024);
            self.number("broker_rss_growth_kib", broker.rss_growth as f64 / 1024.0);
        }
        self.number(&format!("generator_cpu_us_per_{unit}"), per_unit(own.cpu));
        self.number("generator_cpu_percent", percent(own.cpu));
        self.number("generator_cpu_wait_percent", percent(own.waited));
    }

    /// Whether the run found no fault.
    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn faults(&self) -> String {
        self.faults.join(", ")
    }

    /// The value of a count, for tests.
    #[cfg(test)]
    pub(super) fn count_of(&self, name: &str) -> Option<u64> {
        self.figures
            .iter()
            .find_map(|(known, figure)| match figure {
                Figure::Count(count) if known == name => Some(*count),
                _ => None,
            })
    }

    /// The figures in a form, with an end of line.
    pub(super) fn format(&self, output: Output) -> String {
        match output {
            Output::Text => self.lines(),
            Output::Json => self.json(),
            Output::Csv => self.csv(),
        }
    }

    fn lines(&self) -> String {
        let width = self.figures.iter().map(|(name, _)| name.len()).max();
        let width = width.unwrap_or(0);
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:width$}  {value}");
        };
        for (name, figure) in &self.figures {
            line(name, &figure.shown());
        }
        for failure in &self.failures {
            line("failure", failure);
        }
        line(
            "result",
            &match self.is_good() {
                true => "good".to_owned(),
                false => format!("faults: {}", self.faults()),
            },
        );
        text
    }

    fn json(&self) -> String {
        let list = |texts: &[String]| Value::Array(texts.iter().map(Value::string).collect());
        let mut members: Vec<(Vec<u8>, Value)> = self
            .figures
            .iter()
            .map(|(name, figure)| (name.clone().into_bytes(), figure.value()))
            .collect();
        members.push((b"good".to_vec(), Value::Bool(self.is_good())));
        members.push((b"faults".to_vec(), list(&self.faults)));
        members.push((b"failures".to_vec(), list(&self.failures)));
        let mut line = Vec::new();
        Value::Object(members).write(false, &mut line);
        line.push(b'\n');
        String::from_utf8_lossy(&line).into_owned()
    }

    /// A line of names and a line of values.
    fn csv(&self) -> String {
        let mut names: Vec<&str> = self.figures.iter().map(|(name, _)| &**name).collect();
        names.extend(["good", "faults"]);
        let mut values: Vec<String> = self
            .figures
            .iter()
            .map(|(_, figure)| quoted(&figure.shown()))
            .collect();
        values.extend([self.is_good().to_string(), quoted(&self.faults())]);
        format!("{}\n{}\n", names.join(","), values.join(","))
    }
}

impl Figure {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Number(number) if number.abs() >= 100.0 => format!("{number:.0}"),
            Self::Number(number) if number.abs() >= 1.0 => format!("{number:.2}"),
            Self::Number(number) => format!("{number:.4}"),
            Self::Flag(flag) => flag.to_string(),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Text(text) => Value::string(text),
            Self::Count(count) => Value::Number(*count as f64),
            // More digits than were measured would only be noise.
            Self::Number(number) => Value::Number((number * 1e6).round() / 1e6),
            Self::Flag(flag) => Value::Bool(*flag),
        }
    }
}

/// A field of CSV, quoted where it must be.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Adds the percentiles of a histogram of nanoseconds, in microseconds.
pub(super) fn percentiles(figures: &mut Figures, name: &str, histogram: &Histogram<u64>) {
    if histogram.is_empty() {
        return;
    }
    for (suffix, quantile) in [
        ("p50", 0.5),
        ("p90", 0.9),
        ("p99", 0.99),
        ("p999", 0.999),
        ("p9999", 0.9999),
        ("max", 1.0),
    ] {
        let value = histogram.value_at_quantile(quantile) as f64 / 1e3;
        figures.number(&format!("{name}_{suffix}_us"), value);
    }
    figures.count(&format!("{name}_samples"), histogram.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        figures.text("load", "a \"b\", c");
        figures.count("sent", 12);
        figures.number("cost", 0.123_456_789);
        figures.number("nothing", f64::NAN);
        figures.account("lost", 3, true);
        figures.account("late", 1, false);
        figures
    }

    #[test]
    fn each_form_has_every_figure() {
        let figures = figures();
        assert!(!figures.is_good());
        assert_eq!(
            figures.format(Output::Csv),
            "load,sent,cost,lost,late,good,faults\n\
             \"a \"\"b\"\", c\",12,0.1235,3,1,false,lost=3\n"
        );
        assert_eq!(
            figures.format(Output::Json),
            "{\"load\":\"a \\\"b\\\", c\",\"sent\":12,\"cost\":0.123457,\"lost\":3,\"late\":1,\
             \"good\":false,\"faults\":[\"lost=3\"],\"failures\":[]}\n"
        );
        assert_eq!(
            figures.format(Output::Text),
            "load  a \"b\", c\nsent  12\ncost  0.1235\nlost  3\nlate  1\n\
             result  faults: lost=3\n"
        );
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = histogram();
        for value in 1..=1000_u64 {
            histogram.saturating_record(value * 1000);
        }
        let mut figures = Figures::default();
        percentiles(&mut figures, "latency", &histogram);
        let text = figures.format(Output::Csv);
        assert!(text.contains("latency_p50_us"), "{text}");
        let values: Vec<&str> = text.lines().nth(1).unwrap_or_default().split(',').collect();
        let median: f64 = values.first().unwrap().parse().unwrap();
        assert!((499.0..=501.0).contains(&median), "{median}");
    }
}
