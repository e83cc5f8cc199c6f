//! Password files: one `user:hash` a line, as mosquitto_passwd writes them.

use core::fmt;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fs, io};

use crate::auth::password::hash::{HashError, HashKind, PasswordHash, ScramKeys, hmac_sha256};

/// Bytes of a user name, and of what follows it: longer than any that a client can send, or a hash be.
const LONGEST_LINE: usize = 128 * 1024;

/// What is wrong with a password file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordFileError {
    /// What the system says.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why it cannot be read or written.
        source: io::Error,
    },
    /// A line that says nothing.
    #[error("{}:{line}: {problem}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// Without anything of the line itself, which may be a secret.
        problem: String,
    },
    /// No user can have this name.
    #[error(
        "a user name has at least one character, and no colon, control character or # in front"
    )]
    UserName,
    /// The password could not be hashed.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
    /// The file has no such user.
    #[error("{}: no such user", .0.display())]
    NoUser(PathBuf),
}

/// What is kept of one user.
pub(crate) struct Entry {
    pub(crate) hash: Arc<PasswordHash>,
    /// The hash as it was written: two that are equal are of the same password.
    pub(crate) text: Arc<str>,
}

/// The users of a file.
pub(crate) struct Passwords {
    users: HashMap<Box<str>, Entry>,
    nobodies: Nobodies,
    decoys: Decoys,
}

/// What passwords of unknown users are compared with. Which user has which is drawn by its name, among as many of each
/// cost as there are known users of it: whoever asks finds unknown names that cost what the known ones cost, as often as
/// among these, and each of them the same each time.
struct Nobodies {
    /// Ordered by how they are written. With each, how many users have these parameters or those before.
    costs: Vec<(usize, Arc<PasswordHash>)>,
    /// Where there is no user at all: there is nothing to hide.
    none: Arc<PasswordHash>,
}

impl Nobodies {
    fn new(users: &HashMap<Box<str>, Entry>) -> Self {
        let mut counts = BTreeMap::<String, (usize, PasswordHash)>::new();
        for entry in users.values() {
            let nobody = entry.hash.of_nobody();
            let count = counts.entry(nobody.to_string()).or_insert((0, nobody));
            count.0 += 1;
        }
        let mut total = 0;
        let costs = counts.into_values().map(|(count, nobody)| {
            total += count;
            (total, Arc::new(nobody))
        });
        Self {
            costs: costs.collect(),
            none: Arc::new(PasswordHash::Sha512 {
                salt: [0; 16].into(),
                hash: [0; 64].into(),
            }),
        }
    }

    fn of(&self, user: &str) -> &Arc<PasswordHash> {
        let Some((total, last)) = self.costs.last() else {
            return &self.none;
        };
        // A part of all users, in steps of 2^-64.
        let [a, b, c, d, e, f, g, h, ..] = hmac_sha256(process_secret(), user.as_bytes());
        let part = u128::from(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        let place = (part * *total as u128) >> 64;
        let found = self.costs.iter().find(|(upto, _)| place < *upto as u128);
        found.map_or(last, |(_, nobody)| nobody)
    }
}

/// What nobody outside of this process can know, so that nobody can compute which cost an unknown name has.
fn process_secret() -> &'static [u8; 32] {
    static SECRET: OnceLock<[u8; 32]> = OnceLock::new();
    SECRET.get_or_init(|| {
        let mut secret = [0; 32];
        if getrandom::fill(&mut secret).is_err() {
            // The standard library seeds its maps where there is no better source either.
            let state = RandomState::new();
            for (place, bytes) in secret.chunks_mut(8).enumerate() {
                bytes.copy_from_slice(&state.hash_one(place).to_be_bytes());
            }
        }
        secret
    })
}

/// What clients are told by which SCRAM begins, when they name a user that there is none of: made of the name,
/// so that whoever asks twice is told the same.
#[derive(Default)]
struct Decoys {
    /// Iterations, and bytes of the salt, of each user with such keys.
    shapes: Vec<(u32, usize)>,
    secret: [u8; 32],
}

impl Decoys {
    fn new(users: &HashMap<Box<str>, Entry>) -> Self {
        let mut shapes = Vec::new();
        let mut keys: Vec<&[u8; 32]> = Vec::new();
        for entry in users.values() {
            if let PasswordHash::Scram(own) = &*entry.hash {
                shapes.push((own.iterations, own.salt.len()));
                keys.push(&own.server_key);
            }
        }
        shapes.sort_unstable();
        keys.sort_unstable();
        let secret = keys
            .iter()
            .fold([0; 32], |secret, key| hmac_sha256(&secret, *key));
        Self { shapes, secret }
    }

    fn keys(&self, user: &str) -> ScramKeys {
        let derived = |what: &[u8]| hmac_sha256(&hmac_sha256(&self.secret, what), user.as_bytes());
        let [choice, ..] = derived(b"choice");
        let count = self.shapes.len().max(1);
        let shape = self.shapes.get(usize::from(choice) % count);
        let (iterations, salt_len) = shape.copied().unwrap_or((4_096, 16));
        let salt = derived(b"salt");
        ScramKeys {
            iterations,
            salt: salt.iter().copied().cycle().take(salt_len).collect(),
            stored_key: derived(b"stored"),
            server_key: derived(b"server"),
        }
    }
}

/// Why a line of a password file is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("not of the form USER:HASH")]
    Form,
    #[error("no user can have this name")]
    UserName,
    #[error("line too long")]
    Long,
    #[error("the user stands in an earlier line as well")]
    Again,
    #[error("the password is empty")]
    NoPassword,
    #[error("{0}")]
    Hash(#[from] HashError),
}

impl Passwords {
    pub(crate) fn read(file: &Path) -> Result<Self, PasswordFileError> {
        let text = read_text(file)?;
        Self::parse(&text).map_err(|(line, error)| PasswordFileError::Line {
            file: file.to_owned(),
            line,
            problem: error.to_string(),
        })
    }

    /// Reads the lines of a file; an error comes with its line.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, LineError)> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let failed = |error| (number + 1, error);
            let Some((user, hash)) = split(line).map_err(failed)? else {
                continue;
            };
            let entry = Entry {
                hash: Arc::new(PasswordHash::parse(hash).map_err(|error| failed(error.into()))?),
                text: hash.into(),
            };
            if users.insert(user.into(), entry).is_some() {
                return Err(failed(LineError::Again));
            }
        }
        Ok(Self {
            decoys: Decoys::new(&users),
            nobodies: Nobodies::new(&users),
            users,
        })
    }

    pub(crate) fn get(&self, user: &str) -> Option<&Entry> {
        self.users.get(user)
    }

    /// Whether a user has keys of SCRAM.
    pub(crate) fn has_scram(&self) -> bool {
        !self.decoys.shapes.is_empty()
    }

    /// The keys of a user and the entry that they stand in. Of a user without any: keys that nobody has.
    pub(crate) fn scram(&self, user: &str) -> (ScramKeys, Option<Arc<str>>) {
        // Made in any case, so that time does not tell who is known.
        let decoy = self.decoys.keys(user);
        match self.users.get(user) {
            Some(Entry { hash, text }) => match &**hash {
                PasswordHash::Scram(keys) => (keys.clone(), Some(Arc::clone(text))),
                _ => (decoy, None),
            },
            None => (decoy, None),
        }
    }

    /// What the password of an unknown user is compared with: it costs what that of a known one may cost, and no password
    /// has it.
    pub(crate) fn nobody(&self, user: &str) -> &Arc<PasswordHash> {
        self.nobodies.of(user)
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}

/// How many users the text of a password file has; `name` is what problems are reported for.
///
/// # Errors
/// A line says nothing.
pub fn count_users(text: &str, name: &Path) -> Result<usize, PasswordFileError> {
    match Passwords::parse(text) {
        Ok(passwords) => Ok(passwords.users.len()),
        Err((line, error)) => Err(PasswordFileError::Line {
            file: name.to_owned(),
            line,
            problem: error.to_string(),
        }),
    }
}

/// User and hash of a line; none if it is empty or a comment.
fn split(line: &str) -> Result<Option<(&str, &str)>, LineError> {
    let line = line.trim_end_matches(['\r', ' ', '\t']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.len() > LONGEST_LINE {
        return Err(LineError::Long);
    }
    let (user, hash) = line.split_once(':').ok_or(LineError::Form)?;
    if !is_user_name(user) {
        return Err(LineError::UserName);
    }
    Ok(Some((user, hash)))
}

fn is_user_name(user: &str) -> bool {
    !user.is_empty()
        && user.len() <= usize::from(u16::MAX)
        && !user.starts_with('#')
        && !user.contains(|c: char| c == ':' || c.is_control())
}

fn read_text(file: &Path) -> Result<String, PasswordFileError> {
    fs::read_to_string(file).map_err(|source| PasswordFileError::Io {
        file: file.to_owned(),
        source,
    })
}

/// Sets the password of a user in a file, which is made if it does not exist. Other lines stay as they are.
///
/// The file is replaced as a whole, and keeps its mode and, where the system allows it, its owner and group. A new one is
/// readable by its owner only. Edits of files of one directory wait for each other.
///
/// # Errors
/// No user can have this name, or what the system says.
pub fn set_password(
    file: &Path,
    user: &str,
    password: &[u8],
    kind: HashKind,
) -> Result<(), PasswordFileError> {
    let new = password_line(user, password, kind)?;
    let edit = Edit::begin(file)?;
    let text = match read_text(file) {
        Err(PasswordFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            String::new()
        }
        text => text?,
    };
    let mut found = false;
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if is_of(line, user) {
            if !found {
                lines.push(&new);
            }
            found = true;
        } else {
            lines.push(line);
        }
    }
    if !found {
        lines.push(&new);
    }
    edit.replace(&lines)
}

/// Writes a file with this user alone, in place of one that may be there.
///
/// # Errors
/// As [`set_password`].
pub fn new_password_file(
    file: &Path,
    user: &str,
    password: &[u8],
    kind: HashKind,
) -> Result<(), PasswordFileError> {
    let line = password_line(user, password, kind)?;
    Edit::begin(file)?.replace(&[&line])
}

/// The line of a user as it stands in a file, without its end.
///
/// # Errors
/// No user can have this name, or the hash cannot be made.
pub fn password_line(
    user: &str,
    password: &[u8],
    kind: HashKind,
) -> Result<String, PasswordFileError> {
    if !is_user_name(user) {
        return Err(PasswordFileError::UserName);
    }
    let hash = PasswordHash::new(kind, password).map_err(PasswordFileError::Hash)?;
    Ok(format!("{user}:{hash}"))
}

/// Hashes the passwords of a file in which they stand as they are, behind the names of the users. Hashes stay; returns
/// how many were none.
///
/// # Errors
/// A line is of no user, what begins like a hash is damaged, or what the system says. Then the file stays as it is.
pub fn hash_passwords(file: &Path, kind: HashKind) -> Result<usize, PasswordFileError> {
    let edit = Edit::begin(file)?;
    let text = read_text(file)?;
    let mut count = 0;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let failed = |error: LineError| PasswordFileError::Line {
            file: file.to_owned(),
            line: number + 1,
            problem: error.to_string(),
        };
        let Some((user, secret)) = split(line).map_err(failed)? else {
            lines.push(line.to_owned());
            continue;
        };
        match PasswordHash::parse(secret) {
            Ok(_) => lines.push(line.to_owned()),
            Err(HashError::Unknown) if secret.is_empty() => {
                return Err(failed(LineError::NoPassword));
            }
            Err(HashError::Unknown) => {
                let hash = PasswordHash::new(kind, secret.as_bytes());
                lines.push(format!("{user}:{}", hash.map_err(PasswordFileError::Hash)?));
                count += 1;
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    edit.replace(&lines)?;
    Ok(count)
}

/// Removes a user from a file.
///
/// # Errors
/// The file has no such user, or what the system says.
pub fn remove_user(file: &Path, user: &str) -> Result<(), PasswordFileError> {
    let edit = Edit::begin(file)?;
    let text = read_text(file)?;
    let lines: Vec<&str> = text.lines().filter(|line| !is_of(line, user)).collect();
    if lines.len() == text.lines().count() {
        return Err(PasswordFileError::NoUser(file.to_owned()));
    }
    edit.replace(&lines)
}

fn is_of(line: &str, user: &str) -> bool {
    !line.starts_with('#') && line.split_once(':').is_some_and(|(own, _)| own == user)
}

/// A file that is about to be replaced. As long as it is, who else wants to replace one of its directory waits: what was
/// read in between would be lost.
struct Edit {
    file: PathBuf,
    /// A link stays one: what it leads to is replaced.
    target: PathBuf,
    directory: PathBuf,
    /// The lock is on the directory, since the file is another one afterwards, and may not be there yet.
    lock: fs::File,
}

impl Edit {
    fn begin(file: &Path) -> Result<Self, PasswordFileError> {
        let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let directory = match target.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
            _ => PathBuf::from("."),
        };
        let lock = fs::File::open(&directory).map_err(|source| PasswordFileError::Io {
            file: file.to_owned(),
            source,
        })?;
        if let Err(error) = lock.lock() {
            // Some file systems of the network have no such locks.
            tracing::warn!(directory = %directory.display(), %error, "cannot keep other edits out");
        }
        Ok(Self {
            file: file.to_owned(),
            target,
            directory,
            lock,
        })
    }

    /// Writes a new file beside the old one and moves it there: whoever reads it sees the old one or the new one.
    fn replace(self, lines: &[&str]) -> Result<(), PasswordFileError> {
        self.try_replace(lines)
            .map_err(|source| PasswordFileError::Io {
                file: self.file,
                source,
            })
    }

    fn try_replace(&self, lines: &[&str]) -> io::Result<()> {
        // Made with mode 0600.
        let mut beside = tempfile::NamedTempFile::new_in(&self.directory)?;
        for line in lines {
            writeln!(beside, "{line}")?;
        }
        if let Ok(old) = fs::metadata(&self.target) {
            self.keep_access(&old, beside.as_file())?;
        }
        beside.as_file().sync_all()?;
        beside.persist(&self.target).map_err(|error| error.error)?;
        self.lock.sync_all()
    }

    /// The broker that reads the file may run as another user than who edits it, or by the group of the file.
    fn keep_access(&self, old: &fs::Metadata, new: &fs::File) -> io::Result<()> {
        let mut mode = old.mode() & 0o777;
        let file = self.target.display();
        if let Err(error) = fchown(new, None, Some(old.gid())) {
            tracing::warn!(%file, %error, "cannot keep the group of the file");
            // Another group is not to have what it had not.
            mode &= !0o070;
        }
        if let Err(error) = fchown(new, Some(old.uid()), None) {
            tracing::warn!(%file, %error, "cannot keep the owner of the file");
        }
        new.set_permissions(fs::Permissions::from_mode(mode))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str) -> (usize, LineError) {
        Passwords::parse(text).err().unwrap()
    }

    #[test]
    fn lines_are_edited_one_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        let kind = HashKind::ScramSha256;
        set_password(&file, "anna", b"one", kind).unwrap();
        set_password(&file, "ben", b"two", kind).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("# staff\n\n{before}")).unwrap();
        set_password(&file, "anna", b"three", kind).unwrap();
        let passwords = Passwords::read(&file).unwrap();
        let verify = |user, password: &[u8]| passwords.get(user).unwrap().hash.verify(password);
        assert!(verify("anna", b"three"));
        assert!(!verify("anna", b"one"));
        assert!(verify("ben", b"two"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# staff\n\nanna:"));
        assert_eq!(text.lines().count(), 4);

        remove_user(&file, "anna").unwrap();
        assert!(Passwords::read(&file).unwrap().get("anna").is_none());
        assert!(matches!(
            remove_user(&file, "anna"),
            Err(PasswordFileError::NoUser(_))
        ));
        // Nothing is left beside it.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_to_the_file_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        let link = directory.path().join("link");
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        set_password(&link, "anna", b"one", HashKind::ScramSha256).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(Passwords::read(&file).unwrap().get("anna").is_some());
    }

    /// A broker that may read the file by its group still may afterwards.
    #[test]
    fn an_edit_keeps_who_may_read_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        let kind = HashKind::ScramSha256;
        fs::write(&file, "ben:two\n").unwrap();
        // Without the right to it the group is the same already.
        let group = match std::os::unix::fs::chown(&file, None, Some(7)) {
            Ok(()) => 7,
            Err(_) => fs::metadata(&file).unwrap().gid(),
        };
        for mode in [0o640, 0o600, 0o444] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let check = || {
                let now = fs::metadata(&file).unwrap();
                assert_eq!((now.mode() & 0o7777, now.gid()), (mode, group));
            };
            hash_passwords(&file, kind).unwrap();
            check();
            set_password(&file, "anna", b"one", kind).unwrap();
            check();
            remove_user(&file, "anna").unwrap();
            check();
            new_password_file(&file, "ben", b"two", kind).unwrap();
            check();
        }
    }

    /// Each of several edits at the same time is in the file, that which makes it included.
    #[test]
    fn edits_at_the_same_time_are_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    for round in 0..4 {
                        let user = format!("user{number}-{round}");
                        set_password(file, &user, b"x", HashKind::ScramSha256).unwrap();
                    }
                    remove_user(file, &format!("user{number}-0")).unwrap();
                });
            }
        });
        assert_eq!(Passwords::read(&file).unwrap().users.len(), 24);
    }

    #[test]
    fn names_that_would_break_the_file_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        for user in ["", "a:b", "a\nb:c", "a\r", "#a", "\0"] {
            let set = set_password(&file, user, b"x", HashKind::ScramSha256);
            assert!(matches!(set, Err(PasswordFileError::UserName)), "{user:?}");
        }
        assert!(!file.exists());
    }

    #[test]
    fn errors_name_the_line_and_no_secret() {
        assert_eq!(problem("# a\n\nanna").0, 3);
        assert_eq!(problem("anna:secret"), (1, HashError::Unknown.into()));
        assert_eq!(problem(":$6$YQ==$YQ=="), (1, LineError::UserName));
        let hash = "$7$1$YQ==$YQ==";
        let twice = format!("anna:{hash}\nanna:{hash}");
        assert_eq!(problem(&twice), (2, LineError::Again));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        fs::write(&file, "ok:$7$1$YQ==$YQ==\nanna:open-sesame\n").unwrap();
        let error = Passwords::read(&file).unwrap_err().to_string();
        assert!(error.ends_with("passwords:2: no password hash: none begins like this one"));
        assert!(!error.contains("open-sesame"));
    }

    /// Unknown users cost what the known ones cost, each the same each time, and as many of them as of those.
    #[test]
    fn nobody_costs_what_known_users_cost() {
        let mut text = String::new();
        for number in 0..20 {
            // The salts and the hashes of those that cost the same differ.
            let (iterations, own) = (if number < 5 { 5_000 } else { 10 }, format!("{number:04}"));
            text.push_str(&format!("user{number}:$7${iterations}${own}${own}\n"));
        }
        let passwords = Passwords::parse(&text).unwrap();
        assert_eq!(passwords.nobodies.costs.len(), 2);
        let mut dear = 0;
        for number in 0..4_000 {
            let name = format!("nobody{number}");
            let nobody = passwords.nobody(&name);
            assert_eq!(nobody, Passwords::parse(&text).unwrap().nobody(&name));
            let known = passwords.users.values();
            assert!(known.map(|it| it.hash.of_nobody()).any(|it| it == **nobody));
            dear += u32::from(matches!(
                **nobody,
                PasswordHash::Pbkdf2 {
                    iterations: 5_000,
                    ..
                }
            ));
        }
        // A quarter, with more than five times the deviation that chance has.
        assert!((850..1_150).contains(&dear), "{dear} of 4,000");
        let empty = Passwords::parse("").unwrap();
        assert!(matches!(**empty.nobody("a"), PasswordHash::Sha512 { .. }));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", lines in "(a:\\$[67]\\$[0-9]{1,3}\\$[A-Z]{4}\\$[A-Z]{4}\n|#?.{0,9}\n){0,5}") {
            let _ = Passwords::parse(&text);
            let _ = Passwords::parse(&lines);
        }
    }
}
