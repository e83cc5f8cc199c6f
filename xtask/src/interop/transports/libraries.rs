//! The client libraries over WebSocket and over TLS.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::stage::{Door, ORIGIN, PATIENCE, Stage};
use crate::interop::{
    client::Client,
    driver::Drivers,
    message::Message,
    peer::{Peer, Version},
};

/// Longer than what fits into one frame, or into one read.
const LONG: usize = 300_000;
/// Messages that are on their way at the same time.
const MANY: usize = 500;

/// A library, and the program that holds its clients.
pub(super) struct Library<'a> {
    peer: &'a Peer,
    drivers: Drivers,
}

impl<'a> Library<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self {
            peer,
            drivers: Drivers::default(),
        }
    }

    fn connect(
        &self,
        stage: &Stage,
        door: Door,
        version: Version,
        client_id: &str,
        origin: Option<&str>,
    ) -> Result<Client> {
        let address = stage.address(door)?;
        let mut options = json!({
            "host": address.host,
            "port": address.port,
            "version": version.level(),
            "clientId": client_id,
            "clean": true,
        });
        match door {
            Door::WebSocket | Door::OneOrigin => options["path"] = "/mqtt".into(),
            Door::SecureWebSocket => options["path"] = "/secure".into(),
            _ => {}
        }
        if let Some(origin) = origin {
            options["origin"] = origin.into();
        }
        if matches!(door, Door::Tls | Door::SecureWebSocket) {
            let authority = stage.certificates.file("ca.pem");
            options["authority"] = authority.display().to_string().into();
        }
        let deadline = Instant::now() + PATIENCE;
        Client::connect(self.drivers.of(self.peer)?, deadline, version, options)
    }

    /// In every version: messages of all lengths, each way, many at once.
    pub(super) fn exchange(&self, stage: &Stage, door: Door) -> Result<()> {
        for version in Version::ALL {
            // The clients of 3.1 have identifiers of 23 bytes at most.
            let name = format!("{}{}", self.peer.name, version.level());
            let topic = format!("{door:?}/{name}");
            let subscriber = self.connect(
                stage,
                door,
                version,
                &format!("{name}-s{}", door as u8),
                None,
            )?;
            subscriber.subscribe(&topic, 2)?;
            let publisher = self.connect(
                stage,
                door,
                version,
                &format!("{name}-p{}", door as u8),
                None,
            )?;
            let mut expected = Vec::new();
            for length in [0, 1, 125, 126, 65_535, 65_536, LONG] {
                let message = Message::new(&topic, "x".repeat(length).as_str(), 1);
                publisher.publish(&message)?;
                expected.push(message);
            }
            let model = Message::new(&topic, "", 2);
            let payloads: Vec<Vec<u8>> = (0..MANY).map(|n| n.to_string().into_bytes()).collect();
            let sending = publisher.start_publish(&model, &payloads, json!({}))?;
            publisher.finish_publish(sending)?;
            expected.extend(payloads.iter().map(|payload| Message {
                payload: payload.clone(),
                ..Message::new(&topic, "", 2)
            }));
            subscriber.expect(&expected)?;
            publisher.disconnect()?;
            subscriber.disconnect()?;
        }
        Ok(())
    }

    /// Where pages of one origin are let in, clients from other pages are not.
    pub(super) fn origins(&self, stage: &Stage) -> Result<()> {
        let come = |origin| {
            self.connect(stage, Door::OneOrigin, Version::V5, "origin", origin)
                .map(drop)
        };
        come(Some(ORIGIN))?;
        ensure!(
            come(Some("https://elsewhere.example")).is_err(),
            "a page of another origin got in"
        );
        Ok(())
    }
}
