//! The loads that brokers are compared with, and what this one shall take of each.

use super::super::peer::{Over, Peer};

/// What is compared between the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metric {
    /// Its name among the figures of the generator.
    pub(super) figure: &'static str,
    pub(super) unit: &'static str,
}

/// At most how much this broker may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// In what Mosquitto takes in the same run.
    Ratio(f64),
    /// In what the relay takes.
    Relay(f64),
    /// What the relay takes, and this share of what Mosquitto takes on top of that.
    Between(f64),
    /// By itself.
    Absolute(f64),
}

/// A load, how it is measured and what is aimed at.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) name: &'static str,
    /// Arguments of `mqtt-client bench`; none for what is measured without a load.
    arguments: &'static str,
    pub(super) metrics: &'static [(Metric, Target)],
    /// The first of them is this broker, the one that is judged.
    pub(super) peers: &'static [Peer],
    pub(super) over: Over,
    /// It says how many messages a second there are when nothing else limits them.
    pub(super) flood: bool,
}

/// Messages a second of this broker, in those of Mosquitto, at least, under flood.
pub(super) const THROUGHPUT: f64 = 3.0;

const CPU: Metric = Metric {
    figure: "broker_cpu_us_per_message",
    unit: "us a message",
};
const STORE: Metric = Metric {
    figure: "store_cpu_us_per_message",
    unit: "us a message",
};
const CONNECT: Metric = Metric {
    figure: "broker_cpu_us_per_connect",
    unit: "us a connect",
};
const MEMORY: Metric = Metric {
    figure: "rss_kib_per_connection",
    unit: "KiB a connection",
};
const LATENCY: Metric = Metric {
    figure: "latency_p50_us",
    unit: "us p50",
};
/// Of a server without connections.
pub(super) const IDLE_MEMORY: Metric = Metric {
    figure: "rss_kib",
    unit: "KiB when idle",
};
/// From the start of the process until it serves.
pub(super) const START: Metric = Metric {
    figure: "start_ms",
    unit: "ms to start",
};

const BROKERS: &[Peer] = &[Peer::Ours, Peer::Mosquitto, Peer::Rumqttd];
const ALL: &[Peer] = &[Peer::Ours, Peer::Mosquitto, Peer::Rumqttd, Peer::Relay];
const WITHOUT_RUMQTTD: &[Peer] = &[Peer::Ours, Peer::Mosquitto];

const fn flood(
    name: &'static str,
    arguments: &'static str,
    metrics: &'static [(Metric, Target)],
) -> Load {
    Load {
        name,
        arguments,
        metrics,
        peers: BROKERS,
        over: Over::Tcp,
        flood: true,
    }
}

/// A flood that rumqttd has no part in.
const fn over(
    over: Over,
    name: &'static str,
    arguments: &'static str,
    metrics: &'static [(Metric, Target)],
) -> Load {
    Load {
        over,
        peers: WITHOUT_RUMQTTD,
        ..flood(name, arguments, metrics)
    }
}

/// All loads.
pub(super) const LOADS: &[Load] = &[
    Load {
        peers: ALL,
        ..flood("p2p, QoS 0", "p2p", &[(CPU, Target::Ratio(0.036))])
    },
    flood("p2p, QoS 1", "p2p -q 1", &[(CPU, Target::Ratio(0.053))]),
    flood("p2p, QoS 2", "p2p -q 2", &[(CPU, Target::Ratio(0.046))]),
    Load {
        peers: ALL,
        ..flood(
            "p2p, 1 KiB",
            "p2p --payload 1024",
            &[(CPU, Target::Ratio(0.056))],
        )
    },
    Load {
        peers: ALL,
        flood: false,
        ..flood(
            "p2p, 16 KiB",
            "p2p --payload 16384",
            &[(CPU, Target::Ratio(0.33))],
        )
    },
    Load {
        peers: ALL,
        ..flood("fan-out", "fanout", &[(CPU, Target::Ratio(0.025))])
    },
    flood("fan-in", "fanin", &[(CPU, Target::Ratio(0.10))]),
    Load {
        peers: WITHOUT_RUMQTTD,
        ..flood("shared, 5.0", "shared -V 5", &[(CPU, Target::Ratio(0.07))])
    },
    flood("wild", "wild", &[(CPU, Target::Ratio(0.048))]),
    Load {
        flood: false,
        ..flood(
            "retained, delivered",
            "retained --retained 20000",
            &[(CPU, Target::Ratio(0.26))],
        )
    },
    Load {
        flood: false,
        peers: &[Peer::InMemory, Peer::Mosquitto, Peer::Rumqttd, Peer::Ours],
        ..flood(
            "retained, stored at QoS 1",
            "retained --retained 20000 -q 1 --store-only",
            &[(STORE, Target::Ratio(0.25))],
        )
    },
    Load {
        flood: false,
        peers: ALL,
        ..flood(
            "sparse, QoS 0",
            "latency",
            &[(CPU, Target::Relay(1.3)), (LATENCY, Target::Between(0.5))],
        )
    },
    Load {
        flood: false,
        ..flood(
            "sparse, QoS 1",
            "latency -q 1",
            &[(CPU, Target::Ratio(0.65)), (LATENCY, Target::Ratio(0.65))],
        )
    },
    Load {
        flood: false,
        ..flood("connects", "connect", &[(CONNECT, Target::Ratio(0.85))])
    },
    Load {
        flood: false,
        ..flood(
            "idle connections",
            "idle --seconds 1",
            &[(MEMORY, Target::Ratio(1.4))],
        )
    },
    over(
        Over::Tls,
        "TLS: p2p, QoS 0",
        "p2p",
        &[(CPU, Target::Ratio(1.0))],
    ),
    over(
        Over::Tls,
        "TLS: p2p, QoS 1",
        "p2p -q 1",
        &[(CPU, Target::Ratio(1.0))],
    ),
    Load {
        flood: false,
        ..over(
            Over::Tls,
            "TLS: connects",
            "connect --connections 1000",
            &[(CONNECT, Target::Ratio(1.0))],
        )
    },
    Load {
        flood: false,
        ..over(
            Over::Tls,
            "TLS: idle connections",
            "idle --seconds 1 --connections 2000",
            &[(MEMORY, Target::Ratio(1.0))],
        )
    },
    over(
        Over::WebSocket,
        "WebSocket: p2p, QoS 0",
        "p2p",
        &[(CPU, Target::Ratio(1.0))],
    ),
    over(
        Over::WebSocket,
        "WebSocket: p2p, QoS 1",
        "p2p -q 1",
        &[(CPU, Target::Ratio(1.0))],
    ),
    Load {
        flood: false,
        // Mosquitto takes a tenth of a second for each handshake.
        peers: &[Peer::Ours],
        ..over(
            Over::WebSocket,
            "WebSocket: idle connections",
            "idle --seconds 1 --connections 2000",
            &[(MEMORY, Target::Absolute(4.0))],
        )
    },
    over(
        Over::Tcp,
        "durable: p2p, QoS 1",
        "p2p -q 1 --lasting",
        &[(CPU, Target::Ratio(1.0))],
    ),
    Load {
        name: "start, in memory",
        arguments: "",
        metrics: &[
            (START, Target::Absolute(20.0)),
            (IDLE_MEMORY, Target::Ratio(1.0)),
        ],
        peers: &[Peer::InMemory, Peer::Mosquitto],
        over: Over::Tcp,
        flood: false,
    },
    Load {
        name: "start, new data directory",
        arguments: "",
        metrics: &[
            (START, Target::Absolute(100.0)),
            (IDLE_MEMORY, Target::Absolute(16.0 * 1024.0)),
        ],
        peers: &[Peer::Ours],
        over: Over::Tcp,
        flood: false,
    },
];

impl Load {
    /// Arguments of the generator with the time it shall take; `None` where there is no load.
    pub(super) fn arguments(&self, seconds: f64, warmup: f64) -> Option<Vec<String>> {
        if self.arguments.is_empty() {
            return None;
        }
        let mut arguments: Vec<String> = self.arguments.split(' ').map(ToOwned::to_owned).collect();
        for (name, value) in [("--seconds", seconds), ("--warmup", warmup)] {
            if !arguments.iter().any(|argument| argument == name) {
                arguments.extend([name.to_owned(), value.to_string()]);
            }
        }
        Some(arguments)
    }
}

impl Target {
    /// The most that this broker may take; `None` where what it is compared with was not measured.
    pub(super) fn limit(self, mosquitto: Option<f64>, relay: Option<f64>) -> Option<f64> {
        match self {
            Self::Ratio(ratio) => Some(mosquitto? * ratio),
            Self::Relay(ratio) => Some(relay? * ratio),
            // Where Mosquitto is no slower than the relay the relay is the limit.
            Self::Between(share) => Some(relay? + share * (mosquitto? - relay?).max(0.0)),
            Self::Absolute(limit) => Some(limit),
        }
    }

    pub(super) fn shown(self) -> String {
        match self {
            Self::Ratio(ratio) => format!("{ratio} x Mosquitto"),
            Self::Relay(ratio) => format!("{ratio} x relay"),
            Self::Between(share) => format!("relay + {share} x (Mosquitto - relay)"),
            Self::Absolute(limit) => format!("{limit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_what_was_measured() {
        assert_eq!(Target::Ratio(0.5).limit(Some(4.0), None), Some(2.0));
        assert_eq!(Target::Ratio(0.5).limit(None, Some(1.0)), None);
        assert_eq!(Target::Relay(1.5).limit(None, Some(2.0)), Some(3.0));
        assert_eq!(Target::Between(0.5).limit(Some(9.0), Some(5.0)), Some(7.0));
        assert_eq!(Target::Between(0.5).limit(Some(4.0), Some(5.0)), Some(5.0));
        assert_eq!(Target::Absolute(20.0).limit(None, None), Some(20.0));
    }

    #[test]
    fn the_judged_one_is_this_broker() {
        for load in LOADS {
            assert!(matches!(
                load.peers.first(),
                Some(Peer::Ours | Peer::InMemory)
            ));
            let needs_relay = load
                .metrics
                .iter()
                .any(|(_, target)| matches!(target, Target::Relay(_) | Target::Between(_)));
            assert!(
                !needs_relay || load.peers.contains(&Peer::Relay),
                "{}",
                load.name
            );
        }
    }

    #[test]
    fn a_time_of_its_own_stays() {
        let idle = LOADS
            .iter()
            .find(|load| load.name == "idle connections")
            .unwrap();
        let arguments = idle.arguments(5.0, 1.0).unwrap();
        assert_eq!(arguments, ["idle", "--seconds", "1", "--warmup", "1"]);
    }
}
