//! Sockets that systemd opens, and what it is told: systemd-socket-activate, and a NOTIFY_SOCKET of our own.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    mosquitto::{Subscriber, port, publish, unix},
    stage::{PATIENCE, Stage},
};
use crate::{interop::peer::Address, process::Running, step};

/// How often systemd wants to hear that the broker is alive.
const WATCHDOG: Duration = Duration::from_millis(400);

/// What a supervisor hears.
struct Supervisor {
    socket: UnixDatagram,
}

impl Supervisor {
    fn new(path: &Path) -> Result<Self> {
        // One of an earlier run.
        _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).with_context(|| path.display().to_string())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Waits until it is told this; what else it is told meanwhile is not looked at.
    fn hears(&self, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 4_096];
        while Instant::now() < deadline {
            let count = self.socket.recv(&mut buffer);
            let count = count.with_context(|| format!("never told {wanted}"))?;
            let text = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
            if text.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
        anyhow::bail!("never told {wanted}")
    }
}

pub(super) fn check(stage: &mut Stage) -> Result<()> {
    let path = stage.folder.join("activated.sock");
    _ = fs::remove_file(&path);
    let notified = stage.folder.join("notify.sock");
    let supervisor = Supervisor::new(&notified)?;
    let file = stage.folder.join("activated.toml");
    fs::write(
        &file,
        "[[listener]]\naddress = \"systemd:0\"\nallow_anonymous = true\n\
         [[listener]]\naddress = \"systemd:1\"\nallow_anonymous = true\n",
    )?;
    // Free now; nobody else is likely to take it in so short a time, and if so, the program says it.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &free.to_string()]).arg("-l").arg(&path);
    command
        .arg("-E")
        .arg(format!("NOTIFY_SOCKET={}", notified.display()));
    command
        .arg("-E")
        .arg(format!("WATCHDOG_USEC={}", WATCHDOG.as_micros()));
    command.arg(&stage.program).arg("--in-memory");
    command.arg("--config").arg(&file);
    let mut activated = Running::start(&mut command, None)?;
    let deadline = Instant::now() + PATIENCE;
    activated.wait_for(deadline, "line `Listening on`", |line| {
        line.contains("activated.sock").then_some(())
    })?;
    // The first connection starts the broker, which takes it as well as those after it.
    let mut subscriber = Subscriber::new(&unix(&path), "5", "activated", 2)?;
    supervisor.hears("READY=1")?;
    let tcp = port(&Address {
        host: free.ip().to_string(),
        port: free.port(),
    });
    for (way, payload) in [(&tcp, "by TCP"), (&unix(&path), "by path")] {
        publish(way, "311", "activated", payload, &[])?;
        subscriber.expect("activated", payload)?;
    }
    subscriber.end()?;
    for _ in 0..3 {
        supervisor.hears("WATCHDOG=1")?;
    }
    let process = activated.id().to_string();
    step::quiet(Command::new("kill").args(["-HUP", &process]))?;
    supervisor.hears("RELOADING=1")?;
    supervisor.hears("READY=1")?;
    step::quiet(Command::new("kill").args(["-TERM", &process]))?;
    supervisor.hears("STOPPING=1")?;
    activated.succeed(Instant::now() + PATIENCE)?;
    ensure!(path.exists(), "the file of systemd's socket is gone");
    Ok(())
}
