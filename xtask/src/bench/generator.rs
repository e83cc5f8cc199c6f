//! The load generator, `mqtt-client bench`, and what it prints.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::{crash, step::execute, workspace::cargo};

/// The programs of the workspace that a benchmark runs.
pub(super) struct Programs {
    pub(super) broker: PathBuf,
    pub(super) client: PathBuf,
}

impl Programs {
    /// Builds both.
    pub(super) fn build(profile: &str) -> Result<Self> {
        execute(
            cargo()
                .args([
                    "build",
                    "--locked",
                    "--bin",
                    "mqtt-broker",
                    "--bin",
                    "mqtt-client",
                ])
                .args(["--profile", profile]),
        )?;
        let folder = match profile {
            "dev" | "test" => "debug",
            "bench" => "release",
            other => other,
        };
        let folder = crash::target()?.join(folder);
        Ok(Self {
            broker: folder.join("mqtt-broker"),
            client: folder.join("mqtt-client"),
        })
    }

    /// Runs a load on a broker. Faults that the generator found are among the figures.
    pub(super) fn load(
        &self,
        arguments: &[String],
        broker: SocketAddr,
        process: Option<u32>,
    ) -> Result<Figures> {
        let mut command = Command::new(&self.client);
        command.arg("bench").args(arguments);
        command.args(["--json", "--quiet", "--host", &broker.ip().to_string()]);
        command.args(["--port", &broker.port().to_string()]);
        if let Some(process) = process {
            command.args(["--broker-pid", &process.to_string()]);
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .context("cannot start mqtt-client")?;
        let said = String::from_utf8_lossy(&output.stderr);
        match Figures::parse(&output.stdout) {
            Some(figures) => Ok(figures),
            None => bail!("mqtt-client bench {}: {}", arguments.join(" "), said.trim()),
        }
    }
}

/// The figures of one run.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(pub(super) Map<String, Value>);

impl Figures {
    /// An object of JSON.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        match serde_json::from_slice(text) {
            Ok(Value::Object(figures)) => Some(Self(figures)),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    pub(super) fn set(&mut self, name: &str, number: f64) {
        self.0.insert(name.to_owned(), number.into());
    }

    /// What the generator found wrong.
    pub(super) fn faults(&self) -> Option<String> {
        let faults = self.0.get("faults")?.as_array()?;
        let faults: Vec<&str> = faults.iter().filter_map(Value::as_str).collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

/// The middle of some numbers; of an even count the upper of the two.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        let text = r#"{"load":"p2p","messages_per_s":12.5,"faults":["lost=1","stalls=2"]}"#;
        let figures = Figures(serde_json::from_str(text).unwrap());
        assert_eq!(figures.number("messages_per_s"), Some(12.5));
        assert_eq!(figures.number("load"), None);
        assert_eq!(figures.faults().as_deref(), Some("lost=1, stalls=2"));
        assert_eq!(Figures::default().faults(), None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
