//! Limits of who comes in: connections, their rate and their time, logins, bans.

use core::num::NonZeroU32;
use core::time::Duration;
use std::sync::mpsc;

use mqtt_broker::Config;
use mqtt_broker::auth::Authority;
use mqtt_codec::{Packet, ReasonCode};

use super::{NOTHING, QUOTA, Reached, Row, Scene, TAKEN, UNAVAILABLE, told};
use crate::guarded::{Files, user};
use crate::harness::{hello, settle};

/// The rows.
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            limit: "max_connections",
            set: |config, _| config.max_connections = 1,
            reach: second,
            told: (Some(ReasonCode::SERVER_BUSY), Some(UNAVAILABLE)),
            counter: "refused, too many connections",
            line: "reason=too many connections",
        },
        Row {
            limit: "max_connections of a listener",
            set: |_, options| options.max_connections = Some(0),
            reach: |scene| Box::pin(async { scene.knock(&hello(scene.version, "a")).await.1 }),
            told: (Some(ReasonCode::SERVER_BUSY), Some(UNAVAILABLE)),
            counter: "refused, too many connections of the listener",
            line: "reason=too many connections of the listener",
        },
        Row {
            limit: "max_connections_per_address",
            set: |config, _| config.max_connections_per_address = 1,
            reach: second,
            told: (QUOTA, Some(UNAVAILABLE)),
            counter: "refused, too many connections of the address",
            line: "reason=too many connections of the address",
        },
        Row {
            limit: "connect_rate_per_address",
            set: |config, _| config.connect_rate_per_address = NonZeroU32::new(1),
            reach: second,
            told: (
                Some(ReasonCode::CONNECTION_RATE_EXCEEDED),
                Some(UNAVAILABLE),
            ),
            counter: "refused, address connects too fast",
            line: "reason=address connects too fast",
        },
        Row {
            limit: "connect_timeout",
            set: |config, _| config.connect_timeout = Duration::from_secs(5),
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.open();
                    peer.send_raw(&[0x10]).await;
                    told(&mut peer).await
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, no CONNECT in time",
            line: "reason=no CONNECT in time",
        },
        Row {
            limit: "max_entering",
            set: |config, _| config.max_entering = 1,
            reach: |scene| {
                Box::pin(async {
                    let mut first = scene.open();
                    let _second = scene.open();
                    told(&mut first).await
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, pushed out before CONNECT by newer connections",
            line: "reason=pushed out before CONNECT",
        },
        Row {
            limit: "max_connect_size",
            set: |config, _| config.max_connect_size = 64,
            reach: |scene| {
                Box::pin(async {
                    let id = "x".repeat(100);
                    scene.knock(&hello(scene.version, &id)).await.1
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, no CONNECT",
            line: "refused",
        },
        Row {
            limit: "waiting_logins",
            set: |config, _| {
                let mut files = Files::without_permissions();
                files.settings.password_checks = 1;
                files.settings.waiting_logins = 0;
                config.auth = Authority::load(&files.settings).unwrap();
            },
            reach: |scene| {
                Box::pin(async {
                    // There is one thread for checks, which is kept from the first.
                    let (release, kept) = mpsc::channel::<()>();
                    let blocked = tokio::task::spawn_blocking(move || kept.recv());
                    let mut first = scene.open();
                    let login = user(scene.version, "anna", "first");
                    first.send(&Packet::Connect(Box::new(login))).await;
                    settle().await;
                    let login = user(scene.version, "anna", "second");
                    let refused = scene.knock(&login).await.1;
                    drop(release);
                    assert!(blocked.await.unwrap().is_err());
                    assert_eq!(told(&mut first).await, TAKEN);
                    refused
                })
            },
            told: (QUOTA, Some(UNAVAILABLE)),
            counter: "denied, login queue full",
            line: "reason=too many logins wait",
        },
        Row {
            limit: "bans of addresses",
            set: |config, _| config.bans.addresses = vec!["192.0.2.0/24".parse().unwrap()],
            reach: |scene| Box::pin(async { scene.knock(&hello(scene.version, "a")).await.1 }),
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, banned",
            line: "reason=banned",
        },
        Row {
            limit: "bans of client identifiers",
            set: |config, _| config.bans.client_ids = vec!["a".to_owned()],
            reach: |scene| Box::pin(async { scene.knock(&hello(scene.version, "a")).await.1 }),
            told: (
                Some(ReasonCode::BANNED),
                Some(Some(ReasonCode::NOT_AUTHORIZED)),
            ),
            counter: "refused, banned",
            line: "reason=banned",
        },
        Row {
            limit: "bans that come by a reload",
            set: |_, _| {},
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.client("a").await;
                    let mut config = Config::default();
                    config.bans.client_ids = vec!["a".to_owned()];
                    scene.broker.reconfigure(config);
                    told(&mut peer).await
                })
            },
            told: (Some(ReasonCode::ADMINISTRATIVE_ACTION), Some(NOTHING)),
            counter: "ended, banned",
            line: "disconnected",
        },
        Row {
            limit: "bans of those who fail",
            set: |config, _| config.bans.failures = Some(NonZeroU32::MIN),
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.open();
                    peer.send_raw(b"GET / HTTP/1.1\r\n\r\n").await;
                    assert_eq!(told(&mut peer).await, NOTHING);
                    scene.knock(&hello(scene.version, "a")).await.1
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "addresses banned",
            line: "address banned: it has failed too often",
        },
    ]
}

/// The second of two clients.
fn second<'s>(scene: &'s Scene) -> Reached<'s> {
    Box::pin(async {
        let _first = scene.client("first").await;
        scene.knock(&hello(scene.version, "second")).await.1
    })
}
