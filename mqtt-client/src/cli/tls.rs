//! TLS from its options: whom to trust, and who this client is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mqtt_client::Tls;
use tokio_rustls::rustls::KeyLog;

use super::UsageError;
use super::args::{TlsArgs, TlsVersion};

/// Bytes of a file of certificates; a bundle of all authorities there are has a quarter of a million.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// The settings of TLS.
pub(crate) fn settings(args: &TlsArgs) -> Result<Tls, UsageError> {
    let mut tls = Tls::new();
    if let Some(path) = &args.cafile {
        let pem = read("--cafile", path)?;
        tls = tls.trust_pem(&pem).map_err(|error| {
            UsageError(format!("Error: --cafile '{}': {error}.", path.display()))
        })?;
    }
    if let Some(folder) = &args.capath {
        tls = trust_folder(tls, folder)?;
    }
    if args.tls_use_os_certs {
        tls = tls.trust_system(true);
    }
    if let (Some(certificate), Some(key)) = (&args.cert, &args.key) {
        let (chain, secret) = (read("--cert", certificate)?, read("--key", key)?);
        tls = tls
            .identity_pem(&chain, &secret)
            .map_err(|error| UsageError(format!("Error: {error}.")))?;
    }
    if args.tls_version == Some(TlsVersion::Tls13) {
        tls = tls.only_tls13();
    }
    if let Some(protocol) = &args.tls_alpn {
        if !(1..=255).contains(&protocol.len()) {
            return Err(UsageError(
                "Error: The protocol of --tls-alpn must have 1 to 255 bytes.".to_owned(),
            ));
        }
        tls = tls.alpn(protocol.as_str());
    }
    if let Some(path) = &args.tls_keylog {
        let log =
            KeyLogFile::open(path).map_err(|error| unreadable("--tls-keylog", path, &error))?;
        tls = tls.key_log(Arc::new(log));
    }
    if args.insecure {
        tls = tls.danger_accept_any_name();
    }
    tls.check()
        .map_err(|error| UsageError(format!("Error: {error}.")))?;
    Ok(tls)
}

fn unreadable(option: &str, path: &Path, error: &io::Error) -> UsageError {
    UsageError(format!(
        "Error: Unable to open {option} '{}': {error}.",
        path.display()
    ))
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, UsageError> {
    let failed = |error| unreadable(option, path, &error);
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LARGEST_FILE)
        .read_to_end(&mut content)
        .map_err(failed)?;
    Ok(content)
}

/// Trusts what the files of the folder hold; files that hold no certificate are passed over.
fn trust_folder(mut tls: Tls, folder: &Path) -> Result<Tls, UsageError> {
    let failed = |error| unreadable("--capath", folder, &error);
    let mut found = false;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !path.is_file() {
            continue;
        }
        if let Ok(more) = tls.clone().trust_pem(&read("--capath", &path)?) {
            tls = more;
            found = true;
        }
    }
    if !found {
        return Err(UsageError(format!(
            "Error: No file of --capath '{}' holds a certificate.",
            folder.display()
        )));
    }
    Ok(tls)
}

/// The file of `--tls-keylog`, in the format of NSS.
#[derive(Debug)]
struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // Who can read it can read what is sent.
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        Ok(Self(Mutex::new(file)))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = String::from(label);
        for bytes in [client_random, secret] {
            line.push(' ');
            for byte in bytes {
                line.push_str(&format!("{byte:02x}"));
            }
        }
        line.push('\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The connection is worth more than its log.
        let _ = file.write_all(line.as_bytes());
    }
}
