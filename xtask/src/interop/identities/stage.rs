//! A broker with a listener for each way of showing who one is.

use std::{fs, path::Path, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result};

use super::{service::Service, tokens::Keys};
use crate::{
    interop::{
        peer::Address,
        transports::{
            certificates::Certificates,
            stage::{PASSWORD, PATIENCE, USER, listening},
        },
    },
    process::Running,
};

/// Everybody has the topics of their name; `open/#` is for those whom the service lets use it.
const ACL: &str = "\
topic readwrite open/#
pattern readwrite own/%u/#
";

/// The listeners, in the order in which they stand in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Token,
    Service,
    Scram,
    /// The subject of the certificate is the user.
    Subject,
    /// The alternative name of the certificate is the user.
    Alternative,
    /// With a list of revoked certificates.
    Revocation,
}

const DOORS: [(Door, &str); 6] = [
    (
        Door::Token,
        "AUTH[listener.auth.jwt]\njwks_file = \"jwks.json\"\n",
    ),
    (
        Door::Service,
        "AUTH[listener.auth.http]\nurl = \"http://SERVICE/connect\"\ntopic_url = \"http://SERVICE/topic\"\n\
         cache = \"0s\"\ntopic_cache = \"0s\"\n",
    ),
    (Door::Scram, "AUTHpassword_file = \"passwords\"\n"),
    (Door::Subject, "AUTHcertificate_identity = \"dn\"\nTLS"),
    (Door::Alternative, "AUTHcertificate_identity = \"san\"\nTLS"),
    (
        Door::Revocation,
        "AUTHcertificate_identity = \"cn\"\nTLSrevocation_lists = [\"revoked.pem\"]\n",
    ),
];

/// The subject of the certificate of `pump`, as it is given to openssl, and as RFC 4514 writes it.
pub(super) const SUBJECT: (&str, &str) =
    ("/C=DE/O=Works, Inc/CN=pump", "CN=pump,O=Works\\, Inc,C=DE");
/// Its alternative name.
pub(super) const ALTERNATIVE: &str = "pump@works.example";

/// The broker, where it listens, and what its clients need.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) certificates: Certificates,
    pub(super) keys: Keys,
    /// None once it was ended.
    pub(super) service: Option<Service>,
    broker: Running,
    doors: Vec<(Door, Address)>,
}

impl Stage {
    /// Starts the program, with files in a folder of its own.
    pub(super) fn new(program: &Path, folder: &Path) -> Result<Self> {
        let folder = folder.join("identities");
        // Of an earlier run: openssl's list of what is revoked among it.
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let folder = folder.canonicalize()?;
        let certificates = Certificates::new(&folder)?;
        for name in ["server", "good", "stolen"] {
            certificates.sign(name)?;
        }
        certificates.sign_as("pump", SUBJECT.0, &format!("email:{ALTERNATIVE}"))?;
        certificates.revoke("stolen", "revoked.pem")?;
        let keys = Keys::new(&folder)?;
        let service = Service::start()?;
        set_keys(program, &folder.join("passwords"))?;
        fs::write(folder.join("acl"), ACL)?;
        let mut text = String::new();
        for (_, section) in DOORS {
            text.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\n");
            text.push_str(section);
        }
        let text = text
            .replace("AUTH", "[listener.auth]\nacl_file = \"acl\"\n")
            .replace(
                "TLS",
                "[listener.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
                 client_authorities = \"ca.pem\"\n",
            )
            .replace("SERVICE", &service.address.to_string());
        let file = folder.join("broker.toml");
        fs::write(&file, text)?;
        let mut command = Command::new(program);
        command.arg("--in-memory").arg("--config").arg(&file);
        let mut broker = Running::start(&mut command, None)?;
        let mut doors = Vec::new();
        for (door, _) in DOORS {
            doors.push((door, listening(&mut broker)?));
        }
        Ok(Self {
            folder,
            certificates,
            keys,
            service: Some(service),
            broker,
            doors,
        })
    }

    pub(super) fn address(&self, door: Door) -> Result<&Address> {
        let found = self.doors.iter().find(|(name, _)| *name == door);
        found.map(|(_, address)| address).context("no such door")
    }

    /// Waits until the broker logs a line with all of these.
    pub(super) fn logged(&mut self, parts: &[&str]) -> Result<()> {
        let what = format!("line with {parts:?}");
        let deadline = Instant::now() + PATIENCE;
        self.broker.wait_for(deadline, &what, |line| {
            parts.iter().all(|part| line.contains(part)).then_some(())
        })
    }

    /// Ends the broker, which must end well.
    pub(super) fn stop(mut self) -> Result<()> {
        self.broker.terminate(Instant::now() + PATIENCE)
    }
}

/// Writes the file with the keys of SCRAM of the user, of whom there is one.
fn set_keys(program: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(["passwd", "-H", "scram-sha-256"])
        .arg(file)
        .arg(USER);
    let mut setting = Running::start(&mut command, Some(PASSWORD.as_bytes().to_vec()))?;
    setting.succeed(Instant::now() + PATIENCE)
}
