//! SCRAM-SHA-256 by MQTT.js, whose AUTH packets carry what Node.js computes; a second exchange on the same connection.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, ensure};

use super::{
    UNKNOWN, refused,
    stage::{Door, Stage},
    with,
};
use crate::{
    interop::{
        library::Library,
        transports::{
            mosquitto::port,
            stage::{PASSWORD, PATIENCE, USER},
        },
    },
    process::Running,
    workspace::root,
};

pub(super) fn check(stage: &mut Stage, library: &Library) -> Result<()> {
    let heard = format!("heard own/{USER}/scram");
    let cases: [(&str, &str, &str, &[&str]); 4] = [
        (USER, PASSWORD, PASSWORD, &["accepted", "again", &heard]),
        (USER, "wrong", PASSWORD, &["refused 134"]),
        // Told apart by nothing from a wrong password.
        ("nobody", PASSWORD, PASSWORD, &["refused 134"]),
        // Not authorized: in DISCONNECT of the connection that was let in before.
        (USER, PASSWORD, "wrong", &["accepted", "ended 135"]),
    ];
    for (user, password, again, expected) in cases {
        let address = stage.address(Door::Scram)?;
        let mut command = Command::new("timeout");
        command.args([&PATIENCE.as_secs().to_string(), "node"]);
        command.arg(root().join("xtask/interop/mqttjs_scram.mjs"));
        command.arg(library.folder());
        command.args([&address.host, &address.port.to_string()]);
        command.args([user, password, again]);
        let mut client = Running::start(&mut command, None)?;
        let deadline = Instant::now() + PATIENCE;
        let lines = client.last_lines(deadline);
        client.succeed(deadline).context("MQTT.js")?;
        ensure!(
            lines == expected,
            "{user} with {password:?}, then {again:?}: {lines:?}, and {expected:?} was expected"
        );
    }
    // 3.1 and 3.1.1 have no AUTH: the same keys serve for a password.
    let way = port(stage.address(Door::Scram)?);
    super::let_in(&with(&way, USER, PASSWORD), USER)?;
    refused(&with(&way, USER, "wrong"), UNKNOWN, "a wrong password")
}
