//! A program with an outbox that is killed: nothing that it was told is stored is lost, and nothing of QoS 2 comes
//! twice.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use mqtt_broker::{Broker, Config};
use mqtt_client::{Backoff, Client, Filter, Message, Options, Outbox, QoS};
use tokio::net::TcpListener;

use crate::restarts::folder;

/// How often the program is killed.
const ROUNDS: u64 = 8;

/// The program: this test, started by the other one, without which it does nothing.
#[test]
fn the_program() {
    let (Ok(url), Ok(folder)) = (env::var("KILLED_URL"), env::var("KILLED_FOLDER")) else {
        return;
    };
    let round = env::var("KILLED_ROUND").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let outbox = Outbox::open(folder).unwrap();
        let backoff = Backoff {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(50),
        };
        let left = outbox.unfinished().unwrap();
        let options = Options::from_url(&url)
            .unwrap()
            .client_id("killed")
            .session_expiry_interval(3600)
            .reconnect(backoff)
            .outbox(outbox);
        let client = Client::start(options);
        say("started");
        if round == "last" {
            for left in left {
                left.receipt.await.unwrap();
            }
            client.disconnect().await.unwrap();
            say("finished");
            return;
        }
        for number in 0.. {
            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][number % 2];
            let name = format!("{qos:?} {round}.{number}");
            let message = Message::new("t/x", name.clone()).unwrap().qos(qos);
            let receipt = client.publish(message).await.unwrap();
            say(&format!("stored {name}"));
            tokio::spawn(async move {
                receipt.await.unwrap();
                say(&format!("complete {name}"));
            });
        }
    });
}

/// A line at once, apart from what the test runner says.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Who reads may be gone.
    let _ = writeln!(out, "\n: {line}");
    let _ = out.flush();
}

/// Starts the program and reads its lines until `end` says that it is enough; then kills it.
fn run(url: &str, folder: &str, round: &str, mut each: impl FnMut(&str) -> bool) {
    let mut program = Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed::the_program", "--nocapture"])
        .env("KILLED_URL", url)
        .env("KILLED_FOLDER", folder)
        .env("KILLED_ROUND", round)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    for line in lines {
        if let Some(line) = line.unwrap().strip_prefix(": ")
            && each(line)
        {
            break;
        }
    }
    // SIGKILL.
    let _ = program.kill();
    program.wait().unwrap();
}

#[tokio::test]
async fn a_program_that_is_killed_loses_nothing() {
    let folder = folder();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let broker = Broker::new(Config::default());
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            broker.serve(stream, peer);
        }
    });
    let options = Options::from_url(&url).unwrap();
    let watcher = Client::connect(options).await.unwrap();
    let filter = Filter::new("t/#").unwrap().qos(QoS::ExactlyOnce);
    let mut arriving = watcher.subscribe(filter).await.unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let program = tokio::task::spawn_blocking(move || {
        let mut stored = Vec::new();
        for round in 0..ROUNDS {
            let mut left = 20 + 37 * round;
            run(&url, &path, &round.to_string(), |line| {
                stored.extend(line.strip_prefix("stored ").map(str::to_owned));
                left -= 1;
                left == 0
            });
        }
        let mut has_finished = false;
        run(&url, &path, "last", |line| {
            has_finished = line == "finished";
            has_finished
        });
        assert!(has_finished, "it could not finish what was left");
        stored
    });
    let stored = program.await.unwrap();
    // Behind everything else.
    let end = Message::new("t/end", "end").unwrap().qos(QoS::ExactlyOnce);
    watcher.publish(end).await.unwrap().await.unwrap();
    let mut counts: HashMap<String, usize> = HashMap::new();
    loop {
        let message = arriving.recv().await.unwrap();
        if message.topic() == "t/end" {
            break;
        }
        let name = String::from_utf8_lossy(message.payload()).into_owned();
        *counts.entry(name).or_default() += 1;
    }
    assert!(stored.len() > 100, "only {} were stored", stored.len());
    for name in &stored {
        assert!(counts.contains_key(name), "{name} was stored and is lost");
    }
    for (name, count) in &counts {
        assert!(
            *count == 1 || name.starts_with("AtLeastOnce"),
            "{name} came {count} times"
        );
    }
}
