//! A broker with a listener for each transport, and what its clients need to reach them.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::certificates::Certificates;
use crate::{
    interop::{broker::parse_address, peer::Address},
    process::Running,
    step,
};

/// How long the broker may take to start, to end, and to log what a client did.
pub(in crate::interop) const PATIENCE: Duration = Duration::from_secs(20);

/// The origin of pages that the listener with the allow-list lets in.
pub(super) const ORIGIN: &str = "https://pages.example";

/// The listeners, in the order in which they stand in the configuration; the broker names them in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Plain,
    Tls,
    /// With certificates of clients, whose CN is the user.
    MutualTls,
    WebSocket,
    SecureWebSocket,
    /// Only pages of one origin.
    OneOrigin,
    Proxy,
    /// TLS behind a PROXY header.
    ProxyTls,
    /// Only for users with a password.
    Password,
}

/// The user of the listener that asks for a password.
pub(crate) const USER: &str = "anna";
/// Its password.
pub(crate) const PASSWORD: &str = "anna secret";

const DOORS: [(Door, &str); 9] = [
    (Door::Plain, ""),
    (Door::Tls, "[listener.tls]\nSERVER"),
    (
        Door::MutualTls,
        "[listener.tls]\nSERVERclient_authorities = \"ca.pem\"\n",
    ),
    (Door::WebSocket, "[listener.websocket]\n"),
    (
        Door::SecureWebSocket,
        "[listener.websocket]\npath = \"/secure\"\n[listener.tls]\nSERVER",
    ),
    (
        Door::OneOrigin,
        "[listener.websocket]\norigins = [\"ORIGIN\"]\n",
    ),
    (Door::Proxy, "[listener.proxy]\ntrusted = [\"127.0.0.1\"]\n"),
    (
        Door::ProxyTls,
        "[listener.proxy]\ntrusted = [\"127.0.0.1\"]\n[listener.tls]\nSERVER",
    ),
    (
        Door::Password,
        "[listener.auth]\npassword_file = \"passwords\"\n",
    ),
];

/// The broker, and where it listens.
pub(crate) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) certificates: Certificates,
    pub(super) program: PathBuf,
    broker: Running,
    doors: Vec<(Door, Address)>,
}

impl Stage {
    /// Starts the program, with files in a folder of its own.
    pub(crate) fn new(program: &Path, folder: &Path) -> Result<Self> {
        let folder = folder.join("transports");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // The tests below connect to paths in it: those must not be long, and not be relative.
        let folder = folder.canonicalize()?;
        let certificates = Certificates::new(&folder)?;
        certificates.sign("server")?;
        certificates.sign("client")?;
        set_password(program, &folder.join("passwords"))?;
        let mut text = "[auth]\nallow_anonymous = true\ncertificate_identity = \"cn\"\n".to_owned();
        for (_, section) in DOORS {
            text.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\n");
            text.push_str(section);
        }
        text.push_str("[[listener]]\naddress = \"unix:broker.sock\"\n");
        let text = text.replace("ORIGIN", ORIGIN).replace(
            "SERVER",
            "certificate = \"server.pem\"\nkey = \"server.key\"\n",
        );
        let file = folder.join("broker.toml");
        fs::write(&file, text)?;
        let mut command = Command::new(program);
        command.arg("--in-memory").arg("--config").arg(&file);
        let mut broker = Running::start(&mut command, None)?;
        let mut doors = Vec::new();
        for (door, _) in DOORS {
            doors.push((door, listening(&mut broker)?));
        }
        let deadline = Instant::now() + PATIENCE;
        broker.wait_for(deadline, "line of the unix socket", |line| {
            line.starts_with("listening on unix://").then_some(())
        })?;
        Ok(Self {
            folder,
            certificates,
            program: program.to_owned(),
            broker,
            doors,
        })
    }

    /// Where a door is, as a socket has it.
    pub(crate) fn socket(&self, door: Door) -> Result<SocketAddr> {
        let address = self.address(door)?;
        let mut found = (address.host.as_str(), address.port).to_socket_addrs()?;
        found.next().context("the broker has no address")
    }

    pub(crate) fn address(&self, door: Door) -> Result<&Address> {
        let found = self.doors.iter().find(|(name, _)| *name == door);
        found.map(|(_, address)| address).context("no such door")
    }

    /// The socket in the file system.
    pub(super) fn unix_socket(&self) -> PathBuf {
        self.folder.join("broker.sock")
    }

    /// Waits until the broker logs that a client is connected; the line.
    pub(super) fn connected(&mut self, client_id: &str) -> Result<String> {
        let wanted = format!("client_id={client_id} ");
        let deadline = Instant::now() + PATIENCE;
        self.broker
            .wait_for(deadline, "line of the client", |line| {
                (line.contains("connected") && line.contains(&wanted)).then(|| line.to_owned())
            })
    }

    /// Waits until the broker logs that it has refused a connection for a reason.
    pub(super) fn refused(&mut self, reason: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.broker
            .wait_for(deadline, "line of the refusal", |line| {
                (line.contains("refused") && line.contains(reason)).then_some(())
            })
    }

    /// The identifier of the broker's process.
    pub(crate) fn process_id(&self) -> u32 {
        self.broker.id()
    }

    /// Ends the broker; what it prints in the end, which are its counters.
    pub(crate) fn counters(mut self) -> Result<Vec<String>> {
        // What it logged until now is of no use, and much.
        drop(self.broker.lines_with("refused"));
        let id = self.broker.id().to_string();
        step::quiet(Command::new("kill").args(["-TERM", &id]))?;
        let deadline = Instant::now() + PATIENCE;
        let lines = self.broker.last_lines(deadline);
        self.broker.succeed(deadline)?;
        Ok(lines)
    }

    /// Ends the broker, which must end well, and take the file of its socket with it.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.broker.terminate(Instant::now() + PATIENCE)?;
        ensure!(
            !self.unix_socket().exists(),
            "the file of the socket is still there"
        );
        Ok(())
    }
}

/// Where the next listener of a broker that was started is, as it says.
pub(in crate::interop) fn listening(broker: &mut Running) -> Result<Address> {
    let deadline = Instant::now() + PATIENCE;
    broker.wait_for(deadline, "line of a listener", |line| {
        let (_, address) = line.strip_prefix("listening on ")?.split_once("://")?;
        let host = address.split_once('/').map_or(address, |(host, _)| host);
        Some(parse_address(host))
    })?
}

/// Writes the file of the user, of whom there is one.
fn set_password(program: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("passwd").arg(file).arg(USER);
    let mut setting = Running::start(&mut command, Some(PASSWORD.as_bytes().to_vec()))?;
    setting.succeed(Instant::now() + PATIENCE)
}
