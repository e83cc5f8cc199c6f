//! When a certificate ends, read from its DER without the rest of X.509.

use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which is left out where it is 1.
const VERSION: u8 = 0xa0;

/// The second since 1970 after which the first certificate of a file is not valid.
pub(crate) fn end_of_first(file: &Path) -> Option<u64> {
    let der = CertificateDer::from_pem_file(file).ok()?;
    end(&der)
}

/// Section 4.1 of RFC 5280: `notAfter` of `validity`.
fn end(der: &[u8]) -> Option<u64> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (signed, _) = expect(certificate, SEQUENCE)?;
    let rest = match expect(signed, VERSION) {
        Some((_, rest)) => rest,
        None => signed,
    };
    let (_, rest) = expect(rest, INTEGER)?;
    // Algorithm and issuer.
    let (_, rest) = expect(rest, SEQUENCE)?;
    let (_, rest) = expect(rest, SEQUENCE)?;
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    let text = core::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // Two digits of the year, which end in 2049.
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", &text).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(time.timestamp().as_second()).ok()
}

/// The content of the first element, which must have this tag, and what follows it.
fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag and content of the first element of DER, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if len.len() > 4 {
            return None;
        }
        let len = len
            .iter()
            .fold(0, |value, &byte| value << 8 | usize::from(byte));
        (len, rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 3, 2);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_found() {
        assert_eq!(end(&certificate(2030)), Some(1_898_640_000));
        // Beyond 2049 the time has another form.
        assert_eq!(end(&certificate(2050)), Some(2_529_792_000));
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        let whole = certificate(2030);
        for len in 0..whole.len().min(120) {
            assert_eq!(end(&whole[..len]), None);
        }
        assert_eq!(end(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }
}
