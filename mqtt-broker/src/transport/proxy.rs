//! The PROXY protocol, versions 1 and 2: what a trusted proxy says of the client that it speaks for.

use core::net::{IpAddr, SocketAddr};
use std::io;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::transport::network::Network;

/// Longest header of version 1, its line end included.
const V1_BYTES: usize = 107;
/// Bytes of version 2 before the addresses: signature, version, family, length.
const V2_FIXED: usize = 16;
/// Longest header of version 2 that is read; what a proxy adds to the addresses is far shorter.
const V2_BYTES: usize = 4 * 1024;
/// Shorter than any header, and enough to tell the versions apart.
const START: usize = 12;
const V2_SIGNATURE: &[u8; START] = b"\r\n\r\n\0\r\nQUIT\n";

/// Who may say for whom it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// Addresses of the proxies. Connections from elsewhere are closed.
    pub trusted: Vec<Network>,
}

impl ProxyOptions {
    /// Every connection comes from one of these proxies and begins with a header.
    #[must_use]
    pub fn new(trusted: Vec<Network>) -> Self {
        Self { trusted }
    }

    /// Whether a proxy may be at this address.
    pub(crate) fn trusts(&self, address: Option<IpAddr>) -> bool {
        // Who may connect to a socket in the file system is said by its permissions.
        let Some(address) = address else { return true };
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// Why a connection is not served that should have begun with a header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error("not from a proxy that is trusted")]
    Untrusted,
    #[error("no PROXY header")]
    Missing,
    #[error("PROXY header too long")]
    TooLong,
    #[error("PROXY header malformed")]
    Malformed,
}

/// Reads the header, and not a byte more; returns the address of the client, or `None` if the proxy speaks
/// for itself.
pub(crate) async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Option<SocketAddr>, ProxyError> {
    let mut header = vec![0; START];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        read_more(stream, &mut header, V2_FIXED).await?;
        let [.., high, low] = header[..] else {
            return Err(ProxyError::Malformed);
        };
        let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
        if len > V2_BYTES {
            return Err(ProxyError::TooLong);
        }
        read_more(stream, &mut header, len).await?;
    } else if header.starts_with(b"PROXY ") {
        // A byte at a time: what follows the line is not ours to read.
        while !header.ends_with(b"\r\n") {
            if header.len() >= V1_BYTES {
                return Err(ProxyError::TooLong);
            }
            let more = header.len() + 1;
            read_more(stream, &mut header, more).await?;
        }
    } else {
        return Err(ProxyError::Missing);
    }
    let (parsed, len) =
        ProxyHeader::parse(&header, ParseConfig::default()).map_err(|_| ProxyError::Malformed)?;
    if len != header.len() {
        return Err(ProxyError::Malformed);
    }
    Ok(parsed.proxied_address().map(|address| address.source))
}

async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    header: &mut Vec<u8>,
    len: usize,
) -> io::Result<()> {
    let have = header.len();
    header.resize(len, 0);
    if let Some(room) = header.get_mut(have..) {
        stream.read_exact(room).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    async fn read(mut bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyError>, &[u8]) {
        let header = read_header(&mut bytes).await;
        (header, bytes)
    }

    fn header() -> ProxyHeader<'static> {
        let source = "[2001:db8::1:1]:51234".parse().unwrap();
        let destination = "[2001:db8::2:1]:1883".parse().unwrap();
        ProxyHeader::with_address(ProxiedAddress::stream(source, destination))
    }

    #[tokio::test]
    async fn both_versions_are_read_and_nothing_after_them() {
        let mut first = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 1883\r\n".to_vec();
        first.extend_from_slice(b"MQTT\r\n");
        let (address, rest) = read(&first).await;
        assert_eq!(address.unwrap(), Some("192.0.2.1:5000".parse().unwrap()));
        assert_eq!(rest, b"MQTT\r\n");

        let mut second = Vec::new();
        header().encode_v2(&mut second).unwrap();
        second.extend_from_slice(b"MQTT");
        let (address, rest) = read(&second).await;
        assert_eq!(
            address.unwrap(),
            Some("[2001:db8::1:1]:51234".parse().unwrap())
        );
        assert_eq!(rest, b"MQTT");
    }

    #[tokio::test]
    async fn a_proxy_may_speak_for_itself() {
        assert_eq!(read(b"PROXY UNKNOWN\r\n").await.0.unwrap(), None);
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(read(local).await.0.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let cases: [(&[u8], &str); 6] = [
            (b"\x10\x10\0\x04MQTT\x05\0\0\0", "no PROXY header"),
            (b"PROXY TCP4 not-an-address\r\n", "malformed"),
            (&long, "too long"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "too long"),
            (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", "malformed"),
            (b"PROXY", "lost"),
        ];
        for (bytes, reason) in cases {
            let error = read(bytes).await.0.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}: {reason}");
        }
    }

    #[test]
    fn only_configured_addresses_are_trusted() {
        let options = ProxyOptions::new(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(options.trusts("10.1.2.3".parse().ok()));
        assert!(!options.trusts("192.0.2.1".parse().ok()));
        assert!(!ProxyOptions::new(Vec::new()).trusts("127.0.0.1".parse().ok()));
    }

    proptest! {
        /// Bytes behind either beginning are an address, none, or an error.
        #[test]
        fn garbage_is_an_error(second in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let start: &[u8] = if second { V2_SIGNATURE } else { b"PROXY " };
            let all = [start, &bytes].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, rest) = runtime.block_on(read(&all));
            prop_assert!(rest.len() <= bytes.len());
        }
    }
}
