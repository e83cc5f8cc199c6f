//! `broker.example.toml`, written from the types that read it.

use core::fmt::Write;

use crate::auth::{AuthSettings, HttpSettings, JwtSettings};
use crate::settings::bans::BanSettings;
use crate::settings::describe::Described;
use crate::settings::limits::LimitSettings;
use crate::settings::sections::{
    ListenerSettings, LogSettings, ProxySettings, ReloadSettings, StoreSettings, TlsSettings,
    WebSocketSettings,
};

const HEAD: &str = "\
# Every key of the configuration of mqtt-broker, with its default or, where there is none, an example.
# Nothing here is needed: what is not said is as the line behind `#` says, or is off.
#
# Paths are relative to this file. Times are texts such as \"10s\" or numbers of seconds, sizes texts such as
# \"64 KiB\" or numbers of bytes. The environment stands before the file: MQTT_BROKER__LIMITS__MAX_CONNECTIONS=1000.
# `mqtt-broker check --config FILE` looks for mistakes; SIGHUP makes a running broker read the file again.
";

/// What `[auth]` says of its keys is not said twice.
const OWN_AUTH: &str = "
# Who the clients of the listener above are, and what they may do: with the keys of [auth], and in place of all
# of them. The same user name means the same user at every listener.
# [listener.auth]
# password_file = \"staff\" # default: none
# acl_file = \"staff.toml\" # default: none
";

/// The text of the file.
#[must_use]
pub fn example() -> String {
    let mut out = HEAD.to_owned();
    section::<StoreSettings>(&mut out, "[store]", "Where what is acknowledged is kept.");
    section::<LogSettings>(&mut out, "[log]", "What is logged to standard error.");
    section::<ReloadSettings>(
        &mut out,
        "[reload]",
        "When the configuration is read again. SIGHUP always asks for it.",
    );
    section::<LimitSettings>(
        &mut out,
        "[limits]",
        "What clients may make the broker do and keep.",
    );
    section::<BanSettings>(
        &mut out,
        "[bans]",
        "Who is not let in. Who is connected when a reload names it is disconnected (0x98).",
    );
    section::<AuthSettings>(
        &mut out,
        "[auth]",
        "Who clients are, and what they may do. Nothing said: whoever comes may do everything.",
    );
    section::<JwtSettings>(
        &mut out,
        "[auth.jwt]",
        "Tokens (JWT) in place of passwords: the user is whom the token names.",
    );
    section::<HttpSettings>(
        &mut out,
        "[auth.http]",
        "A service that is asked by HTTP: a POST with an object in JSON, answered by status 200 and an object whose\n\
         # `result` is \"allow\", \"deny\" or \"next\", by 204 (allow), or by 401 or 403 (deny).",
    );
    section::<ListenerSettings>(
        &mut out,
        "[[listener]]",
        "One address to listen on; repeat the section for more.",
    );
    out.push_str(OWN_AUTH);
    section::<TlsSettings>(
        &mut out,
        "[listener.tls]",
        "TLS for the listener above. The files are PEM, and are read again with the configuration.",
    );
    section::<WebSocketSettings>(
        &mut out,
        "[listener.websocket]",
        "WebSocket for the listener above.",
    );
    section::<ProxySettings>(
        &mut out,
        "[listener.proxy]",
        "PROXY protocol, versions 1 and 2, for the listener above.",
    );
    out
}

fn section<T: Described>(out: &mut String, header: &str, about: &str) {
    // Sections that change something by being there are comments as a whole.
    let optional = header.contains('.');
    let mark = if optional { "# " } else { "" };
    _ = write!(out, "\n# {about}\n{mark}{header}\n");
    for key in T::KEYS.iter().filter(|key| !key.text.is_empty()) {
        out.push('\n');
        for line in key.doc.lines() {
            _ = writeln!(out, "#{line}");
        }
        if key.at_start {
            out.push_str("# A reload does not change it: it holds from the next start.\n");
        }
        // A listener without an address is a mistake.
        let shown = header == "[[listener]]" && key.name == "address";
        let mark = if shown { "" } else { "# " };
        let none = if key.optional && !shown {
            " # default: none"
        } else {
            ""
        };
        _ = writeln!(out, "{mark}{} = {}{none}", key.name, key.text);
    }
}
