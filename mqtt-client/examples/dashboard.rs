//! A dashboard in the terminal: the last message of each topic below a filter, and how many came.
//!
//! `cargo run --example dashboard -- mqtt://localhost 'sensors/#'`; stop it with Ctrl-C.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use mqtt_client::{Backoff, Client, Event, Filter, Message, Options};

/// Topics that are shown; further ones are only counted.
const ROWS: usize = 30;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "mqtt://localhost".to_owned());
    let filter = arguments.next().unwrap_or_else(|| "#".to_owned());
    let mut screen = io::stdout();
    tokio::select! {
        outcome = watch(&url, &filter, &mut screen) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// What is shown.
#[derive(Default)]
struct Board {
    rows: BTreeMap<String, (u64, String)>,
    others: u64,
    state: String,
}

impl Board {
    fn take(&mut self, message: &Message) {
        let is_new = !self.rows.contains_key(message.topic());
        if is_new && self.rows.len() >= ROWS {
            self.others += 1;
            return;
        }
        let text = String::from_utf8_lossy(message.payload());
        // What came from elsewhere must not move the cursor.
        let text: String = text.chars().take(40).filter(|c| !c.is_control()).collect();
        let row = self.rows.entry(message.topic().to_owned()).or_default();
        row.0 += 1;
        row.1 = text;
    }

    fn draw(&self) -> String {
        let mut screen = format!("\x1b[2J\x1b[H{}\n\n", self.state);
        for (topic, (count, text)) in &self.rows {
            let topic: String = topic.chars().filter(|c| !c.is_control()).collect();
            let _ = writeln!(screen, "{topic:<40} {count:>8}  {text}");
        }
        let _ = writeln!(screen, "\n{} messages of other topics", self.others);
        screen
    }
}

/// Draws four times a second where something has changed.
pub(crate) async fn watch(
    url: &str,
    filter: &str,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let client = Client::start(Options::from_url(url)?.reconnect(Backoff::default()));
    let mut events = client.events();
    let mut messages = client.subscribe(Filter::new(filter)?).await?;
    let mut board = Board::default();
    let mut has_changed = true;
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => board.take(&message),
                None => return Ok(client.closed().await?),
            },
            event = events.next() => board.state = match event {
                Some(Event::Connected(server)) => format!("connected as {}", server.client_id),
                Some(Event::Disconnected(error)) => format!("not connected: {error}"),
                Some(_) => continue,
                None => return Ok(client.closed().await?),
            },
            _ = ticks.tick() => {
                if std::mem::take(&mut has_changed) {
                    out.write_all(board.draw().as_bytes())?;
                    out.flush()?;
                }
                continue;
            }
        }
        has_changed = true;
    }
}
