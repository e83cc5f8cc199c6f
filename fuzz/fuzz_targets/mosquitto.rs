//! Any text as a mosquitto.conf: what it becomes is a configuration of this broker, or the message that says why not, and
//! it lets nobody in from elsewhere whom the text does not.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mqtt_broker::fuzzing::mosquitto;
use mqtt_broker::settings::Loaded;

fuzz_target!(|text: &str| {
    let imported = mosquitto(text);
    for note in &imported.notes {
        assert!(note.starts_with("mosquitto.conf:"), "{note}");
    }
    let variables = core::iter::empty();
    if let Ok(loaded) = Loaded::parse(Path::new("broker.toml"), imported.toml, variables) {
        assert!(!loaded.settings.listener.is_empty());
        let says = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next();
            matches!(name, Some("allow_anonymous" | "listener_allow_anonymous"))
                && matches!(words.next(), Some("true" | "1"))
        };
        let is_open = text.lines().any(says);
        for listener in &loaded.settings.listener {
            let is_local = listener
                .address
                .as_ref()
                .is_some_and(|address| address.is_local());
            assert!(is_open || is_local || listener.allow_anonymous == Some(false));
        }
    }
});
