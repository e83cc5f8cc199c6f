//! A page in headless Chromium that speaks MQTT over WebSocket.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{
    mosquitto::{Subscriber, port},
    stage::{Door, Stage},
};
use crate::{process::Running, workspace::root};

/// Opens the page beside `script`, MQTT.js as one file, and waits for what it publishes in the end.
pub(super) fn check(stage: &mut Stage, script: &Path) -> Result<()> {
    let page = stage.folder.join("page.html");
    fs::copy(root().join("xtask/interop/page.html"), &page)?;
    fs::copy(script, stage.folder.join("mqtt.min.js")).context("MQTT.js for browsers")?;
    let way = port(stage.address(Door::Plain)?);
    let mut subscriber = Subscriber::new(&way, "311", "browser/outcome", 1)?;
    let urls = [
        ("ws", Door::WebSocket, "/mqtt"),
        ("wss", Door::SecureWebSocket, "/secure"),
        ("ws", Door::OneOrigin, "/mqtt"),
    ]
    .map(|(scheme, door, path)| {
        let address = stage.address(door)?;
        Ok(format!(
            "{scheme}://{}:{}{path}",
            address.host, address.port
        ))
    });
    let urls = urls.into_iter().collect::<Result<Vec<String>>>()?;
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
    ]);
    // A container has little of it.
    command.args(["--disable-dev-shm-usage", "--remote-debugging-port=0"]);
    // The authority is made for this run alone.
    command.arg("--ignore-certificate-errors");
    let profile = stage.folder.join("chromium");
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg(format!("file://{}#{}", page.display(), urls.join(",")));
    let _browser = Running::start(&mut command, None)?;
    subscriber.expect("browser/outcome", "passed")?;
    subscriber.end()
}
