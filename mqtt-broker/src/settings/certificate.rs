//! When a certificate ends.

use std::path::Path;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The second since 1970 after which the first certificate of a file is not valid.
pub(crate) fn end_of_first(file: &Path) -> Option<u64> {
    let der = CertificateDer::from_pem_file(file).ok()?;
    end(&der)
}

/// Section 4.1 of RFC 5280: `notAfter` of `validity`.
fn end(der: &[u8]) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
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
        for len in 0..whole.len() {
            assert_eq!(end(&whole[..len]), None);
        }
        assert_eq!(end(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }
}
