//! The commands `mqtt-broker passwd` and `mqtt-broker acl`: files of users and of permissions.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use mqtt_broker::auth::{Action, HashKind, Permissions, remove_user, set_password};
use zeroize::Zeroizing;

/// Exit code of `acl test` for what is denied.
const DENIED: u8 = 1;

#[derive(Debug, Args)]
pub(crate) struct PasswordCommand {
    /// Password file; made if it does not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The user.
    #[arg(value_name = "USER")]
    user: String,

    /// Remove the user instead.
    #[arg(long, short = 'D')]
    delete: bool,

    /// How the password is kept.
    #[arg(long, short = 'H', value_enum, default_value = "argon2id")]
    hash: Hash,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hash {
    /// argon2id.
    Argon2id,
    /// PBKDF2 of SHA-512, which mosquitto reads as well.
    Sha512Pbkdf2,
    /// The keys of SCRAM-SHA-256.
    #[value(name = "scram-sha-256")]
    ScramSha256,
}

impl From<Hash> for HashKind {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Argon2id => Self::Argon2id,
            Hash::Sha512Pbkdf2 => Self::Sha512Pbkdf2,
            Hash::ScramSha256 => Self::ScramSha256,
        }
    }
}

impl PasswordCommand {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if self.delete {
            remove_user(&self.file, &self.user)?;
        } else {
            let password = read_password()?;
            set_password(
                &self.file,
                &self.user,
                password.as_bytes(),
                self.hash.into(),
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks twice on a terminal, without showing what is typed; else reads a line of standard input.
fn read_password() -> Result<Zeroizing<String>> {
    let password = if io::stdin().is_terminal() {
        let ask = |prompt| rpassword::prompt_password(prompt).context("cannot read the password");
        let password = Zeroizing::new(ask("Password: ")?);
        let again = Zeroizing::new(ask("Again: ")?);
        if password != again {
            bail!("the passwords differ");
        }
        password
    } else {
        let mut line = Zeroizing::new(String::new());
        io::stdin()
            .lock()
            .read_line(&mut line)
            .context("cannot read the password")?;
        Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned())
    };
    if password.is_empty() {
        bail!("the password is empty");
    }
    Ok(password)
}

#[derive(Debug, Subcommand)]
pub(crate) enum AclCommand {
    /// Tell whether a client may do something, and which rule decides. Exits with 0 for yes, 1 for no.
    Test(AclTest),
    /// Read a file of permissions, and warn of rules that do not do what they seem to.
    Check {
        /// File of permissions: TOML if its name ends with .toml, else as mosquitto's acl_file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AclTest {
    /// File of permissions: TOML if its name ends with .toml, else as mosquitto's acl_file.
    #[arg(long, value_name = "FILE")]
    acl_file: PathBuf,

    /// User name; without it, a client that has none.
    #[arg(long)]
    user: Option<String>,

    /// Client identifier.
    #[arg(long, default_value = "")]
    client: String,

    /// Topic, or topic filter to subscribe to.
    #[arg(long)]
    topic: String,

    /// What the client does.
    #[arg(long, value_enum)]
    action: Act,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Act {
    /// Send messages to the topic.
    Publish,
    /// Subscribe to the filter.
    Subscribe,
    /// Get messages of the topic.
    Receive,
}

impl From<Act> for Action {
    fn from(act: Act) -> Self {
        match act {
            Act::Publish => Self::Publish,
            Act::Subscribe => Self::Subscribe,
            Act::Receive => Self::Receive,
        }
    }
}

impl AclCommand {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Test(test) => test.run(),
            Self::Check { file } => {
                let permissions = Permissions::read(file)?;
                for warning in permissions.warnings() {
                    println!("{warning}");
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl AclTest {
    fn run(&self) -> Result<ExitCode> {
        let permissions = Permissions::read(&self.acl_file)?;
        let explanation = permissions
            .explain(
                self.user.as_deref(),
                &self.client,
                self.action.into(),
                &self.topic,
            )
            .with_context(|| format!("--topic {:?}", self.topic))?;
        println!("{explanation}");
        Ok(match explanation.allowed {
            Some(_) => ExitCode::SUCCESS,
            None => ExitCode::from(DENIED),
        })
    }
}
