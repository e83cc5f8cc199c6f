//! Certificates that say by their subject or by their alternative name who a client is, and one that is revoked.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{
    let_in,
    stage::{ALTERNATIVE, Door, SUBJECT, Stage},
};
use crate::interop::transports::{
    mosquitto::{VERSIONS, ensure_refused, tls},
    stage::PATIENCE,
};

pub(super) fn check_names(stage: &mut Stage) -> Result<()> {
    for (door, user) in [(Door::Subject, SUBJECT.1), (Door::Alternative, ALTERNATIVE)] {
        let address = stage.address(door)?;
        let_in(&tls(&stage.certificates, address, Some("pump")), user)?;
        // Who has none is not let in, whatever name they give.
        let mut without = tls(&stage.certificates, address, None);
        without.extend(["-u".into(), user.into()]);
        for version in VERSIONS {
            ensure_refused(&without, version, "without a certificate")?;
            stage.logged(&["refused", "TLS handshake"])?;
        }
    }
    Ok(())
}

pub(super) fn check_revoked(stage: &mut Stage) -> Result<()> {
    let address = stage.address(Door::Revocation)?.clone();
    let_in(&tls(&stage.certificates, &address, Some("good")), "good")?;
    let way = tls(&stage.certificates, &address, Some("stolen"));
    for version in VERSIONS {
        ensure_refused(&way, version, "with a revoked certificate")?;
        stage.logged(&["refused", "TLS handshake", "evoked"])?;
    }
    // What mosquitto's clients do not show: the alert. Version 1.3 tells it after the client has its part done.
    for version in ["-tls1_2", "-tls1_3"] {
        let mut command = Command::new("timeout");
        command.args([&PATIENCE.as_secs().to_string(), "openssl", "s_client"]);
        command.args(["-connect", &format!("{}:{}", address.host, address.port)]);
        command.args([version, "-CAfile", "ca.pem", "-ign_eof"]);
        command.args(["-cert", "stolen.pem", "-key", "stolen.key"]);
        command.current_dir(&stage.folder).stdin(Stdio::null());
        let output = command.output().context("openssl")?;
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        ensure!(
            said.contains("certificate revoked"),
            "{version}: no alert that it is revoked: {said}"
        );
    }
    Ok(())
}
