//! Every way in which a client says who it is and is told what it may do, with every way in which what it may not
//! see or send could get through all the same: the allowed passes, and the denied neither arrives nor leaks.
//!
//! The client is `anna`, who may publish to and read `t/anna/#` and nothing else, until `t/anna/late/#` is taken from
//! her. `root` comes through a listener where everything is allowed, and sees whole topics. All of it is done once
//! more with anna behind a mount point, and a listener with permissions of its own.

mod scene;
mod sources;
mod ways;

use core::future::Future;
use core::pin::Pin;

use mqtt_codec::{ProtocolVersion, QoS};

use crate::harness::{V5, message};
use crate::leaks::scene::Scene;
use crate::leaks::sources::{SOURCES, Shows};

type Way = for<'s> fn(&'s Scene) -> Pin<Box<dyn Future<Output = ()> + 's>>;

/// Tells which scene it was when a test fails within it.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in this scene: {}", self.0);
        }
    }
}

/// Plays one way with every source, in the versions that have both.
async fn with_every_source(only: Option<ProtocolVersion>, way: Way) {
    for source in &SOURCES {
        for mount in ["", "m/"] {
            let versions = source.versions.iter().copied();
            for version in versions.filter(|it| only.is_none_or(|only| only == *it)) {
                let _told = Told(format!("{}, {version}, mount point {mount:?}", source.name));
                way(&Scene::new(source, mount, version)).await;
            }
        }
    }
}

macro_rules! ways {
    ($($(#[$doc:meta])+ $name:ident: $only:expr;)+) => {
        $(
            $(#[$doc])+
            #[tokio::test(start_paused = true)]
            async fn $name() {
                with_every_source($only, |scene| Box::pin(ways::$name(scene))).await;
            }
        )+
    };
}

ways! {
    /// What is published arrives or is refused, at every QoS.
    publishing: None;
    /// A topic alias stands for the topic that it was given, denied or not.
    aliases: Some(V5);
    /// A retained message that may not be published is not there for those who come later.
    retaining: None;
    /// Retained messages do not come with a new subscription, however they are asked for.
    retained: None;
    /// What a wildcard matches beyond what may be received does not arrive.
    wildcards: None;
    /// A group gives nothing to a member that may not receive it, and neither does a member that goes.
    shared: None;
    /// A will is refused in CONNECT, and is not published when its owner may not publish it any more.
    wills: None;
    /// The same when the delay of a will passes after the connection has ended.
    delayed_wills: Some(V5);
    /// A session that is resumed has lost the subscriptions, and the messages, that are not allowed any more.
    resumed: None;
    /// The same after a restart, with messages that are on the disk alone.
    restarted: None;
    /// Nobody else resumes, replaces or ends a session, or gets anything of it, its will included.
    other_users: None;
    /// A reload holds for a live connection: what it sends, what it is sent, and what waits for it.
    narrowed: None;
    /// What a live connection had lost is lost for its session as well.
    narrowed_then_resumed: None;
    /// Response topics lead nowhere out of a mount point.
    responses: Some(V5);
}

/// Each token says for itself what it allows: what waited under another one is looked at again, and what another one
/// did not allow comes with the next that does.
#[tokio::test(start_paused = true)]
async fn the_token_of_now_counts() {
    let claims = Shows::Token { claims: true };
    let source = SOURCES.iter().find(|source| source.shows == claims);
    let scene = Scene::new(source.unwrap(), "", V5);
    let (own, late) = (scene.own("x"), scene.own("late/x"));
    let mut root = scene.root("root").await;
    let (mut anna, _) = scene.come(&scene.lasting()).await;
    anna.subscribe("t/#", QoS::AtLeastOnce).await;
    anna.abort().await;
    for (payload, allowed) in [("less", false), ("all", true), ("less again", false)] {
        for topic in [&late, &own] {
            root.publish(&message(topic, payload, QoS::AtLeastOnce))
                .await;
        }
        let (mut anna, _) = scene.come_with_token(&scene.lasting(), allowed).await;
        // While she was away, the token before held.
        if allowed {
            root.publish(&message(&late, payload, QoS::AtLeastOnce))
                .await;
            anna.expect_message(&own, payload, QoS::AtLeastOnce).await;
            anna.expect_message(&late, payload, QoS::AtLeastOnce).await;
        } else {
            anna.expect_message(&own, payload, QoS::AtLeastOnce).await;
            root.publish(&message(&late, payload, QoS::AtLeastOnce))
                .await;
        }
        anna.expect_nothing().await;
        anna.abort().await;
    }
}
