//! `mqtt-broker store` as a process, on the data directory of a broker.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mqtt_codec::QoS;

use crate::harness::{Peer, V5, message};
use crate::store::{Place, resumed};

/// Runs the command on a data directory.
fn store(directory: &Path, command: &str, arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqtt-broker"))
        .args(["store", command, "--data-dir"])
        .arg(directory)
        .args(arguments)
        .output()
        .unwrap()
}

fn succeeded(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(output: Output, expected: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("mqtt-broker: "), "{errors}");
    assert!(errors.contains(expected), "{errors}");
    assert_eq!(output.status.code(), Some(2), "{errors}");
}

/// Messages that wait come to their session from a broker on the directory that was imported.
#[tokio::test]
async fn a_broker_goes_on_with_what_was_imported() {
    let mut place = Place::new();
    let broker = place.start().await;
    let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
    away.subscribe("t", QoS::ExactlyOnce).await;
    away.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for text in ["first", "second"] {
        let mut publish = message("t", text, QoS::ExactlyOnce);
        publish.retain = true;
        sender.publish(&publish).await;
    }
    let directory = place.directory.path().to_owned();
    for command in ["inspect", "export", "import"] {
        refused(
            store(&directory, command, &[]),
            match command {
                "import" => "is not empty",
                _ => "is in use by another broker",
            },
        );
    }
    place.stop(broker, sender).await;

    let table = succeeded(store(&directory, "inspect", &[]));
    assert!(table.contains("\naway    never "), "{table}");
    assert!(table.contains("\nqueued         2 (13 bytes)\n"), "{table}");
    assert!(table.contains("\nretained       1 (7 bytes)\n"), "{table}");

    let sizes = succeeded(store(&directory, "compact", &[]));
    assert!(sizes.contains(" bytes before, "), "{sizes}");

    let mut copy = Place::new();
    let lines = directory.join("lines");
    assert_eq!(
        succeeded(store(
            &directory,
            "export",
            &["--output".as_ref(), lines.as_ref()]
        )),
        ""
    );
    let printed = succeeded(store(&directory, "export", &[]));
    assert_eq!(fs::read_to_string(&lines).unwrap(), printed);
    assert_eq!(
        succeeded(store(copy.directory.path(), "import", &[lines.as_ref()])),
        ""
    );
    let broker = copy.start().await;
    let mut away = resumed(&broker, V5, "away").await;
    for text in ["first", "second"] {
        away.expect_message("t", text, QoS::ExactlyOnce).await;
    }
    away.expect_nothing().await;
    away.subscribe("t", QoS::ExactlyOnce).await;
    away.expect_message("t", "second", QoS::ExactlyOnce).await;
    copy.stop(broker, away).await;
}

/// A compaction that is killed, wherever it is, leaves all that was there.
#[tokio::test]
async fn a_compaction_that_is_killed_loses_nothing() {
    let mut place = Place::new();
    let broker = place.start().await;
    let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
    away.subscribe("t", QoS::ExactlyOnce).await;
    away.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for number in 0..50 {
        let text = format!("{number}{}", "x".repeat(10_000));
        sender.publish(&message("t", &text, QoS::AtLeastOnce)).await;
    }
    place.stop(broker, sender).await;
    let directory = place.directory.path();
    let whole = succeeded(store(directory, "export", &[]));
    let (copy, replaced) = (directory.join("store.new"), directory.join("store.old"));
    // What the kill waits for; where the compaction is faster than the look, it comes too late, which is no failure.
    let reached: [&dyn Fn() -> bool; 4] = [
        &|| copy.exists(),
        &|| fs::read_dir(&copy).is_ok_and(|entries| entries.count() > 3),
        &|| replaced.exists(),
        &|| replaced.exists() && !copy.exists(),
    ];
    for (number, reached) in reached.into_iter().enumerate() {
        let mut compaction = Command::new(env!("CARGO_BIN_EXE_mqtt-broker"))
            .args(["store", "compact", "--data-dir"])
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !reached() && compaction.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // Fails only where it has ended.
        let _ = compaction.kill();
        compaction.wait().unwrap();
        let output = store(directory, "export", &[]);
        let kept = String::from_utf8(output.stdout).unwrap();
        assert!(kept == whole, "kill {number}: {}", kept.len());
        assert!(!copy.exists() && !replaced.exists());
    }
}

/// Exit code 2 and a message; what was there stays.
#[test]
fn what_cannot_be_done_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for command in ["inspect", "export", "compact"] {
        refused(store(&missing, command, &[]), "there is no store in ");
    }
    let file = directory.path().join("lines");
    let output = ["--output".as_ref(), file.as_os_str()];
    fs::write(&file, "{\"kind\":\"header\",\"format\":0}").unwrap();
    refused(store(&missing, "export", &output), "there is no store in ");
    refused(
        store(&missing, "import", &[file.as_ref()]),
        "lines: line 1: missing field `store_format`",
    );
    let absent = directory.path().join("absent");
    refused(
        store(&missing, "import", &[absent.as_ref()]),
        "cannot open ",
    );
    refused(store(&file, "bench", &[]), "lines cannot be created: ");
    let commit = store(&missing, "bench", &["--commit=0".as_ref()]);
    assert_eq!(commit.status.code(), Some(2));
    // Standard input is empty.
    refused(store(&missing, "import", &[]), "line 1: ");
    refused(store(&missing, "inspect", &[]), "there is no store in ");
    let names = fs::read_dir(directory.path()).unwrap();
    assert_eq!(names.count(), 2, "lines and the directory that was made");
}
