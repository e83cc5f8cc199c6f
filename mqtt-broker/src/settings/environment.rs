//! Values from the environment: `MQTT_BROKER__LIMITS__MAX_CONNECTIONS=1000` stands before the file.

use toml::{Table, Value};

use crate::settings::hidden::{is_shown, without_value};
use crate::settings::problem::{Problem, explain};
use crate::settings::sections::Settings;

/// What the names of such variables begin with.
const PREFIX: &str = "MQTT_BROKER__";

/// Puts the variables among `variables` that mean the configuration into what the file says. One after the
/// other, so that an error names its own.
pub(crate) fn apply(
    file: Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Option<Settings>, Problem> {
    let mut table = file;
    let mut settings = None;
    let mut ours: Vec<_> = variables
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // Listeners that are added come in the order of their numbers.
    ours.sort();
    for (name, text) in ours {
        let wrong = |what: &str| Problem::elsewhere(format_args!("environment: {name}: {what}"));
        let path = name.get(PREFIX.len()..).unwrap_or_default().to_lowercase();
        let path: Vec<&str> = path.split("__").collect();
        put(&mut table, &path, value(&text)).map_err(&wrong)?;
        let checked: Result<Settings, _> = table.clone().try_into();
        let checked = checked.or_else(|error| {
            // A text that looks like a number or a date.
            put(&mut table, &path, Value::String(text.clone()))
                .ok()
                .and_then(|()| table.clone().try_into().ok())
                .ok_or(error)
        });
        settings = Some(checked.map_err(|error| {
            let message = explain(error.message());
            match path.last().is_some_and(|name| is_shown(name)) {
                true => wrong(&message),
                false => wrong(&without_value(&message)),
            }
        })?);
    }
    Ok(settings)
}

/// A number, a truth value or a list as in TOML; anything else is a text.
fn value(text: &str) -> Value {
    let line = format!("value = {text}");
    let parsed = line.parse::<Table>().ok().filter(|table| table.len() == 1);
    let value = parsed.and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn put(table: &mut Table, path: &[&str], value: Value) -> Result<(), &'static str> {
    let Some((name, rest)) = path.split_first().filter(|(name, _)| !name.is_empty()) else {
        return Err("not a key of the configuration");
    };
    if rest.is_empty() {
        table.insert((*name).to_owned(), value);
        return Ok(());
    }
    if let [number, rest @ ..] = rest
        && let Ok(number) = number.parse::<usize>()
    {
        let array = table
            .entry(*name)
            .or_insert_with(|| Value::Array(Vec::new()));
        let Value::Array(array) = array else {
            return Err("a number where there is no list");
        };
        if number == array.len() {
            array.push(Value::Table(Table::new()));
        }
        return match array.get_mut(number) {
            None => Err("there are not so many"),
            Some(Value::Table(inner)) if !rest.is_empty() => put(inner, rest, value),
            Some(place) => {
                *place = value;
                Ok(())
            }
        };
    }
    let inner = table
        .entry(*name)
        .or_insert_with(|| Value::Table(Table::new()));
    match inner {
        Value::Table(inner) => put(inner, rest, value),
        _ => Err("not a section of the configuration"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(file: &str, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        apply(file.parse().unwrap(), variables).map_err(|problem| problem.to_string())
    }

    #[test]
    fn variables_stand_before_the_file() {
        let settings = with(
            "[limits]\nmax_connections = 5\nmaximum_qos = 1\n[[listener]]\naddress = \"127.0.0.1:1\"",
            &[
                ("MQTT_BROKER__LIMITS__MAX_CONNECTIONS", "7"),
                ("MQTT_BROKER__LIMITS__CONNECT_TIMEOUT", "3s"),
                ("MQTT_BROKER__LISTENER__0__ADDRESS", "127.0.0.1:2"),
                ("MQTT_BROKER__LISTENER__1__ADDRESS", "unix:/x"),
                ("MQTT_BROKER__LISTENER__1__MODE", "600"),
                ("PATH", "/bin"),
            ],
        );
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.limits.max_connections, Some(7));
        assert_eq!(settings.limits.connect_timeout.0.as_secs(), 3);
        assert_eq!(settings.limits.maximum_qos.0 as u8, 1);
        let addresses: Vec<_> = settings
            .listener
            .iter()
            .map(|one| one.address.clone().unwrap().to_string())
            .collect();
        assert_eq!(addresses, ["127.0.0.1:2", "unix:/x"]);
        assert_eq!(settings.listener[1].mode.as_deref(), Some("600"));
        assert_eq!(with("", &[("HOME", "/")]), Ok(None));
    }

    /// A section that only one listener has is reached, made where it is not there, and named in errors.
    #[test]
    fn variables_reach_what_a_listener_asks() {
        let file = "[[listener]]\naddress = \"127.0.0.1:1\"\n[listener.auth]\nacl_file = \"a\"\n\
            [[listener]]\naddress = \"127.0.0.1:2\"";
        let settings = with(
            file,
            &[
                ("MQTT_BROKER__LISTENER__0__AUTH__PASSWORD_FILE", "users"),
                ("MQTT_BROKER__LISTENER__0__AUTH__ALLOW_ANONYMOUS", "true"),
                ("MQTT_BROKER__LISTENER__1__AUTH__HTTP__URL", "https://a/b"),
                ("MQTT_BROKER__LISTENER__1__AUTH__HTTP__TIMEOUT", "3s"),
                ("MQTT_BROKER__LISTENER__1__AUTH__JWT__AUDIENCE", "[\"x\"]"),
            ],
        );
        let settings = settings.unwrap().unwrap();
        let own = |number: usize| settings.listener[number].auth.as_ref().unwrap();
        assert_eq!(own(0).acl_file, Some("a".into()));
        assert_eq!(own(0).password_file, Some("users".into()));
        assert_eq!(own(0).allow_anonymous, Some(true));
        let http = own(1).http.as_ref().unwrap();
        assert_eq!(http.url.as_deref(), Some("https://a/b"));
        assert_eq!(http.timeout.0.as_secs(), 3);
        assert_eq!(own(1).jwt.as_ref().unwrap().audience, ["x"]);
        assert_eq!(settings.auth, crate::auth::AuthSettings::default());
        let wrong = [("MQTT_BROKER__LISTENER__1__AUTH__PASWORD_FILE", "x")];
        let error = with(file, &wrong).unwrap_err();
        assert!(
            error.contains(wrong[0].0) && error.contains("`password_file`"),
            "{error}"
        );
    }

    #[test]
    fn an_error_names_its_variable() {
        for (name, value, expected) in [
            (
                "MQTT_BROKER__LIMITS__MAX_CONECTIONS",
                "7",
                "did you mean `max_connections`?",
            ),
            (
                "MQTT_BROKER__LIMITS__MAX_CONNECTIONS",
                "many",
                "invalid type",
            ),
            ("MQTT_BROKER__LISTENER__3__ADDRESS", "x", "not so many"),
            ("MQTT_BROKER__", "x", "not a key"),
        ] {
            let error = with("", &[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }
}
