//! The options of mosquitto.conf that belong to the listener before them.

use std::net::IpAddr;

use crate::mount;
use crate::settings::mosquitto::{Line, is_on};

/// A listener as it is described there.
#[derive(Clone, Debug, Default)]
pub(super) struct Listener {
    pub(super) port: Option<u16>,
    pub(super) bind: Option<IpAddr>,
    pub(super) unix: Option<String>,
    pub(super) websockets: bool,
    pub(super) origins: Vec<String>,
    pub(super) versions: Vec<&'static str>,
    pub(super) max_connections: Option<u64>,
    pub(super) mount_point: Option<String>,
    pub(super) max_qos: Option<u64>,
    pub(super) allow_anonymous: Option<bool>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) authorities: Option<String>,
    pub(super) revoked: Option<String>,
    pub(super) require_certificate: bool,
    pub(super) only_tls_1_3: bool,
    pub(super) proxy: bool,
    /// What of a certificate is the user name.
    pub(super) identity: Option<&'static str>,
    /// With `per_listener_settings`: its own files.
    pub(super) password_file: Option<String>,
    pub(super) acl_file: Option<String>,
    /// Asks for a directory of authorities, which there is none of here.
    pub(super) capath: bool,
    /// Is bound to an interface.
    pub(super) interface: bool,
    /// Of which kind the address is where none is named.
    pub(super) only_v4: bool,
    /// It cannot be here what it was there, and anything else could be open to those it was closed to.
    pub(super) left_out: bool,
    /// The lines that describe it.
    pub(super) said: Vec<Line>,
}

impl Listener {
    /// The value of `listener`: PORT, and an address or the path of a socket.
    pub(super) fn parse(value: &str) -> (Self, Option<&'static str>) {
        let mut words = value.split_whitespace();
        let port = words.next().and_then(|port| port.parse().ok());
        let mut listener = Self {
            port,
            ..Self::default()
        };
        let note = match (port, words.next()) {
            (Some(0), Some(path)) => {
                listener.unix = Some(path.to_owned());
                None
            }
            (None | Some(0), _) => listener.leave_out("the listener is left out: not a port"),
            (_, Some(address)) => listener.bind_to(address),
            (_, None) => None,
        };
        (listener, note)
    }

    fn leave_out(&mut self, note: &'static str) -> Option<&'static str> {
        self.left_out = true;
        Some(note)
    }

    /// Names are not looked up: what they stand for there may be something else here.
    fn bind_to(&mut self, address: &str) -> Option<&'static str> {
        self.bind = match address {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            address => address.parse().ok(),
        };
        match self.bind {
            Some(_) => None,
            None => self.leave_out("the listener is left out: not an IP address"),
        }
    }

    /// Why it cannot be served as it was meant, with the option that asks for it.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        let has_authorities = self.authorities.is_some();
        let of_tls = [
            ("certfile", self.certificate.is_some()),
            ("keyfile", self.key.is_some()),
            ("cafile", has_authorities),
            ("capath", self.capath),
            ("crlfile", self.revoked.is_some()),
            ("require_certificate", self.require_certificate),
        ];
        if !self.is_tls()
            && let Some((name, _)) = of_tls.iter().find(|(_, is_said)| *is_said)
        {
            return Some((name, "TLS needs both `certfile` and `keyfile`"));
        }
        let of_clients = &of_tls[4..];
        if !has_authorities && let Some((name, _)) = of_clients.iter().find(|(_, is_said)| *is_said)
        {
            return Some((name, "it needs the authorities of clients in a `cafile`"));
        }
        (self.interface && self.bind.is_none() && self.unix.is_none()).then_some((
            "bind_interface",
            "an interface is not known here: name an address behind the port",
        ))
    }

    pub(super) fn is_tls(&self) -> bool {
        self.certificate.is_some() && self.key.is_some()
    }

    /// What was said in vain, with the reason.
    pub(super) fn in_vain(&self) -> Option<(&'static str, &'static str)> {
        if self.only_tls_1_3 && !self.is_tls() {
            return Some(("tls_version", "without effect: the listener is not of TLS"));
        }
        (!self.origins.is_empty() && !self.websockets).then_some((
            "websockets_origin",
            "without effect: the listener is not of websockets",
        ))
    }

    /// Takes an option, if it is one of listeners; with what there is to say about it.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Option<Option<String>> {
        let is_on = is_on(value);
        let text = || Some(value.to_owned());
        let note = match name {
            "port" => {
                self.port = value.parse().ok().filter(|port| *port != 0);
                match self.port {
                    Some(_) => None,
                    None => self.leave_out("the listener is left out: not a port"),
                }
            }
            "bind_address" => self.bind_to(value),
            "protocol" => match value {
                "mqtt" => None,
                "websockets" => {
                    self.websockets = true;
                    Some("the path is /mqtt here, and there any: see [listener.websocket]")
                }
                _ => self.leave_out("the listener is left out: there is none of this kind"),
            },
            "websockets_origin" => {
                self.origins.push(value.to_owned());
                None
            }
            "accept_protocol_versions" => {
                let versions = value.split([',', ' ']).filter(|part| !part.is_empty());
                self.versions = versions
                    .filter_map(|version| match version {
                        "3" => Some("3.1"),
                        "4" => Some("3.1.1"),
                        "5" => Some("5.0"),
                        _ => None,
                    })
                    .collect();
                let is_none = self.versions.is_empty();
                is_none.then_some("no version that is known: all of them are served")
            }
            "mount_point" if mount::is_valid(value) => {
                self.mount_point = text();
                None
            }
            "mount_point" => {
                Some("not carried over: it must be whole levels that end with / and no wildcard")
            }
            "max_connections" => {
                // -1: no bound.
                self.max_connections = value.parse().ok();
                let is_number = self.max_connections.is_some() || value == "-1";
                (!is_number).then_some("not a number")
            }
            "max_qos" | "maximum_qos" => {
                let qos = value.parse().ok();
                self.max_qos = qos.filter(|qos| *qos < 2);
                (qos.is_none_or(|qos| qos > 2)).then_some("not a QoS")
            }
            "listener_allow_anonymous" => {
                self.allow_anonymous = Some(is_on);
                None
            }
            "certfile" => {
                self.certificate = text();
                None
            }
            "keyfile" => {
                self.key = text();
                None
            }
            "cafile" => {
                self.authorities = text();
                None
            }
            "crlfile" => {
                self.revoked = text();
                None
            }
            "require_certificate" => {
                // In doubt they are.
                self.require_certificate = !matches!(value, "false" | "0");
                None
            }
            "tls_version" => {
                self.only_tls_1_3 = value == "tlsv1.3";
                matches!(value, "tlsv1" | "tlsv1.1")
                    .then_some("became 1.2: older versions are not spoken")
            }
            "enable_proxy_protocol" => {
                self.proxy = true;
                Some("anybody is trusted, as there: name the addresses of the proxies in `trusted`")
            }
            "capath" => {
                self.capath = true;
                Some("put the certificates into one file: `client_authorities`")
            }
            "ciphers" | "ciphers_tls1.3" | "dhparamfile" => Some("the ciphers are those of rustls"),
            "psk_hint" => self.leave_out(
                "the listener is left out: TLS with pre-shared keys is not supported by rustls",
            ),
            "tls_engine" | "tls_engine_kpass_sha1" | "tls_keyform" => {
                Some("the key is a file in PEM here")
            }
            "max_topic_alias_broker" => Some("the broker uses up to 16"),
            "http_dir" => Some("files are not served"),
            "bind_interface" => {
                self.interface = true;
                Some("the address alone counts")
            }
            "socket_domain" => match value {
                "ipv4" => {
                    self.only_v4 = true;
                    None
                }
                "ipv6" => {
                    self.only_v4 = false;
                    Some("IPv4 is served as well where no address is named: name one of IPv6")
                }
                _ => Some("neither ipv4 nor ipv6"),
            },
            "use_identity_as_username" => {
                self.identity = is_on.then_some("cn").or(self.identity);
                None
            }
            "use_subject_as_username" => {
                self.identity = is_on.then_some("dn").or(self.identity);
                None
            }
            "use_username_as_clientid"
            | "disable_client_cert_date_checks"
            | "listener_auto_id_prefix" => Some("no equivalent"),
            "proxy_protocol_v2_require_tls" if is_on => self.leave_out(
                "the listener is left out: whether a client came to the proxy by TLS is not asked here",
            ),
            "proxy_protocol_v2_require_tls" => None,
            "packet_buffer_size" | "websockets_headers_size" => Some("not needed"),
            _ => return None,
        };
        Some(note.map(str::to_owned))
    }

    /// Whether anything was said of it.
    pub(super) fn is_described(&self) -> bool {
        self.port.is_some()
    }
}
