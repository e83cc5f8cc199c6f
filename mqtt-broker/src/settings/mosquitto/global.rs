//! The options of mosquitto.conf that hold for the whole broker.

use std::path::Path;

use crate::settings::limits::LEAST_MEMORY;
use crate::settings::mosquitto::{Import, Line, is_on, quoted};

pub(super) const PLUGIN: &str =
    "plug-ins are not carried over: whom it lets in and the permissions that it gives are missing";
pub(super) const BUILT_IN: &str = "built in: the file that its option names is carried over";

impl Import {
    /// Takes an option that holds for the whole broker.
    pub(super) fn take_global(&mut self, line: &Line) {
        let value = line.value.as_str();
        let is_on = is_on(value);
        let number = value.parse::<u64>();
        let limit = |key: &'static str| number.clone().ok().map(|n| (key, n.to_string()));
        let mut limits = |entry: Option<(&'static str, String)>| match entry {
            Some(entry) => {
                self.limits.push(entry);
                None
            }
            None => Some("not a number"),
        };
        let note = match line.name.as_str() {
            "persistence" | "retained_persistence" => {
                self.persistence = is_on;
                None
            }
            "persistence_location" => {
                let place = self.relative(value);
                self.store.push(("directory", quoted(&place)));
                Some(
                    "the directory gets files of this broker; messages in mosquitto.db stay behind",
                )
            }
            "autosave_interval" | "autosave_on_changes" | "persistence_file" => {
                Some("not needed: what is acknowledged is on the disk")
            }
            "max_packet_size" | "message_size_limit" if number == Ok(0) => None,
            "max_packet_size" => limits(limit("max_packet_size")),
            "message_size_limit" => limits(limit("max_packet_size")).or(Some(
                "became max_packet_size, which counts topic and properties as well",
            )),
            "max_inflight_messages" if number == Ok(0) => Some("0: became the default of 256"),
            "max_inflight_messages" => limits(limit("receive_maximum_v3")),
            "max_queued_bytes" if number == Ok(0) => None,
            "max_queued_bytes" => limits(limit("stored_queue_bytes")),
            "max_queued_messages" if number == Ok(0) => None,
            "max_queued_messages" => limits(limit("queue_messages")),
            "max_keepalive" if number == Ok(0) => None,
            "max_keepalive" => limits(limit("keep_alive_maximum")),
            "global_max_connections" if value == "-1" => None,
            "global_max_connections" => limits(limit("max_connections")),
            "retain_available" => {
                self.limits.push(("retain_available", is_on.to_string()));
                None
            }
            "max_topic_alias" => {
                let entry = limit("topic_alias_maximum");
                let mut others = self.limits.iter().rev();
                let other = others.find(|(key, _)| *key == "topic_alias_maximum");
                let differs = other.is_some_and(|other| Some(other) != entry.as_ref());
                match entry {
                    Some(entry) => self.limits.push(entry),
                    None => return self.note(line, "not a number"),
                }
                differs.then_some("one value holds for all listeners: the last of them")
            }
            "memory_limit" if number == Ok(0) => None,
            "memory_limit" if number.as_ref().is_ok_and(|number| *number < LEAST_MEMORY) => {
                Some("not carried over: less than 32 MiB leaves no room for clients")
            }
            "memory_limit" => limits(limit("memory")).or(Some(
                "became memory, which counts the whole process and holds from 80 % of it on",
            )),
            "retain_expiry_interval" if number == Ok(0) => Some("0: became the default, a minute"),
            "retain_expiry_interval" => limits(minutes(value)),
            "persistent_client_expiration" => limits(expiration(value)),
            "allow_anonymous" => {
                self.allow_anonymous = Some(is_on);
                None
            }
            "password_file" | "acl_file" => {
                let key = match line.name.as_str() {
                    "password_file" => "password_file",
                    _ => "acl_file",
                };
                self.auth.push((key, quoted(&self.relative(value))));
                self.look_into(line);
                None
            }
            "log_type" if value == "all" || value == "debug" => {
                self.log.push(("level", "\"debug\"".into()));
                None
            }
            "log_dest" if value == "stderr" => None,
            "log_type"
            | "log_dest"
            | "log_timestamp"
            | "log_timestamp_format"
            | "log_facility"
            | "connection_messages"
            | "websockets_log_level" => {
                Some("the log goes to standard error, with times, connections and refusals: [log]")
            }
            "pid_file" | "user" => Some("not needed: let systemd start the broker as a user"),
            "set_tcp_nodelay" if is_on => None,
            "set_tcp_nodelay" => Some("always on"),
            "retry_interval" => Some("obsolete: messages are sent again when a client reconnects"),
            "psk_file" => Some("TLS with pre-shared keys is not supported by rustls"),
            "plugin" | "global_plugin" | "auth_plugin" => {
                // What one reads for all listeners cannot be told from what each reads.
                let is_clear = matches!(line.name.as_str(), "plugin" | "auth_plugin")
                    || (line.name == "global_plugin" && !self.per_listener);
                self.plugin_reads = plugin_reads(value).filter(|_| is_clear);
                match self.plugin_reads {
                    Some(_) => Some(BUILT_IN),
                    None => Some(PLUGIN),
                }
            }
            name if name.starts_with("plugin_opt_") || name.starts_with("auth_opt_") => {
                Some(PLUGIN)
            }
            "auth_plugin_deny_special_chars" => {
                Some("always so: a name with +, # or / never stands for %c or %u in a rule")
            }
            "clientid_prefixes" => {
                Some("how identifiers begin is not looked at: [bans] names whole ones")
            }
            "allow_zero_length_clientid" if is_on => None,
            "allow_zero_length_clientid" => {
                Some("a client without an identifier is let in, and gets one")
            }
            "auto_id_prefix" => Some("identifiers that the broker makes begin with auto-"),
            "check_retain_source" => {
                Some("a retained message stays when its publisher may not publish there any more")
            }
            "enable_control_api" => Some("there is no $CONTROL"),
            "queue_qos0_messages" | "upgrade_outgoing_qos" | "allow_duplicate_messages"
                if !is_on =>
            {
                None
            }
            "queue_qos0_messages" => Some("QoS 0 messages are not kept for who is not connected"),
            "upgrade_outgoing_qos" => {
                Some("a message has the lower of its QoS and that of the subscription")
            }
            "allow_duplicate_messages" => {
                Some("a message comes once to a client, however many of its filters match")
            }
            "per_listener_settings" => {
                self.per_listener = is_on;
                is_on.then_some("a user name means the same user at every listener")
            }
            "max_inflight_bytes" if value == "0" => None,
            "sys_interval" => Some("there is no $SYS"),
            "max_inflight_bytes" | "global_max_clients" => Some("no such limit: see [limits]"),
            _ => Some("no equivalent"),
        };
        if let Some(note) = note {
            self.note(line, note);
        }
    }
}

/// The plug-ins of Mosquitto itself that read a file which is read here as well: the name of the option for it.
pub(super) fn plugin_reads(value: &str) -> Option<&'static str> {
    match Path::new(value).file_stem()?.to_str()? {
        "mosquitto_password_file" => Some("password_file"),
        "mosquitto_acl_file" => Some("acl_file"),
        _ => None,
    }
}

/// How often expired retained messages are looked for.
fn minutes(text: &str) -> Option<(&'static str, String)> {
    let seconds = text.parse::<u64>().ok()?.checked_mul(60)?;
    Some(("retained_sweep_interval", format!("\"{seconds}s\"")))
}

/// `2m` is two months there.
fn expiration(text: &str) -> Option<(&'static str, String)> {
    const HOUR: u64 = 3_600;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "h" => HOUR,
        "d" => 24 * HOUR,
        "w" => 7 * 24 * HOUR,
        "m" => 30 * 24 * HOUR,
        "y" => 365 * 24 * HOUR,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(factor)?;
    Some(("session_expiry_maximum", format!("\"{seconds}s\"")))
}
