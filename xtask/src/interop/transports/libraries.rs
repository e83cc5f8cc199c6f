//! The client libraries over WebSocket and over TLS.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::stage::{Door, ORIGIN, PATIENCE, Stage};
use crate::interop::{
    client::Client,
    driver::Drivers,
    message::Message,
    peer::{Address, Peer, Version},
};

/// Longer than what fits into one frame, or into one read.
const LONG: usize = 300_000;
/// Messages that are on their way at the same time.
const MANY: usize = 500;
const QOS: [u8; 3] = [0, 1, 2];

/// Where clients of a library come in.
pub(super) struct Place {
    pub(super) door: Door,
    pub(super) address: Address,
    /// Of WebSocket.
    pub(super) path: Option<&'static str>,
    /// Whom to trust, where there is TLS.
    pub(super) authority: Option<PathBuf>,
}

impl Place {
    /// A door of this project's broker.
    pub(super) fn of(stage: &Stage, door: Door) -> Result<Self> {
        Ok(Self::new(stage, door, stage.address(door)?.clone()))
    }

    /// A listener of that kind of any broker that has the certificates.
    pub(super) fn new(stage: &Stage, door: Door, address: Address) -> Self {
        let is_secure = matches!(door, Door::Tls | Door::SecureWebSocket);
        Self {
            door,
            address,
            path: match door {
                Door::WebSocket | Door::OneOrigin => Some("/mqtt"),
                Door::SecureWebSocket => Some("/secure"),
                _ => None,
            },
            authority: is_secure.then(|| stage.certificates.file("ca.pem")),
        }
    }
}

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
        place: &Place,
        version: Version,
        client_id: &str,
        origin: Option<&str>,
    ) -> Result<Client> {
        let mut options = json!({
            "host": place.address.host,
            "port": place.address.port,
            "version": version.level(),
            "clientId": client_id,
            "clean": true,
        });
        if let Some(path) = place.path {
            options["path"] = path.into();
        }
        if let Some(origin) = origin {
            options["origin"] = origin.into();
        }
        if let Some(authority) = &place.authority {
            options["authority"] = authority.display().to_string().into();
        }
        let deadline = Instant::now() + PATIENCE;
        Client::connect(self.drivers.of(self.peer)?, deadline, version, options)
    }

    /// In every version: messages of all lengths at each QoS, and many at once.
    pub(super) fn exchange(&self, place: &Place) -> Result<()> {
        for version in Version::ALL {
            // The clients of 3.1 have identifiers of 23 bytes at most.
            let name = format!("{}{}", self.peer.name, version.level());
            let topic = format!("{:?}/{name}", place.door);
            let client = |role: &str| {
                let client_id = format!("{name}-{role}{}", place.door as u8);
                self.connect(place, version, &client_id, None)
            };
            let subscriber = client("s")?;
            subscriber.subscribe(&topic, 2)?;
            let publisher = client("p")?;
            let mut expected = Vec::new();
            for qos in QOS {
                for length in [0, 1, 125, 126, 65_535, 65_536, LONG] {
                    let message = Message::new(&topic, "x".repeat(length).as_str(), qos);
                    publisher.publish(&message)?;
                    expected.push(message);
                }
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
        let place = Place::of(stage, Door::OneOrigin)?;
        let come = |origin| {
            self.connect(&place, Version::V5, "origin", origin)
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
