//! The argument list before clap sees it: the options file and the environment in front of the
//! command line, `-D` folded into one argument, options of other builds refused.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use clap::Command;

use super::UsageError;

/// Joins the parts of a `-D`; an argument of the system cannot contain it.
pub(crate) const SEPARATOR: char = '\0';

/// mosquitto's options that cannot be had here, and why.
const UNAVAILABLE: &[(&str, &str)] = &[
    (
        "--psk",
        "rustls, which this program uses for TLS, has no pre-shared keys; use certificates",
    ),
    (
        "--psk-identity",
        "rustls, which this program uses for TLS, has no pre-shared keys; use certificates",
    ),
    (
        "--ciphers",
        "rustls, which this program uses for TLS, has safe cipher suites only and no OpenSSL list of them",
    ),
    (
        "--tls-engine",
        "engines are a part of OpenSSL, and this program uses rustls",
    ),
    (
        "--tls-engine-kpass-sha1",
        "engines are a part of OpenSSL, and this program uses rustls",
    ),
    ("--quic", "this program does not speak MQTT over QUIC"),
];

/// Environment variables and the options they stand for.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("MQTT_HOST", "--host"),
    ("MQTT_PORT", "--port"),
    ("MQTT_USERNAME", "--username"),
    ("MQTT_PASSWORD", "--pw"),
];

/// The whole argument list of `command`, a subcommand: file, then environment, then `given`, so
/// that what is given later wins.
pub(crate) fn assemble(
    command: &Command,
    given: Vec<OsString>,
) -> Result<Vec<OsString>, UsageError> {
    let mut all = Vec::new();
    let tool = command.get_name();
    match options_file(command, &given)? {
        Some(path) => {
            let text = fs::read_to_string(&path).map_err(|error| {
                UsageError(format!(
                    "Error: Unable to open options file '{}': {error}.",
                    path.display()
                ))
            })?;
            all.extend(file_arguments(&text));
        }
        None => {
            let paths = default_files(tool, env::var_os("XDG_CONFIG_HOME"), env::var_os("HOME"));
            // The default file is optional; the first there is counts.
            let text = paths.iter().find_map(|path| fs::read_to_string(path).ok());
            all.extend(text.iter().flat_map(|text| file_arguments(text)));
        }
    }
    for (variable, option) in ENVIRONMENT {
        if let Some(value) = env::var_os(variable) {
            all.extend([OsString::from(option), value]);
        }
    }
    all.extend(given);
    fold_properties(command, all)
}

fn options_file(command: &Command, arguments: &[OsString]) -> Result<Option<PathBuf>, UsageError> {
    let mut file = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "-o" {
            let path = rest.next().ok_or_else(|| {
                UsageError("Error: -o argument given but no options file specified.".to_owned())
            })?;
            if file.replace(PathBuf::from(path)).is_some() {
                return Err(UsageError("Error: Duplicate -o argument given.".to_owned()));
            }
        } else if takes_next(command, argument) {
            rest.next();
        }
    }
    Ok(file)
}

/// `mqtt-client/pub` and then `mosquitto_pub` below `$XDG_CONFIG_HOME`, or else below `$HOME/.config`.
/// mosquitto has files for its three programs only.
fn default_files(tool: &str, config: Option<OsString>, home: Option<OsString>) -> Vec<PathBuf> {
    let folder = match (config, home) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => PathBuf::from(home).join(".config"),
        (None, None) => return Vec::new(),
    };
    let mut files = vec![folder.join("mqtt-client").join(tool)];
    if matches!(tool, "pub" | "sub" | "rr") {
        files.push(folder.join(format!("mosquitto_{tool}")));
    }
    files
}

/// One option a line: the name, a space, and the rest of the line as its value. `#` comments.
fn file_arguments(text: &str) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim_start_matches(' ');
        let (option, value) = line.split_once(' ').unwrap_or((line, ""));
        if option.is_empty() {
            continue;
        }
        arguments.push(OsString::from(option));
        if is_property(OsStr::new(option)) {
            arguments.extend(value.split_whitespace().map(OsString::from));
        } else if !value.is_empty() {
            arguments.push(OsString::from(value));
        }
    }
    arguments
}

fn is_property(argument: &OsStr) -> bool {
    argument == "-D" || argument == "--property"
}

/// Whether `argument` is an option whose value is the next argument.
fn takes_next(command: &Command, argument: &OsStr) -> bool {
    let Some(text) = argument.to_str() else {
        return false;
    };
    let valued = |arg: Option<&clap::Arg>| arg.is_some_and(|arg| arg.get_action().takes_values());
    if let Some(long) = text.strip_prefix("--") {
        return valued(command.get_arguments().find(|arg| {
            arg.get_long() == Some(long)
                || arg.get_all_aliases().unwrap_or_default().contains(&long)
        }));
    }
    let Some(cluster) = text.strip_prefix('-') else {
        return false;
    };
    let mut letters = cluster.chars();
    while let Some(letter) = letters.next() {
        if valued(
            command
                .get_arguments()
                .find(|arg| arg.get_short() == Some(letter)),
        ) {
            return letters.next().is_none();
        }
    }
    false
}

/// Joins the three or four arguments of each `-D` into one, and refuses what is unavailable.
fn fold_properties(
    command: &Command,
    arguments: Vec<OsString>,
) -> Result<Vec<OsString>, UsageError> {
    let mut folded = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        if is_property(&argument) {
            let missing = || {
                UsageError(
                    "Error: --property argument given but not enough arguments specified."
                        .to_owned(),
                )
            };
            let mut joined = rest.next().ok_or_else(missing)?;
            let name = rest.next().ok_or_else(missing)?;
            let count = if name == "user-property" { 2 } else { 1 };
            joined.push(SEPARATOR.to_string());
            joined.push(name);
            for _ in 0..count {
                joined.push(SEPARATOR.to_string());
                joined.push(rest.next().ok_or_else(missing)?);
            }
            folded.extend([OsString::from("--property"), joined]);
            continue;
        }
        let name = argument
            .to_str()
            .map(|text| text.split('=').next().unwrap_or(text));
        if let Some((option, why)) = UNAVAILABLE.iter().find(|(option, _)| Some(*option) == name) {
            return Err(UsageError(format!(
                "Error: {option} is not available: {why}."
            )));
        }
        let valued = takes_next(command, &argument);
        folded.push(argument);
        if valued {
            folded.extend(rest.next());
        }
    }
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn command() -> Command {
        Command::new("pub")
            .arg(Arg::new("message").short('m').long("message"))
            .arg(Arg::new("retain").short('r').action(ArgAction::SetTrue))
    }

    fn fold(arguments: &[&str]) -> Result<Vec<String>, UsageError> {
        let arguments = arguments.iter().map(OsString::from).collect();
        let folded = fold_properties(&command(), arguments)?;
        Ok(folded
            .into_iter()
            .map(|text| text.into_string().unwrap())
            .collect())
    }

    #[test]
    fn a_property_becomes_one_argument() {
        assert_eq!(
            fold(&["-D", "publish", "user-property", "-k", "-v", "-r"]).unwrap(),
            ["--property", "publish\0user-property\0-k\0-v", "-r"]
        );
        assert_eq!(
            fold(&["-r", "-D", "connect", "receive-maximum", "3", "-m", "-D"]).unwrap(),
            [
                "-r",
                "--property",
                "connect\0receive-maximum\x003",
                "-m",
                "-D"
            ]
        );
        assert!(fold(&["-D", "publish", "user-property", "k"]).is_err());
    }

    #[test]
    fn values_are_not_mistaken_for_options() {
        assert_eq!(fold(&["-rm", "--psk"]).unwrap(), ["-rm", "--psk"]);
        assert_eq!(fold(&["-m=-D", "-r"]).unwrap(), ["-m=-D", "-r"]);
    }

    #[test]
    fn unavailable_options_are_named() {
        for option in ["--psk", "--ciphers", "--tls-engine=x", "--quic"] {
            let error = fold(&["-r", option, "x"]).unwrap_err();
            assert!(
                error.0.contains(option.split('=').next().unwrap()),
                "{}",
                error.0
            );
        }
    }

    #[test]
    fn an_options_file_has_one_option_a_line() {
        let text = "# comment\n-t a b\n\n-r\n-D publish user-property k v\n--id x\r\n";
        assert_eq!(
            file_arguments(text),
            [
                "-t",
                "a b",
                "-r",
                "-D",
                "publish",
                "user-property",
                "k",
                "v",
                "--id",
                "x"
            ]
        );
    }

    #[test]
    fn the_default_file_follows_the_base_directories() {
        let files = default_files("pub", Some("/x".into()), Some("/h".into()));
        let expected = ["/x/mqtt-client/pub", "/x/mosquitto_pub"];
        assert_eq!(files, expected.map(PathBuf::from));
        let files = default_files("sub", None, Some("/h".into()));
        let expected = ["/h/.config/mqtt-client/sub", "/h/.config/mosquitto_sub"];
        assert_eq!(files, expected.map(PathBuf::from));
        let files = default_files("doctor", None, Some("/h".into()));
        assert_eq!(files, [PathBuf::from("/h/.config/mqtt-client/doctor")]);
        assert!(default_files("sub", None, None).is_empty());
    }
}
