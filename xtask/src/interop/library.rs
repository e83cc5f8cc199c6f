//! Client libraries of other languages, at pinned versions, and this project's, each behind a small program.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    install::{self, NotInstalled},
    step,
    workspace::{cargo, root},
};

const PAHO: &str = "2.2.0";
const MQTT_JS: &str = "5.16.0";
/// The folder in which this project's is built.
const OURS: &str = "ternmq";

/// A library and where it is installed.
#[derive(Debug)]
pub(super) struct Library {
    language: Language,
    /// Holds nothing but this version of the library and what it depends on.
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    JavaScript,
    /// Of this workspace, built with the program that drives it.
    Rust,
}

impl Library {
    /// Eclipse Paho for Python, below the folder `tools`.
    pub(super) fn paho(tools: &Path) -> Self {
        Self {
            language: Language::Python,
            folder: tools.join(format!("paho-mqtt-{PAHO}")),
        }
    }

    /// MQTT.js, below the folder `tools`.
    pub(super) fn mqtt_js(tools: &Path) -> Self {
        Self {
            language: Language::JavaScript,
            folder: tools.join(format!("mqtt.js-{MQTT_JS}")),
        }
    }

    /// This project's own, built below the folder `tools`.
    pub(super) fn ours(tools: &Path) -> Self {
        Self {
            language: Language::Rust,
            folder: tools.join(OURS),
        }
    }

    /// Builds the program that drives this project's own.
    pub(super) fn build_ours(tools: &Path) -> Result<()> {
        step::execute(
            cargo()
                .args(["build", "--locked", "--manifest-path"])
                .arg(root().join("xtask/peers/interop/Cargo.toml"))
                .arg("--target-dir")
                .arg(tools.join(OURS)),
        )
    }

    /// Installs the library unless it is there, with the interpreter it needs.
    pub(super) fn prepare(&self) -> Result<(), NotInstalled> {
        if self.loads() {
            return Ok(());
        }
        match self.language {
            Language::Python => self.install_paho(),
            Language::JavaScript => self.install_mqtt_js(),
            Language::Rust => Ok(()),
        }?;
        if self.loads() {
            return Ok(());
        }
        let reason = "installed, but does not load";
        Err(NotInstalled::new(&self.folder.to_string_lossy(), reason))
    }

    /// The program that drives clients of the library.
    pub(super) fn driver(&self) -> Command {
        let scripts = root().join("xtask/interop");
        match self.language {
            Language::Python => {
                let mut command = Command::new(self.python());
                command.arg(scripts.join("paho_peer.py"));
                command
            }
            Language::JavaScript => {
                let mut command = Command::new("node");
                command.arg(scripts.join("mqttjs_peer.mjs"));
                command.arg(&self.folder);
                command
            }
            Language::Rust => Command::new(self.program()),
        }
    }

    /// Where it is installed.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// MQTT.js as one file for a page.
    pub(super) fn script(&self) -> PathBuf {
        self.folder.join("node_modules/mqtt/dist/mqtt.min.js")
    }

    /// Whether the library is there and can be loaded.
    fn loads(&self) -> bool {
        let mut command = match self.language {
            Language::Python => {
                let mut command = Command::new(self.python());
                command.args(["-c", "import paho.mqtt.client"]);
                command
            }
            Language::JavaScript => {
                let mut command = Command::new("node");
                command.args(["-e", "require(process.argv[1])"]);
                command.arg(self.folder.join("node_modules/mqtt"));
                command
            }
            Language::Rust => return self.program().exists(),
        };
        step::quiet(&mut command).is_ok()
    }

    fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    fn program(&self) -> PathBuf {
        self.folder.join("debug/interop-peer")
    }

    fn install_paho(&self) -> Result<(), NotInstalled> {
        install::apt("python3", "python3")?;
        let environment = || {
            let mut command = Command::new("python3");
            command.args(["-m", "venv", "--clear"]).arg(&self.folder);
            step::quiet(&mut command)
        };
        // Debian has it in a package of its own.
        if environment().is_err() {
            install::debian_package("venv of python3", "python3-venv")?;
            environment()
                .map_err(|error| NotInstalled::new("venv of python3", format!("{error:#}")))?;
        }
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
        pip.args(["--disable-pip-version-check", "--retries", "1"]);
        pip.arg(format!("paho-mqtt=={PAHO}"));
        install::with("paho-mqtt", &mut pip)
    }

    fn install_mqtt_js(&self) -> Result<(), NotInstalled> {
        install::apt("node", "nodejs")?;
        install::apt("npm", "npm")?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
        npm.args(["--loglevel=error", "--fetch-retries=1", "--prefix"]);
        npm.arg(&self.folder).arg(format!("mqtt@{MQTT_JS}"));
        install::with("MQTT.js", &mut npm)
    }
}
