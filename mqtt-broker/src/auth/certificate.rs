//! The user name that a client's certificate stands for. Whether the certificate is good was checked before.

use core::fmt::Write;
use core::str::FromStr;

use serde::Deserialize;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Bytes of the longest user name that a certificate may give, as in CONNECT.
const LONGEST: usize = u16::MAX as usize;

/// What of a certificate is the user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateIdentity {
    /// The Common Name of the subject, of which there must be one.
    Cn,
    /// The whole subject, as RFC 4514 writes it: `CN=pump,O=Works,C=DE`.
    Dn,
    /// The first Subject Alternative Name that is an address of mail, a DNS name or a URI.
    San,
}

impl FromStr for CertificateIdentity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "cn" => Ok(Self::Cn),
            "dn" => Ok(Self::Dn),
            "san" => Ok(Self::San),
            _ => Err("expected cn, dn or san"),
        }
    }
}

impl CertificateIdentity {
    /// The user that a certificate, in DER, names; none if it names nobody that a user may be called.
    pub(crate) fn user(self, certificate: &[u8]) -> Option<String> {
        let (rest, certificate) = X509Certificate::from_der(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let user = match self {
            Self::Cn => common_name(certificate.subject())?.to_owned(),
            Self::Dn => distinguished_name(certificate.subject())?,
            Self::San => alternative_name(&certificate)?.to_owned(),
        };
        let is_name = !user.is_empty() && user.len() <= LONGEST && !user.contains(char::is_control);
        is_name.then_some(user)
    }
}

fn common_name<'a>(subject: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = subject.iter_common_name();
    let name = names.next()?;
    // Of several, whoever reads the certificate elsewhere may take another one.
    match names.next() {
        None => name.as_str().ok(),
        Some(_) => None,
    }
}

/// The parts of the subject, the last one first.
fn distinguished_name(subject: &X509Name<'_>) -> Option<String> {
    let parts: Vec<_> = subject.iter_rdn().collect();
    let mut text = String::new();
    for part in parts.into_iter().rev() {
        for (place, attribute) in part.iter().enumerate() {
            match place {
                0 if text.is_empty() => {}
                0 => text.push(','),
                _ => text.push('+'),
            }
            put_attribute(attribute, &mut text)?;
        }
    }
    Some(text)
}

fn put_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) -> Option<()> {
    let kind = attribute.attr_type();
    match oid2abbrev(kind, oid_registry()) {
        Ok(name) => text.push_str(name),
        Err(_) => write!(text, "{kind}").ok()?,
    }
    text.push('=');
    let value = attribute.as_str().ok()?;
    for (place, c) in value.char_indices() {
        let is_last = place + c.len_utf8() == value.len();
        // What would end the value, or begin something else, were it written as it is.
        let is_special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=');
        if is_special || (c == '#' && place == 0) || (c == ' ' && (place == 0 || is_last)) {
            text.push('\\');
        }
        text.push(c);
    }
    Some(())
}

fn alternative_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::RFC822Name(name) | GeneralName::DNSName(name) | GeneralName::URI(name) => {
                Some(*name)
            }
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[(DnType, &str)], alternatives: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        for (kind, value) in names {
            subject.push(kind.clone(), *value);
        }
        params.distinguished_name = subject;
        params.subject_alt_names = alternatives;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn each_part_may_be_the_user() {
        let names = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Works, Inc"),
            (DnType::CommonName, "pump 1"),
        ];
        let alternatives = vec![
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
            SanType::DnsName("pump.example".try_into().unwrap()),
            SanType::Rfc822Name("pump@example".try_into().unwrap()),
        ];
        let der = certificate(&names, alternatives);
        let user = |identity: CertificateIdentity| identity.user(&der).unwrap();
        assert_eq!(user(CertificateIdentity::Cn), "pump 1");
        assert_eq!(
            user(CertificateIdentity::Dn),
            "CN=pump 1,O=Works\\, Inc,C=DE"
        );
        assert_eq!(user(CertificateIdentity::San), "pump.example");
    }

    /// A value cannot look like another part of the name.
    #[test]
    fn values_are_escaped() {
        let der = certificate(&[(DnType::CommonName, "#a,O=Works+C=DE ")], Vec::new());
        let user = CertificateIdentity::Dn.user(&der).unwrap();
        assert_eq!(user, "CN=\\#a\\,O\\=Works\\+C\\=DE\\ ");
    }

    #[test]
    fn who_has_no_such_name_is_nobody() {
        let der = certificate(&[(DnType::OrganizationName, "Works")], Vec::new());
        assert_eq!(CertificateIdentity::Cn.user(&der), None);
        assert_eq!(CertificateIdentity::San.user(&der), None);
        let der = certificate(&[(DnType::CommonName, "a\nb")], Vec::new());
        assert_eq!(CertificateIdentity::Cn.user(&der), None);
        assert_eq!(CertificateIdentity::Dn.user(&der), None);
        let der = certificate(&[(DnType::CommonName, "")], Vec::new());
        assert_eq!(CertificateIdentity::Cn.user(&der), None);
        let mut more = certificate(&[(DnType::CommonName, "a")], Vec::new());
        more.push(0);
        assert_eq!(CertificateIdentity::Cn.user(&more), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for identity in [CertificateIdentity::Cn, CertificateIdentity::Dn, CertificateIdentity::San] {
                let _ = identity.user(&bytes);
            }
        }
    }
}
