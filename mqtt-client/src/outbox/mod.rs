//! The outbox on disk: messages of QoS 1 and 2 that survive the process.

mod clock;
mod disk;
mod keeper;
mod log;
mod record;
mod round;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use tokio::sync::oneshot;

use self::clock::WallClock;
pub(crate) use self::keeper::{Desk, Keeper};
use self::log::Log;
use self::writer::Writer;
use crate::{Message, Receipt};

/// Bytes of the messages in an outbox, unless told otherwise.
const CAPACITY: u32 = 64 << 20;

/// A directory in which the messages of QoS 1 and 2 that a client publishes are kept until they are complete,
/// so that they survive the program: set it with [`Options::outbox`](crate::Options::outbox).
///
/// - [`publish`](crate::Client::publish) returns when the message is on the disk, synced, together with those
///   of other tasks; [`Receipt::stored`] tells it for [`try_publish`](crate::Client::try_publish). A message is
///   on the disk before its PUBLISH leaves.
/// - After a restart with the same Client Identifier the session goes on: what was sent at QoS 1 is sent
///   again with DUP, an exchange at QoS 2 goes on where it was, and identifiers of QoS 2 messages that were
///   received are known. If the server has lost the session meanwhile, a message of QoS 1 is published anew,
///   and one of QoS 2 as [`Uncertain`](crate::Uncertain) says.
/// - [`unfinished`](Self::unfinished) gives the messages that an earlier run left, each with a [`Receipt`].
/// - The messages in it have a bound in bytes: `publish` waits for room, `try_publish` gives the message back.
///   They are in memory too.
/// - A write without room on the disk fails the `publish` that it was for, and that alone. After any other
///   error the client ends with [`Error::Outbox`](crate::Error::Outbox): nobody knows what the disk has.
///
/// The directory is locked against other processes. Each record of its file has a checksum; what is not whole at
/// the end is cut off and reported ([`damage`](Self::damage)). What the file no longer needs is left out when that
/// is more than the rest and a mebibyte.
///
/// ```no_run
/// use mqtt_client::{Backoff, Client, Message, Options, Outbox, QoS};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let outbox = Outbox::open("/var/lib/sensor/outbox")?;
/// for unfinished in outbox.unfinished()? {
///     println!("still to be sent: {}", unfinished.message.topic());
/// }
/// let options = Options::new("localhost", 1883)
///     .client_id("sensor-1")
///     .session_expiry_interval(3600)
///     .reconnect(Backoff::default())
///     .outbox(outbox);
/// let client = Client::start(options);
/// let message = Message::new("sensors/1", "21.5")?.qos(QoS::AtLeastOnce);
/// // From here on it arrives, whatever happens to this process.
/// let receipt = client.publish(message).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Handle>);

/// What the clones share.
#[derive(Debug)]
struct Handle {
    writer: Arc<Writer>,
    damage: Option<Damage>,
}

/// The outbox of a client, which does not keep it open.
#[derive(Debug, Clone)]
pub(crate) struct WeakOutbox(Weak<Handle>);

impl WeakOutbox {
    /// Who writes, if it is open.
    pub(crate) fn writer(&self) -> Option<Arc<Writer>> {
        Some(Arc::clone(&self.0.upgrade()?.writer))
    }
}

/// How to open an [`Outbox`].
#[derive(Debug, Clone)]
pub struct OutboxOptions {
    capacity: u32,
    clock: WallClock,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            capacity: CAPACITY,
            clock: WallClock::default(),
        }
    }
}

impl OutboxOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes the messages in it may have, with some 40 for each that are not its own. The file may
    /// have twice as many and a mebibyte. Default: 64 MiB.
    #[must_use]
    pub fn capacity(mut self, bytes: u32) -> Self {
        self.capacity = bytes;
        self
    }

    /// Where it takes the time of the wall clock from, by which a message with a Message Expiry Interval grows older
    /// from one run of the program to the next: for programs whose time is virtual, and for tests of clocks that were
    /// set. Default: the system's. A clock that was set back counts as one that stood still, and while a client runs
    /// its messages grow older by a clock that nobody sets.
    #[must_use]
    pub fn wall_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = WallClock::new(clock);
        self
    }

    /// Opens the directory, which is created if it is missing. Reads all that is in it, and waits for the disk.
    ///
    /// # Errors
    ///
    /// If the directory is in use, is of another format, or cannot be read and written.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Outbox, OutboxError> {
        let (log, damage) = Log::open(path.as_ref())?;
        Ok(self.over(log, damage))
    }

    fn over(&self, log: Log, damage: Option<Damage>) -> Outbox {
        Outbox(Arc::new(Handle {
            writer: Writer::new(log, self.capacity, self.clock.clone()),
            damage,
        }))
    }
}

/// A message that an earlier run of the program left in its [`Outbox`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// The message.
    pub message: Message,
    /// It may have been sent already.
    pub was_sent: bool,
    /// Tells what becomes of it.
    pub receipt: Receipt,
}

/// What was cut off a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// How many bytes. They are in the file `damaged` of the directory.
    pub bytes: u64,
}

impl Outbox {
    /// Opens a directory with the default options.
    ///
    /// # Errors
    ///
    /// As [`OutboxOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OutboxError> {
        OutboxOptions::new().open(path)
    }

    /// The messages that are to be sent, or whose exchange is to be finished, when a client uses the outbox,
    /// oldest first. Reads the disk. If it is called again, the receipts of the later call count.
    ///
    /// # Errors
    ///
    /// If a client has begun to use it, or it cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, OutboxError> {
        let mut unfinished = Vec::new();
        for (stored, was_sent) in self.0.writer.unfinished()? {
            let (sender, receiver) = oneshot::channel();
            self.0.writer.expect(stored.key, sender);
            unfinished.push(Unfinished {
                message: stored.message,
                was_sent,
                receipt: Receipt::of_stored(receiver),
            });
        }
        Ok(unfinished)
    }

    /// How many messages are in it.
    pub fn len(&self) -> usize {
        self.0.writer.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was cut off when it was opened: the end of a write that was under way when the machine or the
    /// process stopped, or whatever a broken disk left.
    pub fn damage(&self) -> Option<Damage> {
        self.0.damage
    }

    pub(crate) fn downgrade(&self) -> WeakOutbox {
        WeakOutbox(Arc::downgrade(&self.0))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.writer.close();
    }
}

/// What goes wrong with an [`Outbox`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum OutboxError {
    /// The disk.
    Io(Arc<io::Error>),
    /// Another process uses the directory, or an outbox of this one that was not dropped.
    Locked,
    /// Another client uses the outbox.
    InUse,
    /// The directory holds something else.
    NotAnOutbox,
    /// It was written by a later version of this library.
    Format {
        /// The version of its format.
        version: u32,
    },
    /// The file is not as it was written.
    Changed,
    /// A message is larger than the outbox may become.
    TooLarge,
}

impl fmt::Display for OutboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Locked => f.write_str("the directory is in use"),
            Self::InUse => f.write_str("another client uses it"),
            Self::NotAnOutbox => f.write_str("the directory holds something else"),
            Self::Format { version } => write!(f, "its format {version} is not known here"),
            Self::Changed => f.write_str("the file was changed by somebody else"),
            Self::TooLarge => f.write_str("the message is larger than its capacity"),
        }
    }
}

impl std::error::Error for OutboxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<io::Error> for OutboxError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
