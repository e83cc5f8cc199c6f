//! The options of mosquitto.conf that belong to the listener before them.

use std::net::IpAddr;

use crate::mount;

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
    /// It is of a kind that there is none of here.
    pub(super) foreign: bool,
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
            (None, _) => Some("not a port"),
            (Some(0), Some(path)) => {
                listener.unix = Some(path.to_owned());
                None
            }
            (_, Some(address)) => listener.bind_to(address),
            (_, None) => None,
        };
        (listener, note)
    }

    fn bind_to(&mut self, address: &str) -> Option<&'static str> {
        self.bind = match address {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            address => address.parse().ok(),
        };
        let unknown = self.bind.is_none();
        unknown.then_some("not an IP address: the listener is bound to all of them")
    }

    /// Takes an option, if it is one of listeners; with what there is to say about it.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Option<Option<String>> {
        let is_on = value == "true";
        let text = || Some(value.to_owned());
        let note = match name {
            "port" => {
                self.port = value.parse().ok();
                None
            }
            "bind_address" => self.bind_to(value),
            "protocol" => match value {
                "mqtt" => None,
                "websockets" => {
                    self.websockets = true;
                    Some("the path is /mqtt here, and there any: see [listener.websocket]")
                }
                _ => {
                    self.foreign = true;
                    Some("the listener is not carried over")
                }
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
                None
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
                None
            }
            "max_qos" | "maximum_qos" => {
                self.max_qos = value.parse().ok().filter(|qos| *qos < 2);
                None
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
                self.require_certificate = is_on;
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
            "capath" => Some("put the certificates into one file: `client_authorities`"),
            "ciphers" | "ciphers_tls1.3" | "dhparamfile" => Some("the ciphers are those of rustls"),
            "psk_hint" => Some("TLS with pre-shared keys is not supported by rustls"),
            "tls_engine" | "tls_engine_kpass_sha1" | "tls_keyform" => {
                Some("the key is a file in PEM here")
            }
            "max_topic_alias_broker" => Some("the broker uses up to 16"),
            "http_dir" => Some("files are not served"),
            "socket_domain" | "bind_interface" => Some("bind to an address instead"),
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
            | "listener_auto_id_prefix"
            | "proxy_protocol_v2_require_tls" => Some("no equivalent"),
            "packet_buffer_size" | "websockets_headers_size" => Some("not needed"),
            _ => return None,
        };
        Some(note.map(str::to_owned))
    }

    /// Whether anything was said of it.
    pub(super) fn is_described(&self) -> bool {
        self.port.is_some() || self.unix.is_some()
    }
}
