//! Drives clients of this workspace's library: commands as lines of JSON on standard input, answers and events on
//! standard output.
//!
//! `cargo xtask interop` builds and starts it; `xtask/src/interop/driver.rs` describes the lines. Everything happens
//! in one thread. A client connects again only when it is told to: what opens its connections waits for that.

mod held;
mod json;

use std::{
    collections::HashMap,
    io::{BufRead as _, Write as _},
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::held::Held;

/// Whatever kept a command from being done.
type Failure = Box<dyn std::error::Error>;

/// Writes one line.
fn say(line: &Value) {
    let mut output = std::io::stdout().lock();
    // Who reads has gone: standard input ends as well.
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (lines, mut commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut clients = HashMap::new();
    while let Some(line) = commands.recv().await {
        let command: Value = match serde_json::from_str(&line) {
            Ok(command) => command,
            Err(error) => return eprintln!("{error}: {line:.200}"),
        };
        if let Err(error) = obey(&command, &mut clients).await {
            say(&json!({"id": command["id"], "error": error.to_string()}));
        }
    }
}

/// Does what one line says.
async fn obey(command: &Value, clients: &mut HashMap<u64, Held>) -> Result<(), Failure> {
    let id = &command["id"];
    let what = command["do"].as_str().unwrap_or_default();
    if what == "reset" {
        for (_, client) in clients.drain() {
            client.abandon();
        }
        say(&json!({"id": id}));
        return Ok(());
    }
    let number = command["client"].as_u64().ok_or("no client")?;
    if what == "connect" {
        let (client, answer) = Held::connect(number, command).await?;
        clients.insert(number, client);
        say(&answer);
        return Ok(());
    }
    let client = clients.get_mut(&number).ok_or("no such client")?;
    match what {
        "reconnect" => client.reconnect(id)?,
        "subscribe" => client.subscribe(command).await?,
        "unsubscribe" => client.unsubscribe(command).await?,
        "publish" => client.publish(command).await?,
        "disconnect" => client.disconnect(command).await?,
        "cut" => client.cut(id)?,
        _ => return Err(format!("{what} is not known").into()),
    }
    Ok(())
}
