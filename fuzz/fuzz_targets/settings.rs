//! Any text as a configuration: it is one, or the message that says why not.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mqtt_broker::settings::Loaded;

fuzz_target!(|text: &str| {
    let variables = core::iter::empty();
    match Loaded::parse(Path::new("broker.toml"), text.to_owned(), variables) {
        // Nothing that is named is read: a configuration with TLS would open files.
        Ok(loaded) => assert!(!loaded.files().is_empty()),
        Err(problem) => assert!(problem.to_string().starts_with("error")),
    }
});
