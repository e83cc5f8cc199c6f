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
[ca]
default_ca = list
[list]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 30
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[leaf]
basicConstraints = CA:FALSE
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
        let mut command = certificates.request("/CN=authority");
        command.args(["-x509", "-extensions", "authority", "-days", "60"]);
        step::quiet(command.args(["-keyout", "ca.key", "-out", "ca.pem"]))?;
        Ok(certificates)
    }

    /// Writes the certificate of `name`, and its key, over those that it had.
    pub(crate) fn sign(&self, name: &str) -> Result<()> {
        self.sign_as(name, &format!("/CN={name}"), "DNS:localhost, IP:127.0.0.1")
    }

    /// The same, with a subject and an alternative name as openssl writes them.
    pub(crate) fn sign_as(&self, name: &str, subject: &str, alternative: &str) -> Result<()> {
        fs::write(
            self.file("openssl.cnf"),
            format!("{CONFIGURATION}subjectAltName = {alternative}\n"),
        )?;
        let [key, request, certificate] =
            ["key", "csr", "pem"].map(|ending| format!("{name}.{ending}"));
        step::quiet(
            self.request(subject)
                .args(["-keyout", &key, "-out", &request]),
        )?;
        let mut command = self.openssl();
        command.args(["x509", "-req", "-in", &request, "-out", &certificate]);
        command.args(["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]);
        // More than 30, from which on the broker warns.
        command.args(["-days", "50", "-extfile", "openssl.cnf"]);
        step::quiet(command.args(["-extensions", "leaf"]))
    }

    /// Revokes the certificate of `name`, and writes a list of what is revoked.
    pub(crate) fn revoke(&self, name: &str, list: &str) -> Result<()> {
        fs::write(self.file("index.txt"), "")?;
        // With a number the list is of version 2, which is what TLS libraries read.
        fs::write(self.file("crlnumber"), "01")?;
        let authority = || {
            let mut command = self.openssl();
            command.args(["ca", "-config", "openssl.cnf", "-batch"]);
            command.args(["-cert", "ca.pem", "-keyfile", "ca.key"]);
            command
        };
        step::quiet(authority().args(["-revoke", &format!("{name}.pem")]))?;
        step::quiet(authority().args(["-gencrl", "-out", list]))
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
    fn request(&self, subject: &str) -> Command {
        let mut command = self.openssl();
        command.args(["req", "-new", "-config", "openssl.cnf", "-nodes"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-subj", subject]);
        command
    }
}
