//! The generator against its own relay, which makes faults on purpose: each is found and counted.

use super::relay::{Fault, Relay};
use super::*;

/// A relay on a thread of its own, which ends with the process.
fn relay(fault: Option<(Fault, u64)>) -> SocketAddr {
    let mut relay = Relay::bind("127.0.0.1:0".parse().unwrap(), fault).unwrap();
    let address = relay.address().unwrap();
    std::thread::spawn(move || {
        loop {
            relay.turn().unwrap();
        }
    });
    address
}

/// A load of `count` messages a publisher, whatever time they take.
fn run(server: SocketAddr, load: Load, count: u64, rate: Option<f64>, open_loop: bool) -> Figures {
    let bench = Bench {
        load: "test",
        label: None,
        server,
        transport: Transport::default(),
        identity: Identity {
            version: mqtt_codec::ProtocolVersion::V5,
            keep_alive: 600,
            username: None,
            password: None,
            prefix: "test".to_owned(),
            lasting: false,
        },
        prefix: "bench".to_owned(),
        qos: QoS::AtMostOnce,
        payload: 100,
        duration: Duration::from_secs(3600),
        warmup: Duration::ZERO,
        processes: Vec::new(),
        quiet: true,
        stop: Stop::default(),
    };
    let options = traffic::Options {
        window: None,
        burst: None,
        rate,
        open_loop,
        count: Some(count),
        held: 0,
        drain: Duration::from_millis(100),
    };
    traffic::run(&bench, load, &options).unwrap()
}

fn pairs() -> Load {
    Load::new(Shape::Pairs, 3, 3, "bench", 0)
}

/// Lost, duplicated, out of order, corrupt.
fn account(figures: &Figures) -> [u64; 4] {
    ["lost", "duplicated", "out_of_order", "corrupt"].map(|name| figures.count_of(name).unwrap())
}

#[test]
fn a_relay_that_copies_is_found_good() {
    let figures = run(relay(None), pairs(), 20_000, None, false);
    assert!(figures.is_good(), "{}", figures.faults());
    assert_eq!(figures.count_of("received"), Some(60_000));
    assert_eq!(figures.count_of("latency_samples"), Some(60_000));
    assert_eq!(account(&figures), [0; 4]);
}

#[test]
fn a_fan_out_is_expected_at_every_subscriber() {
    let load = Load::new(Shape::Fanout, 1, 7, "bench", 0);
    let figures = run(relay(None), load, 5_000, None, false);
    assert!(figures.is_good(), "{}", figures.faults());
    assert_eq!(figures.count_of("received"), Some(35_000));
}

/// Every tenth message of three publishers with 100 each.
#[test]
fn each_fault_is_found_and_counted() {
    for (fault, expected) in [
        (Fault::Drop, [30, 0, 0, 0]),
        (Fault::Repeat, [0, 30, 0, 0]),
        // The last of each has no successor to change places with.
        (Fault::Swap, [3, 0, 27, 0]),
        (Fault::Corrupt, [30, 0, 0, 30]),
    ] {
        let figures = run(relay(Some((fault, 10))), pairs(), 100, None, false);
        assert_eq!(account(&figures), expected, "{fault:?}");
        // At QoS 0 a loss alone is told of, and is no fault.
        assert_eq!(figures.is_good(), fault == Fault::Drop, "{fault:?}");
    }
}

#[test]
fn a_rate_is_kept_in_both_loops() {
    for open_loop in [false, true] {
        let figures = run(relay(None), pairs(), 50, Some(5000.0), open_loop);
        assert!(figures.is_good(), "{}", figures.faults());
        assert_eq!(figures.count_of("received"), Some(150));
        assert_eq!(figures.count_of("left_out"), Some(0));
        assert!(figures.count_of("generator_lateness_samples") >= Some(150));
    }
}
