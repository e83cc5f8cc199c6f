//! The servers that are measured beside each other: this broker, Mosquitto, rumqttd and a relay.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::generator::Programs;
use crate::{
    install::{self, NotInstalled},
    interop::transports::certificates::Certificates,
    process::Running,
    step,
};

/// How long a server may take to serve, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often one that says nothing is asked whether it serves.
const POLL: Duration = Duration::from_millis(5);
/// Where Debian keeps programs that are not for every user.
const SYSTEM_PROGRAMS: &str = "/usr/sbin";
/// What is installed where rumqttd is asked for.
const RUMQTTD: &str = "0.20.0";

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Ours,
    /// This broker without a store.
    InMemory,
    Mosquitto,
    Rumqttd,
    Relay,
}

impl Peer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::InMemory => "ours, in memory",
            Self::Mosquitto => "Mosquitto",
            Self::Rumqttd => "rumqttd",
            Self::Relay => "relay",
        }
    }
}

/// What the connections of a load go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Tcp,
    Tls,
    WebSocket,
}

/// A server that serves.
pub(super) struct Server {
    process: Running,
    pub(super) address: SocketAddr,
    /// From the start of the process until it served.
    pub(super) start: Duration,
    /// What the generator is told besides, to reach it.
    pub(super) arguments: Vec<String>,
}

impl Server {
    /// Starts it with its files in `folder`, which is emptied.
    pub(super) fn start(
        peer: Peer,
        over: Over,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let (files, arguments) = match over {
            Over::Tcp => (None, Vec::new()),
            Over::WebSocket => (None, vec!["--ws".to_owned()]),
            Over::Tls => {
                let certificates = Certificates::new(folder)?;
                certificates.sign("server")?;
                let [authority, certificate, key] =
                    ["ca.pem", "server.pem", "server.key"].map(|name| certificates.file(name));
                let authority = authority.display().to_string();
                (
                    Some((certificate, key)),
                    vec!["--cafile".to_owned(), authority],
                )
            }
        };
        let files = files
            .as_ref()
            .map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let began = Instant::now();
        let deadline = began + PATIENCE;
        let mut command = match peer {
            Peer::Ours | Peer::InMemory => Command::new(&programs.broker),
            Peer::Relay => Command::new(&programs.client),
            Peer::Mosquitto => Command::new(mosquitto().context("there is no mosquitto")?),
            Peer::Rumqttd => Command::new(rumqttd().context("there is no rumqttd")?),
        };
        let told = match peer {
            Peer::Ours | Peer::InMemory => {
                let file = folder.join("mqtt-broker.toml");
                fs::write(&file, our_file(over, files))?;
                command.arg("--config").arg(file);
                command.args(["--log-level", "warn"]);
                if peer == Peer::InMemory {
                    command.arg("--in-memory");
                } else {
                    command.arg("--data-dir").arg(folder.join("data"));
                }
                None
            }
            Peer::Relay => {
                command.args(["bench", "relay", "--host", "127.0.0.1", "--port", "0"]);
                None
            }
            Peer::Mosquitto => {
                let address = free_address()?;
                let file = folder.join("mosquitto.conf");
                fs::write(&file, mosquitto_file(address, over, files)?)?;
                command.arg("-c").arg(file);
                Some(address)
            }
            Peer::Rumqttd => {
                let address = free_address()?;
                let file = folder.join("rumqttd.toml");
                fs::write(&file, rumqttd_file(address))?;
                command.arg("-c").arg(file);
                Some(address)
            }
        };
        let mut process = Running::start(&mut command, None)?;
        let address = match told {
            Some(address) => {
                while TcpStream::connect(address).is_err() {
                    if Instant::now() > deadline {
                        bail!("{} does not serve {address}", peer.name());
                    }
                    thread::sleep(POLL);
                }
                address
            }
            None => process.wait_for(deadline, "a line `listening on ...`", |line| {
                let (_, place) = line.strip_prefix("listening on ")?.split_once("://")?;
                place.split('/').next()?.parse().ok()
            })?,
        };
        Ok(Self {
            process,
            address,
            start: began.elapsed(),
            arguments,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory, in KiB.
    pub(super) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let text = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS in /proc/PID/status")?;
        Ok(text.parse()?)
    }

    /// Ends it; a server that does not obey is killed.
    pub(super) fn end(mut self) {
        let soon = Instant::now() + PATIENCE;
        if self.process.terminate(soon).is_err() {
            drop(self.process);
        }
    }
}

/// One listener; `files` are certificate and key.
fn our_file(over: Over, files: Option<(&Path, &Path)>) -> String {
    let mut text = "[[listener]]\naddress = \"127.0.0.1:0\"\n".to_owned();
    if let Some((certificate, key)) = files {
        text += &format!("[listener.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    }
    if over == Over::WebSocket {
        text += "[listener.websocket]\n";
    }
    text
}

fn mosquitto_file(
    address: SocketAddr,
    over: Over,
    files: Option<(&Path, &Path)>,
) -> Result<String> {
    let mut text = "allow_anonymous true\nlog_type error\n".to_owned();
    if over == Over::WebSocket {
        // It ends if it has WebSocket alone. The domain keeps it off other interfaces.
        let other = free_address()?;
        text += &format!("listener {} {}\n", other.port(), other.ip());
    }
    text += &format!("listener {} {}\n", address.port(), address.ip());
    if let Some((certificate, key)) = files {
        let (certificate, key) = (certificate.display(), key.display());
        text += &format!("certfile {certificate}\nkeyfile {key}\n");
        // As the user that it changes to it could not read the key.
        text += "user root\n";
    }
    if over == Over::WebSocket {
        text += "protocol websockets\nsocket_domain ipv4\n";
    }
    Ok(text)
}

/// As its own example is, with room for the connections of the loads.
fn rumqttd_file(address: SocketAddr) -> String {
    format!(
        "id = 0\n\
         [router]\n\
         id = 0\n\
         max_connections = 20010\n\
         max_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\n\
         max_segment_count = 10\n\
         [v4.1]\n\
         name = \"v4-1\"\n\
         listen = \"{address}\"\n\
         next_connection_delay_ms = 0\n\
         [v4.1.connections]\n\
         connection_timeout_ms = 60000\n\
         max_payload_size = 1048576\n\
         max_inflight_count = 100\n\
         dynamic_filters = true\n"
    )
}

/// A port that was free a moment ago, for servers that do not choose one themselves.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn mosquitto() -> Option<PathBuf> {
    install::find("mosquitto").or_else(|| {
        let path = Path::new(SYSTEM_PROGRAMS).join("mosquitto");
        path.is_file().then_some(path)
    })
}

fn rumqttd() -> Option<PathBuf> {
    install::find("rumqttd").or_else(|| {
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        let path = home.join("bin/rumqttd");
        path.is_file().then_some(path)
    })
}

/// Sees to it that Mosquitto is there. Where the package starts it as a service of the system, that is
/// stopped again; one that ran before is left alone.
pub(super) fn install_mosquitto() -> Result<(), NotInstalled> {
    if mosquitto().is_some() {
        return Ok(());
    }
    let ran_before = runs("mosquitto");
    install::debian_package("mosquitto", "mosquitto")?;
    if !ran_before && runs("mosquitto") {
        // It costs a little memory if it stays; the measurements have ports of their own.
        if step::quiet(Command::new("service").args(["mosquitto", "stop"])).is_err() {
            println!("the service mosquitto, which apt has started, could not be stopped");
        }
    }
    mosquitto()
        .map(|_| ())
        .ok_or_else(|| NotInstalled::new("mosquitto", "not in the package mosquitto"))
}

/// Whether rumqttd is there, or could be installed if that is asked for.
pub(super) fn find_rumqttd(install: bool) -> Result<bool, NotInstalled> {
    if rumqttd().is_none() && install {
        install::cargo_tool_unlocked("rumqttd", RUMQTTD)?;
    }
    Ok(rumqttd().is_some())
}

/// Whether a process of this name runs.
fn runs(name: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        fs::read_to_string(process.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    })
}
