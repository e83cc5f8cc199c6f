//! One client: its connection, which can be cut, and the tasks that tell what happens to it.

use std::{
    collections::HashMap,
    fs, io,
    net::{Shutdown, TcpStream as Socket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mqtt_client::{
    Backoff, Client, DisconnectOptions, Error, Event, Options, Target, Tls, WebSocket,
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinHandle};

use super::{Failure, json as lines, say};

/// The Reason Code of DISCONNECT that asks for the will.
const WITH_WILL: u64 = 0x04;

/// A client and the way to its connection.
pub(super) struct Held {
    client: Client,
    way: Way,
    asked: Arc<Mutex<Asked>>,
    tasks: Vec<JoinHandle<()>>,
    /// The topics of aliases that commands gave: the library chooses its own.
    aliases: HashMap<u64, Value>,
}

/// Opens connections of plain TCP, each when it is asked for.
#[derive(Clone)]
struct Way {
    permits: Arc<Semaphore>,
    /// The socket of the connection that was opened last.
    socket: Arc<Mutex<Option<Socket>>>,
}

/// The commands whose answers an event gives.
#[derive(Default)]
struct Asked {
    cut: Option<Value>,
    reconnect: Option<Value>,
    /// The connection is not to last.
    is_ending: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    async fn open(self, target: Target) -> io::Result<TcpStream> {
        let permit = self.permits.acquire().await;
        permit.map_err(io::Error::other)?.forget();
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        *lock(&self.socket) = Some(stream.try_clone()?);
        TcpStream::from_std(stream)
    }

    /// Ends the connection under the client.
    fn cut(&self) -> io::Result<()> {
        match lock(&self.socket).take() {
            Some(socket) => socket.shutdown(Shutdown::Both),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Held {
    /// Connects; the client and the answer.
    pub(super) async fn connect(number: u64, command: &Value) -> Result<(Self, Value), Failure> {
        let mut options = lines::options(command)?;
        let way = Way {
            permits: Arc::new(Semaphore::new(1)),
            socket: Arc::default(),
        };
        let secure = command["authority"].as_str().map(secure).transpose()?;
        let is_plain = secure.is_none() && command.get("path").is_none();
        if let Some(tls) = secure {
            options = options.tls(tls);
        }
        if let Some(path) = command["path"].as_str() {
            let mut websocket = WebSocket::new(path);
            if let Some(origin) = command["origin"].as_str() {
                websocket = websocket.header("Origin", origin);
            }
            options = options.websocket(websocket);
        }
        let client = match is_plain {
            true => through(&way, options).await?,
            false => Client::connect(options).await?,
        };
        let asked = Arc::<Mutex<Asked>>::default();
        let name = lines::text(command, "clientId")?.to_owned();
        let answer = lines::connack(&command["id"], &client.server(), &name);
        let tasks = vec![
            tokio::spawn(messages(number, client.clone())),
            tokio::spawn(events(number, client.clone(), Arc::clone(&asked), name)),
        ];
        let held = Self {
            client,
            way,
            asked,
            tasks,
            aliases: HashMap::new(),
        };
        Ok((held, answer))
    }

    /// Lets it connect again; the event answers.
    pub(super) fn reconnect(&self, id: &Value) -> Result<(), Failure> {
        lock(&self.asked).reconnect = Some(id.clone());
        self.way.permits.add_permits(1);
        Ok(())
    }

    /// Cuts its connection; the event answers.
    pub(super) fn cut(&self, id: &Value) -> Result<(), Failure> {
        lock(&self.asked).cut = Some(id.clone());
        Ok(self.way.cut()?)
    }

    pub(super) async fn subscribe(&self, command: &Value) -> Result<(), Failure> {
        let (filters, options) = (lines::filters(command)?, lines::subscribe_options(command)?);
        let codes = self.client.subscribe_unclaimed(filters, options).await?;
        let codes: Vec<u8> = codes.into_iter().map(|code| code.0).collect();
        say(&json!({"id": command["id"], "codes": codes}));
        Ok(())
    }

    pub(super) async fn unsubscribe(&self, command: &Value) -> Result<(), Failure> {
        let filters: Vec<String> = serde_json::from_value(command["filters"].clone())?;
        let codes = self.client.unsubscribe(filters).await?;
        let codes: Vec<u8> = codes.into_iter().map(|code| code.0).collect();
        say(&json!({"id": command["id"], "codes": codes}));
        Ok(())
    }

    /// Queues the messages; the answer comes when their receipts are there.
    pub(super) async fn publish(&mut self, command: &Value) -> Result<(), Failure> {
        let properties = lines::message_properties(&command["properties"])?;
        let payloads = command["payloads"].as_array().ok_or("no payloads")?;
        let mut model = command.clone();
        if let Some(alias) = command["properties"]["topicAlias"].as_u64() {
            match command["topic"].as_str() {
                Some("") => model["topic"] = self.aliases.get(&alias).cloned().unwrap_or_default(),
                _ => drop(self.aliases.insert(alias, command["topic"].clone())),
            }
        }
        let mut receipts = Vec::new();
        for payload in payloads {
            model["payload"] = payload.clone();
            let message = lines::message(&model, properties.clone())?;
            receipts.push(self.client.publish(message).await?);
        }
        let id = command["id"].clone();
        self.tasks.push(tokio::spawn(async move {
            let mut codes = Vec::new();
            for receipt in receipts {
                match receipt.await {
                    Ok(reason) => codes.push(reason.0),
                    Err(error) => return say(&json!({"id": id, "error": error.to_string()})),
                }
            }
            say(&json!({"id": id, "codes": codes}));
        }));
        Ok(())
    }

    pub(super) async fn disconnect(&self, command: &Value) -> Result<(), Failure> {
        lock(&self.asked).is_ending = true;
        let mut options = DisconnectOptions::new();
        if command["code"].as_u64() == Some(WITH_WILL) {
            options = options.with_will();
        }
        let expiry = lines::whole(&command["properties"], "sessionExpiryInterval")?;
        if let Some(seconds) = expiry {
            options = options.session_expiry_interval(seconds);
        }
        self.client.disconnect_with(options).await?;
        lock(&self.way.socket).take();
        say(&json!({"id": command["id"]}));
        Ok(())
    }

    /// Breaks the connection; nothing is told of this client any more.
    pub(super) fn abandon(self) {
        for task in &self.tasks {
            task.abort();
        }
        // There may be none.
        let _ = self.way.cut();
        // One that is not plain cannot be cut: it is left without waiting.
        tokio::spawn(async move {
            let options = DisconnectOptions::new().drain(Duration::ZERO);
            let _ = self.client.disconnect_with(options).await;
        });
    }
}

/// Trust in the authority of this file, and in no other.
fn secure(authority: &str) -> Result<Tls, Failure> {
    let tls = Tls::new().trust_pem(&fs::read(authority)?)?;
    Ok(tls.trust_system(false))
}

async fn through(way: &Way, options: Options) -> Result<Client, Error> {
    let way = way.clone();
    let backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(1),
    };
    // What opens the connection may wait as long as it likes.
    let options = options
        .reconnect(backoff)
        .connect_timeout(Duration::from_secs(3600));
    Client::connect_through(move |target| way.clone().open(target), options).await
}

async fn messages(number: u64, client: Client) {
    let mut incoming = client.unclaimed();
    while let Some(message) = incoming.recv().await {
        say(&lines::received(number, &message));
    }
}

async fn events(number: u64, client: Client, asked: Arc<Mutex<Asked>>, name: String) {
    let mut events = client.events();
    while let Some(event) = events.next().await {
        match event {
            Event::Connected(server) => {
                if let Some(id) = lock(&asked).reconnect.take() {
                    say(&lines::connack(&id, &server, &name));
                }
            }
            Event::Disconnected(error) => ended(number, &asked, &error),
            _ => {}
        }
    }
    if let Err(error) = client.closed().await {
        ended(number, &asked, &error);
    }
}

fn ended(number: u64, asked: &Mutex<Asked>, error: &Error) {
    let mut asked = lock(asked);
    if let Some(id) = asked.cut.take() {
        return say(&json!({"id": id}));
    }
    if let Some(id) = asked.reconnect.take() {
        return say(&json!({"id": id, "error": error.to_string()}));
    }
    if asked.is_ending {
        return;
    }
    let code = match error {
        Error::Disconnected { reason, .. } => Some(reason.0),
        _ => None,
    };
    say(&json!({"client": number, "closed": code}));
}
