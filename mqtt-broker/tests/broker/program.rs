//! The program with a configuration: what it prints, what it refuses, and how it changes while it runs.

use core::time::Duration;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use mqtt_codec::{Packet, PacketType, QoS, ReasonCode};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::{Peer, V5, hello, message};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqtt-broker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MQTT_BROKER__") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str], file: &Path) -> Output {
    program().args(arguments).arg(file).output().unwrap()
}

/// A broker that runs as a process.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, log }
    }

    fn address(&mut self, scheme: &str) -> SocketAddr {
        let line = self.lines.next().unwrap().unwrap();
        let rest = line.strip_prefix(&format!("listening on {scheme}://"));
        rest.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(done.success());
    }

    /// Reads the log up to a line with this text.
    fn logged(&mut self, text: &str) -> String {
        let line = self.log.by_ref().map(Result::unwrap);
        let mut line = line.skip_while(|line| !line.contains(text));
        line.next().expect("the log ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(address: SocketAddr) -> Peer {
    Peer::over(TcpStream::connect(address).await.unwrap(), V5)
}

/// CONNACK of a client on a new connection.
async fn answer(address: SocketAddr, client_id: &str) -> (ReasonCode, Option<u32>) {
    let mut peer = connect(address).await;
    peer.send(&Packet::Connect(Box::new(hello(V5, client_id))))
        .await;
    let received = peer.receive().await;
    let connack = received.connack();
    let size = connack.properties.maximum_packet_size;
    (connack.reason_code, size.map(|size| size.get()))
}

fn configuration(text: &str) -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broker.toml");
    fs::write(&file, text).unwrap();
    (directory, file)
}

#[test]
fn check_tells_mistakes_and_oddities() {
    let (_directory, file) =
        configuration("[[listener]]\naddress = \"0.0.0.0:0\"\nallow_anonymous = true");
    let checked = run(&["check", "--config"], &file);
    assert_eq!(checked.status.code(), Some(0));
    let errors = String::from_utf8(checked.stderr).unwrap();
    assert!(errors.contains("warning: anybody"), "{errors}");
    assert!(errors.contains("broker.toml:3:1"), "{errors}");

    let (_directory, file) = configuration("[limits]\nmax_conections = 1");
    for arguments in [&["check", "--config"][..], &["--in-memory", "--config"]] {
        let checked = run(arguments, &file);
        assert_eq!(checked.status.code(), Some(2));
        let errors = String::from_utf8(checked.stderr).unwrap();
        assert!(errors.contains("broker.toml:2:1"), "{errors}");
        assert!(
            errors.contains("did you mean `max_connections`?"),
            "{errors}"
        );
    }
}

#[test]
fn an_imported_configuration_can_be_checked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mosquitto.conf");
    fs::write(&file, "listener 1883 127.0.0.1\nsys_interval 5\n").unwrap();
    let imported = run(&["import", "mosquitto"], &file);
    assert_eq!(imported.status.code(), Some(0));
    let notes = String::from_utf8(imported.stderr).unwrap();
    let expected = format!("{}:2: sys_interval: ", file.display());
    assert!(notes.starts_with(&expected), "{notes}");
    let (_directory, file) = configuration(core::str::from_utf8(&imported.stdout).unwrap());
    assert_eq!(run(&["check", "--config"], &file).status.code(), Some(0));
    let missing = run(&["import", "mosquitto"], Path::new("/does/not/exist"));
    assert_eq!(missing.status.code(), Some(2));
}

/// SIGHUP changes what holds for new connections and drops none; a bad file changes nothing.
#[tokio::test]
async fn sighup_reads_the_configuration_again() {
    let text = |size: u32| {
        format!("[limits]\nmax_packet_size = {size}\n[[listener]]\naddress = \"127.0.0.1:0\"\n")
    };
    let (_directory, file) = configuration(&text(1_000));
    let mut running = Running::start(program().arg("--in-memory").arg("--config").arg(&file));
    let address = running.address("tcp");
    let mut old = connect(address).await;
    old.introduce("old").await;
    assert_eq!(answer(address, "first").await.1, Some(1_000));

    fs::write(&file, text(2_000)).unwrap();
    running.signal("-HUP");
    running.logged("the new configuration holds");
    assert_eq!(answer(address, "second").await.1, Some(2_000));

    fs::write(&file, "[limits]\nmax_packet_size = \"much\"\n").unwrap();
    running.signal("-HUP");
    let line = running.logged("the old one stays");
    assert!(line.contains("error"), "{line}");
    assert_eq!(answer(address, "third").await.1, Some(2_000));

    // Another address: the old one is closed, but not to those who are there.
    let another = text(3_000).replace("127.0.0.1:0", "127.0.0.2:0");
    fs::write(&file, another).unwrap();
    running.signal("-HUP");
    let line = running.logged("listening on tcp://127.0.0.2");
    let (_, new) = line.split_once("tcp://").unwrap();
    running.logged("the new configuration holds");
    assert_eq!(
        answer(new.trim().parse().unwrap(), "fourth").await.1,
        Some(3_000)
    );
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();

    old.subscribe("a", QoS::AtLeastOnce).await;
    old.publish(&message("a", "still here", QoS::AtMostOnce))
        .await;
    old.expect_message("a", "still here", QoS::AtMostOnce).await;
    running.signal("-TERM");
    let ended = running.child.wait().unwrap();
    assert_eq!(ended.code(), Some(0));
}

/// A listener may become one of all addresses at the same port, and of one of them again; where another cannot be bound
/// nothing changes.
#[tokio::test]
async fn a_reload_may_widen_the_address_of_a_listener() {
    let text = |addresses: &[String]| {
        let listener = |address: &String| {
            format!("[[listener]]\naddress = \"{address}\"\nallow_anonymous = true\n")
        };
        addresses.iter().map(listener).collect::<String>()
    };
    let (_directory, file) = configuration(&text(&["127.0.0.1:0".to_owned()]));
    let mut running = Running::start(program().arg("--in-memory").arg("--config").arg(&file));
    let address = running.address("tcp");
    let mut old = connect(address).await;
    old.introduce("old").await;
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], address.port()));
    let wide = format!("0.0.0.0:{}", address.port());

    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = occupied.local_addr().unwrap().to_string();
    fs::write(&file, text(&[wide.clone(), taken])).unwrap();
    running.signal("-HUP");
    running.logged("the old one stays");
    assert!(TcpStream::connect(elsewhere).await.is_err());
    assert_eq!(answer(address, "first").await.0, ReasonCode::SUCCESS);
    drop(occupied);

    fs::write(&file, text(std::slice::from_ref(&wide))).unwrap();
    running.signal("-HUP");
    running.logged("the new configuration holds");
    for reached in [address, elsewhere] {
        assert_eq!(answer(reached, "second").await.0, ReasonCode::SUCCESS);
    }

    fs::write(&file, text(&[address.to_string()])).unwrap();
    running.signal("-HUP");
    running.logged("the new configuration holds");
    assert_eq!(answer(address, "third").await.0, ReasonCode::SUCCESS);
    let closed = async { while TcpStream::connect(elsewhere).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    old.subscribe("a", QoS::AtLeastOnce).await;
}

/// Listeners that take any free port have the same address in the configuration: each keeps its own options, in their
/// order, and one more is one more.
#[tokio::test]
async fn listeners_of_the_same_address_keep_their_order() {
    let text = |sizes: &[u32]| {
        let listener = |size: &u32| {
            format!("[[listener]]\naddress = \"127.0.0.1:0\"\nmax_packet_size = {size}\n")
        };
        sizes.iter().map(listener).collect::<String>()
    };
    let (_directory, file) = configuration(&text(&[1_001, 1_002, 1_003]));
    let mut running = Running::start(program().arg("--in-memory").arg("--config").arg(&file));
    let mut addresses: Vec<_> = (0..3).map(|_| running.address("tcp")).collect();
    for sizes in [[1_001, 1_002, 1_003], [2_001, 2_002, 2_003]] {
        fs::write(&file, text(&sizes)).unwrap();
        running.signal("-HUP");
        running.logged("the new configuration holds");
        for (address, size) in addresses.iter().zip(sizes) {
            assert_eq!(answer(*address, "client").await.1, Some(size));
        }
    }
    let sizes = [3_001, 3_002, 3_003, 3_004];
    fs::write(&file, text(&sizes)).unwrap();
    running.signal("-HUP");
    let line = running.logged("listening on tcp://");
    running.logged("the new configuration holds");
    let (_, added) = line.split_once("tcp://").unwrap();
    addresses.push(added.trim().parse().unwrap());
    for (address, size) in addresses.iter().zip(sizes) {
        assert_eq!(answer(*address, "client").await.1, Some(size));
    }
}

/// What a reload does not change is named; the level of the log is not of it, nor are the permissions of a socket.
#[tokio::test]
async fn a_reload_names_what_it_does_not_change() {
    let (directory, file) = configuration("");
    let socket = directory.path().join("socket");
    let text = |rest: &str, mode: &str| {
        let listener = "[[listener]]\naddress = \"unix:socket\"\n";
        format!("{rest}\n{listener}{mode}\n")
    };
    fs::write(&file, text("", "mode = \"0600\"")).unwrap();
    let mut running = Running::start(program().arg("--in-memory").arg("--config").arg(&file));
    running.lines.next().unwrap().unwrap();
    let mode = || fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);

    let limits = "[limits]\nmax_entering = 3\nstored_window_bytes = 7\n[log]\nformat = \"json\"\nlevel = \"debug\"";
    fs::write(&file, text(limits, "mode = \"0660\"")).unwrap();
    running.signal("-HUP");
    let line = running.logged("next start");
    assert!(
        line.contains("from the next start: log.format, limits.stored_window_bytes"),
        "{line}"
    );
    running.logged("the new configuration holds");
    assert_eq!(mode(), 0o660);

    // Nothing below an error is logged once this holds, which the permissions tell, and then everything again.
    fs::write(&file, text("[log]\nlevel = \"error\"", "mode = \"0600\"")).unwrap();
    running.signal("-HUP");
    let applied = async {
        while mode() != 0o600 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, applied).await.unwrap();
    fs::write(&file, "nothing").unwrap();
    running.signal("-HUP");
    running.logged("SIGHUP");
    loop {
        let line = running.logged("");
        assert!(!line.contains("SIGHUP"), "{line}");
        if line.contains("old one stays") {
            break;
        }
    }
    fs::write(&file, text("", "")).unwrap();
    running.signal("-HUP");
    let line = running.logged("next start");
    assert!(line.contains(": mode of the listener unix:"), "{line}");
}

/// Files that the command line names are watched as well, without a configuration file.
#[tokio::test]
async fn files_of_the_command_line_are_watched() {
    let directory = tempfile::tempdir().unwrap();
    let passwords = directory.path().join("passwords");
    fs::write(&passwords, "").unwrap();
    let mut running = Running::start(
        program()
            .args(["--in-memory", "--listen", "127.0.0.1:0", "--password-file"])
            .arg(&passwords)
            .env("MQTT_BROKER__RELOAD__WATCH", "true"),
    );
    running.address("tcp");
    fs::write(&passwords, "# nobody yet\n").unwrap();
    running.logged("a file has changed");
    running.logged("the new configuration holds");
}

/// Whoever may come from elsewhere is asked who it is, be that said in the file or on the command line.
#[tokio::test]
async fn other_machines_are_served_where_clients_are_asked() {
    let (directory, file) = configuration("[auth]\npassword_file = \"passwords\"");
    fs::write(directory.path().join("passwords"), "").unwrap();
    let everywhere = ["--in-memory", "--listen", "0.0.0.0:0", "--config"];
    let mut running = Running::start(program().args(everywhere).arg(&file));
    let port = running.address("tcp").port();
    let reached = SocketAddr::from(([127, 0, 0, 1], port));
    let refused = ReasonCode::NOT_AUTHORIZED;
    assert_eq!(answer(reached, "client").await.0, refused);
    for open in [
        "",
        "[auth]\npassword_file = \"passwords\"\nallow_anonymous = true",
    ] {
        fs::write(&file, open).unwrap();
        let ended = run(&everywhere, &file);
        assert_eq!(ended.status.code(), Some(2));
        let errors = String::from_utf8(ended.stderr).unwrap();
        assert!(errors.contains("--listen 0.0.0.0:0: anybody"), "{errors}");
    }
}

/// Where the configuration is wrong, nothing that it keeps secret is printed by a check or a start, or logged by a reload.
#[tokio::test]
async fn a_mistake_is_told_without_secrets() {
    let url = "\"http://u:SECRET-1@auth.example.org/?token=SECRET-2\"";
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let (_directory, file) = configuration(listener);
    let mut running = Running::start(program().arg("--in-memory").arg("--config").arg(&file));
    running.address("tcp");
    for (section, place) in [
        (format!("[auth.http]\nurl = {url}\n"), "2:1"),
        (format!("[auth]\nhttp = {url}\n"), "2:8"),
        (format!("[auth.http]\nurls = {url}\n"), "2:1"),
        ("[auth.http]\nurl = \"http://u:SECRET@x/\n".into(), "2:"),
    ] {
        fs::write(&file, format!("{section}{listener}")).unwrap();
        let place = format!("broker.toml:{place}");
        for arguments in [&["check", "--config"][..], &["--in-memory", "--config"]] {
            let refused = run(arguments, &file);
            assert_eq!(refused.status.code(), Some(2));
            let errors = String::from_utf8(refused.stderr).unwrap();
            assert!(errors.contains(&place), "{errors}");
            assert!(!errors.contains("SECRET"), "{errors}");
        }
        running.signal("-HUP");
        running.logged("the old one stays");
        // All that is logged about it, up to what comes next.
        fs::write(&file, listener).unwrap();
        running.signal("-HUP");
        let mut told = String::new();
        loop {
            let line = running.logged("");
            if line.contains("SIGHUP") {
                break;
            }
            told.push_str(&line);
        }
        running.logged("the new configuration holds");
        assert!(told.contains(&place), "{told}");
        assert!(!told.contains("SECRET"), "{told}");
    }
}

/// The environment stands before the file, and the command line before both.
#[tokio::test]
async fn the_order_of_those_who_say_something() {
    let (_directory, file) = configuration(
        "[limits]\nmax_packet_size = 1000\n[[listener]]\naddress = \"192.0.2.1:1\"\nallow_anonymous = true",
    );
    let mut running = Running::start(
        program()
            .args(["--in-memory", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .env("MQTT_BROKER__LIMITS__MAX_PACKET_SIZE", "5 kB"),
    );
    let address = running.address("tcp");
    assert_eq!(answer(address, "client").await.1, Some(5_000));
}

/// A socket of systemd is there for every configuration, whatever became of one that named it before.
#[tokio::test]
async fn a_socket_of_systemd_may_be_opened_again() {
    let listener =
        |address: &str| format!("[[listener]]\naddress = \"{address}\"\nallow_anonymous = true\n");
    let own = listener("127.0.0.1:0");
    let passed = listener("systemd:0");
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener(&occupied.local_addr().unwrap().to_string());
    let (_directory, file) = configuration(&own);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // As the first and only descriptor that is passed.
    let mut running = Running::start(
        program()
            .args(["--in-memory", "--config"])
            .arg(&file)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDS_FIRST_FD", "0")
            .env_remove("LISTEN_PID"),
    );
    running.address("tcp");
    let mut reload = |text: String, expected: &str| {
        fs::write(&file, text).unwrap();
        running.signal("-HUP");
        let line = running.logged("configuration ");
        assert!(line.contains("reading"), "{line}");
        let line = running.logged("configuration ");
        assert!(line.contains(expected), "{line}");
    };
    reload(format!("{own}{passed}{taken}"), "the old one stays");
    for _ in 0..2 {
        reload(format!("{own}{passed}"), "the new configuration holds");
        assert_eq!(answer(address, "client").await.0, ReasonCode::SUCCESS);
        reload(own.clone(), "the new configuration holds");
    }
}

/// What is said to systemd, in the order in which it is said.
#[tokio::test]
async fn systemd_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).trim().to_owned()
    };
    let mut running = Running::start(
        program()
            .args(["--in-memory", "--listen", "127.0.0.1:0"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .env_remove("WATCHDOG_PID"),
    );
    running.address("tcp");
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    assert_eq!(hear(), "WATCHDOG=1");
    running.signal("-TERM");
    let mut last = hear();
    while last == "WATCHDOG=1" {
        last = hear();
    }
    assert_eq!(last, "STOPPING=1");
}

/// An anonymous client is refused where the listener says so.
#[tokio::test]
async fn a_listener_may_refuse_anonymous_clients() {
    let (_directory, file) =
        configuration("[[listener]]\naddress = \"127.0.0.1:0\"\nallow_anonymous = false");
    let mut running = Running::start(program().arg("--in-memory").arg("--config").arg(&file));
    let address = running.address("tcp");
    assert_eq!(
        answer(address, "client").await.0,
        ReasonCode::NOT_AUTHORIZED
    );
}

/// The bound of the data directory and the reserve on the disk can be said on the command line, and before that in
/// the configuration; what a full directory refuses is counted and printed in the end.
#[tokio::test]
async fn the_room_of_the_store_is_set() {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("broker.toml");
    fs::write(
        &config,
        "[limits]\ndata_directory_bytes = \"10 GiB\"\ndisk_reserve_bytes = \"64 KiB\"",
    )
    .unwrap();
    for limited in [false, true] {
        let data = directory.path().join(limited.to_string());
        let mut command = program();
        command
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&config);
        command.arg("--data-dir").arg(&data);
        if limited {
            command.args(["--data-limit", "1 KiB", "--disk-reserve", "8 KiB"]);
        }
        let mut running = Running::start(&mut command);
        let address = running.address("tcp");
        let reserve = fs::metadata(data.join("reserve")).unwrap().len();
        assert_eq!(reserve, if limited { 8 << 10 } else { 64 << 10 });
        let mut peer = connect(address).await;
        peer.introduce("client").await;
        let mut publish = message("t", "kept", QoS::AtLeastOnce);
        publish.retain = true;
        let number = peer.send_publish(&publish).await.unwrap();
        let reason = if limited {
            ReasonCode::QUOTA_EXCEEDED
        } else {
            ReasonCode::NO_MATCHING_SUBSCRIBERS
        };
        peer.expect_ack(PacketType::PubAck, number, reason).await;
        running.signal("-TERM");
        if limited {
            running.logged("directory full");
        }
    }
    // A size that is none is bad usage.
    let refused = program().args(["--data-limit", "much"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
