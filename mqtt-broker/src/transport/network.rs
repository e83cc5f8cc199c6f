//! Ranges of IP addresses.

use core::fmt;
use core::net::{AddrParseError, IpAddr};
use core::num::ParseIntError;
use core::str::FromStr;

/// A range of addresses, written `192.0.2.0/24`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// What stands before the slash is no address.
    #[error("not an IP address or network: {0}")]
    Address(#[from] AddrParseError),
    /// What stands behind the slash is no number.
    #[error("not the length of a prefix: {0}")]
    Prefix(#[from] ParseIntError),
    /// It is longer than an address.
    #[error("a prefix of {0} bits is longer than the address")]
    Length(u8),
}

impl Network {
    /// Whether an address is in the range; an IPv4 address written as IPv6 is one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |value: u128, width: u32| value.checked_shr(width - u32::from(self.prefix));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let (own, other) = (own.to_bits(), other.to_bits());
                bits(own.into(), 32) == bits(other.into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                bits(own.to_bits(), 128) == bits(other.to_bits(), 128)
            }
            _ => false,
        }
    }

    /// Whether it has every address of IPv4, or of IPv6.
    pub(crate) fn is_everything(&self) -> bool {
        self.prefix == 0
    }

    /// The same range written with its first address.
    pub(crate) fn without_host(&self) -> Option<Self> {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix))?;
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix))?;
                IpAddr::V6((address.to_bits() & mask).into())
            }
        };
        Some(Self { address, ..*self })
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address.parse::<IpAddr>()?, Some(prefix.parse::<u8>()?)),
            None => (text.parse::<IpAddr>()?, None),
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return Err(NetworkError::Length(prefix));
        }
        // Who comes is compared as what it is, so a range of IPv4 written as IPv6 is one of IPv4.
        Ok(match address.to_canonical() {
            address @ IpAddr::V4(_) if width == 128 && prefix >= 96 => Self {
                address,
                prefix: prefix - 96,
            },
            _ => Self { address, prefix },
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let network: Network = network.parse().unwrap();
        network.contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_compared_by_prefix() {
        assert!(contains("10.1.0.0/16", "10.1.255.3"));
        assert!(!contains("10.1.0.0/16", "10.2.0.1"));
        assert!(contains("10.1.0.0/16", "::ffff:10.1.2.3"));
        assert!(contains("0.0.0.0/0", "192.0.2.1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1"));
        assert!(!contains("2001:db8::1", "2001:db8::2"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        for network in ["::ffff:192.0.2.0/120", "192.0.2.0/24"] {
            for address in ["192.0.2.7", "::ffff:192.0.2.7"] {
                assert!(contains(network, address), "{network} {address}");
            }
            assert!(!contains(network, "192.0.3.7"), "{network}");
        }
        assert!(contains("::ffff:192.0.2.7", "192.0.2.7"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "host",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
