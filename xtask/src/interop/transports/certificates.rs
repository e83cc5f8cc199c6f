//! Certificates for the checks, made by openssl: an authority, a server and a client.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::step;

const CONFIGURATION: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = authority
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[leaf]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// A folder of PEM files: `ca.pem`, and `NAME.pem` with `NAME.key` of everybody that the authority signed.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes an authority in the folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        fs::write(folder.join("openssl.cnf"), CONFIGURATION)
            .with_context(|| folder.display().to_string())?;
        let certificates = Self {
            folder: folder.to_owned(),
        };
        let mut command = certificates.request("authority");
        command.args(["-x509", "-extensions", "authority", "-days", "60"]);
        step::quiet(command.args(["-keyout", "ca.key", "-out", "ca.pem"]))?;
        Ok(certificates)
    }

    /// Writes the certificate of `name`, and its key, over those that it had.
    pub(crate) fn sign(&self, name: &str) -> Result<()> {
        let [key, request, certificate] =
            ["key", "csr", "pem"].map(|ending| format!("{name}.{ending}"));
        step::quiet(self.request(name).args(["-keyout", &key, "-out", &request]))?;
        let mut command = self.openssl();
        command.args(["x509", "-req", "-in", &request, "-out", &certificate]);
        command.args(["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]);
        // More than 30, from which on the broker warns.
        command.args(["-days", "50", "-extfile", "openssl.cnf"]);
        step::quiet(command.args(["-extensions", "leaf"]))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn openssl(&self) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(&self.folder);
        command
    }

    /// A new key on a curve, which takes no time to make.
    fn request(&self, name: &str) -> Command {
        let mut command = self.openssl();
        command.args(["req", "-new", "-config", "openssl.cnf", "-nodes"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-subj", &format!("/CN={name}")]);
        command
    }
}
