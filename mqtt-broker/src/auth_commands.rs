//! The commands `mqtt-broker passwd` and `mqtt-broker acl`: files of users and of permissions.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use mqtt_broker::Address;
use mqtt_broker::auth::{
    Action, HashKind, Permissions, hash_passwords, new_password_file, password_line, remove_user,
    set_password,
};
use mqtt_broker::settings::Loaded;
use mqtt_codec::QoS;
use zeroize::Zeroizing;

/// Exit code of `acl test` for what is denied.
const DENIED: u8 = 1;

#[derive(Debug, Args)]
pub(crate) struct PasswordCommand {
    /// Password file; made if it does not exist. With --create also `-`, standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The user.
    #[arg(value_name = "USER", required_unless_present = "upgrade")]
    user: Option<String>,

    /// The password, with --batch.
    #[arg(value_name = "PASSWORD", requires = "batch")]
    password: Option<String>,

    /// Remove the user instead.
    #[arg(long, short = 'D', conflicts_with_all = ["create", "batch", "upgrade"])]
    delete: bool,

    /// Begin a new file: whoever is in it is in it no more.
    #[arg(long, short = 'c', conflicts_with = "upgrade")]
    create: bool,

    /// Take the password from the command line, where other users of the machine may see it.
    #[arg(long, short = 'b', requires = "password")]
    batch: bool,

    /// Hash the passwords of a file in which they stand as they are; what is hashed already stays.
    #[arg(long, short = 'U', conflicts_with = "user")]
    upgrade: bool,

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
        let is_stdout = self.file.as_os_str() == "-";
        if is_stdout && !self.create {
            bail!(
                "`-` is standard output, where a file can only be begun: add --create, or say ./-"
            );
        }
        let Some(user) = &self.user else {
            let count = hash_passwords(&self.file, self.hash.into())?;
            println!("{}: {count} passwords hashed", self.file.display());
            return Ok(ExitCode::SUCCESS);
        };
        if self.delete {
            remove_user(&self.file, user)?;
            return Ok(ExitCode::SUCCESS);
        }
        let password = match &self.password {
            Some(password) if password.is_empty() => bail!("the password is empty"),
            Some(password) => Zeroizing::new(password.clone()),
            None => read_password()?,
        };
        if is_stdout {
            println!(
                "{}",
                password_line(user, password.as_bytes(), self.hash.into())?
            );
            return Ok(ExitCode::SUCCESS);
        }
        let set = match self.create {
            true => new_password_file,
            false => set_password,
        };
        set(&self.file, user, password.as_bytes(), self.hash.into())?;
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
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    acl_file: Option<PathBuf>,

    /// Configuration file that names the file of permissions.
    #[arg(long, value_name = "FILE", conflicts_with = "acl_file")]
    config: Option<PathBuf>,

    /// Listener of the configuration that the client comes through. Without it: what the section auth says.
    #[arg(long, value_name = "ADDRESS", requires = "config")]
    listener: Option<Address>,

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

    /// QoS of the message, or that the subscription asks for.
    #[arg(long, default_value = "0", value_parser = quality)]
    qos: QoS,

    /// The message is to be retained.
    #[arg(long)]
    retain: bool,
}

fn quality(text: &str) -> Result<QoS, &'static str> {
    match text {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        "2" => Ok(QoS::ExactlyOnce),
        _ => Err("a QoS is 0, 1 or 2"),
    }
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
        if self.retain && !matches!(self.action, Act::Publish) {
            bail!("--retain is of a message that is published");
        }
        let Some(file) = self.permissions()? else {
            println!("yes: without an `acl_file` everything is allowed");
            return Ok(ExitCode::SUCCESS);
        };
        let explanation = Permissions::read(&file)?
            .explain(
                self.user.as_deref(),
                &self.client,
                self.action.into(),
                &self.topic,
            )
            .with_context(|| format!("--topic {:?}", self.topic))?;
        let Some(most) = explanation.allowed else {
            println!("{explanation}");
            return Ok(ExitCode::from(DENIED));
        };
        let is_publish = matches!(self.action, Act::Publish);
        if is_publish && !explanation.allows(self.qos, self.retain) {
            let what = match self.qos > most {
                true => format!("at QoS {} at most", most as u8),
                false => "not retained".to_owned(),
            };
            let rule = explanation.rule.unwrap_or_default();
            println!("no, {what}: {rule}");
            return Ok(ExitCode::from(DENIED));
        }
        if self.qos > most {
            let rule = explanation.rule.unwrap_or_default();
            println!("yes, at QoS {}: {rule}", most as u8);
        } else {
            println!("{explanation}");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The file of permissions that holds; none: there is none.
    fn permissions(&self) -> Result<Option<PathBuf>> {
        let Some(config) = &self.config else {
            return Ok(self.acl_file.clone());
        };
        let loaded = Loaded::read(config).map_err(|problem| anyhow!("{problem}"))?;
        let settings = &loaded.settings;
        let auth = match &self.listener {
            None => &settings.auth,
            Some(address) => {
                let mut listeners = settings.listener.iter();
                let found = listeners.find(|one| one.address.as_ref() == Some(address));
                let found = found.with_context(|| {
                    format!("--listener {address}: {} has none", config.display())
                })?;
                found.auth.as_ref().unwrap_or(&settings.auth)
            }
        };
        if auth
            .http
            .as_ref()
            .is_some_and(|http| http.topic_url.is_some())
        {
            eprintln!("what is allowed here is asked of the `topic_url` as well");
        }
        Ok(auth.acl_file.as_deref().map(|file| loaded.resolve(file)))
    }
}
