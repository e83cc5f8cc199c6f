//! Proxies: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT (RFC 9110, 9.3.6).

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Target, tcp};
use crate::url::Url;
use crate::{Error, Options};

/// Bytes of a proxy's answer to CONNECT before it is given up.
const LONGEST_ANSWER: usize = 8 * 1024;

/// A proxy to reach the server through. It resolves the server's name.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<(String, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socks5,
    Http,
}

impl Proxy {
    fn new(kind: Kind, host: impl Into<String>, port: u16) -> Self {
        Self {
            kind,
            host: host.into(),
            port,
            credentials: None,
        }
    }

    /// A SOCKS5 proxy.
    pub fn socks5(host: impl Into<String>, port: u16) -> Self {
        Self::new(Kind::Socks5, host, port)
    }

    /// An HTTP proxy that allows CONNECT.
    pub fn http(host: impl Into<String>, port: u16) -> Self {
        Self::new(Kind::Http, host, port)
    }

    /// `socks5h://[user[:password]@]host[:port]` (also `socks5://`), by default at port 1080, or
    /// `http://...`, by default at port 8080.
    ///
    /// # Errors
    ///
    /// If it is no such URL.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let url = Url::parse(url)?;
        let (kind, port) = match url.scheme.as_str() {
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            "http" => (Kind::Http, 8080),
            scheme => {
                return Err(Error::Invalid {
                    what: "URL of the proxy",
                    why: format!("{scheme} is neither socks5h nor http"),
                });
            }
        };
        if url.host.is_empty() {
            return Err(Error::Invalid {
                what: "URL of the proxy",
                why: "no host".to_owned(),
            });
        }
        let mut proxy = Self::new(kind, url.host, url.port.unwrap_or(port));
        if let Some(name) = url.username {
            proxy = proxy.credentials(name, url.password.unwrap_or_default());
        }
        Ok(proxy)
    }

    /// User name and password for the proxy.
    #[must_use]
    pub fn credentials(mut self, name: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        self.credentials = Some((name.into(), password.into()));
        self
    }

    /// A stream to the target through the proxy.
    pub(crate) async fn connect(
        &self,
        options: &Options,
        target: &Target,
    ) -> Result<TcpStream, Error> {
        let mut stream = tcp::connect(options, &self.host, self.port).await?;
        match self.kind {
            Kind::Socks5 => self.socks5_handshake(&mut stream, target).await?,
            Kind::Http => self.http_handshake(&mut stream, target).await?,
        }
        Ok(stream)
    }

    async fn socks5_handshake(&self, stream: &mut TcpStream, target: &Target) -> Result<(), Error> {
        const VERSION: u8 = 5;
        const NO_AUTHENTICATION: u8 = 0;
        const PASSWORD: u8 = 2;
        let greeting: &[u8] = match self.credentials {
            None => &[VERSION, 1, NO_AUTHENTICATION],
            Some(_) => &[VERSION, 2, NO_AUTHENTICATION, PASSWORD],
        };
        stream.write_all(greeting).await?;
        let mut choice = [0; 2];
        stream.read_exact(&mut choice).await?;
        match (choice, &self.credentials) {
            ([VERSION, NO_AUTHENTICATION], _) => {}
            ([VERSION, PASSWORD], Some((name, password))) => {
                let mut message = vec![1];
                counted(&mut message, name.as_bytes(), "user name of the proxy")?;
                counted(&mut message, password, "password of the proxy")?;
                stream.write_all(&message).await?;
                let mut status = [0; 2];
                stream.read_exact(&mut status).await?;
                if status != [1, 0] {
                    return Err(refused("user name or password is wrong"));
                }
            }
            ([VERSION, 0xff], _) => return Err(refused("it wants another authentication")),
            _ => return Err(refused("it does not speak SOCKS5")),
        }
        let mut request = vec![VERSION, 1, 0];
        match target.host.parse() {
            Ok(IpAddr::V4(address)) => {
                request.push(1);
                request.extend(address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                request.push(4);
                request.extend(address.octets());
            }
            Err(_) => {
                request.push(3);
                counted(&mut request, target.host.as_bytes(), "host")?;
            }
        }
        request.extend(target.port.to_be_bytes());
        stream.write_all(&request).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        let [version, status, _, kind] = answer;
        if version != VERSION {
            return Err(refused("it does not speak SOCKS5"));
        }
        if status != 0 {
            return Err(refused(match status {
                2 => "its rules do not allow the connection",
                3 => "the network cannot be reached",
                4 => "the host cannot be reached",
                5 => "the server refused the connection",
                6 => "the connection took too long",
                _ => "the connection failed",
            }));
        }
        // The address that the proxy connected from, which nobody needs.
        let length = match kind {
            1 => 4,
            4 => 16,
            3 => usize::from(stream.read_u8().await?),
            _ => return Err(refused("it does not speak SOCKS5")),
        };
        let mut address = vec![0; length + 2];
        stream.read_exact(&mut address).await?;
        Ok(())
    }

    async fn http_handshake(&self, stream: &mut TcpStream, target: &Target) -> Result<(), Error> {
        if target
            .host
            .contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(Error::Invalid {
                what: "host",
                why: "it has a space".to_owned(),
            });
        }
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some((name, password)) = &self.credentials {
            let mut plain = name.clone().into_bytes();
            plain.push(b':');
            plain.extend(password);
            request += &format!("Proxy-Authorization: Basic {}\r\n", base64(&plain));
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Byte for byte: what follows the answer belongs to the server.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= LONGEST_ANSWER {
                return Err(refused("its answer does not end"));
            }
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(refused("it closed the connection"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let text = String::from_utf8_lossy(&answer);
        let line = text.lines().next().unwrap_or_default();
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1));
        match status {
            Some(status) if status.starts_with('2') => Ok(()),
            Some("407") => Err(refused("user name or password is wrong")),
            _ => Err(refused(line)),
        }
    }
}

fn refused(why: &str) -> Error {
    Error::Proxy(why.to_owned())
}

/// Appends bytes with their length in one byte before them.
fn counted(message: &mut Vec<u8>, bytes: &[u8], what: &'static str) -> Result<(), Error> {
    let length = u8::try_from(bytes.len()).map_err(|_| Error::Invalid {
        what,
        why: "longer than 255 bytes".to_owned(),
    })?;
    message.push(length);
    message.extend_from_slice(bytes);
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * place) & 63) as usize);
            text.push(match digit {
                Some(digit) if place <= group.len() => char::from(*digit),
                _ => '=',
            });
        }
    }
    text
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies() {
        let proxy = Proxy::from_url("socks5h://u:p@host").unwrap();
        assert_eq!(proxy, Proxy::socks5("host", 1080).credentials("u", "p"));
        let proxy = Proxy::from_url("http://host:3128").unwrap();
        assert_eq!(proxy, Proxy::http("host", 3128));
        for text in ["host:1", "ftp://host", "http://", "socks5://h:x"] {
            assert!(Proxy::from_url(text).is_err(), "{text}");
        }
    }

    /// RFC 4648, section 10.
    #[test]
    fn base64_of_the_standard() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }
}
