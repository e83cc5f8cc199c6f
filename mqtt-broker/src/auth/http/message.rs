//! What is said to a service, and what it answers: objects in JSON.

use core::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::auth::acl::claimed_rules;
use crate::auth::http::endpoint::{Failure, Reply};
use crate::auth::rule::RuleSet;

/// A client that wants to come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginRequest<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    /// Whom the client's certificate names.
    pub(crate) certificate: Option<&'a str>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) listener: Option<&'a str>,
    pub(crate) version: &'a str,
}

#[derive(Serialize)]
struct Login<'a> {
    client_id: &'a str,
    user: Option<&'a str>,
    /// If it is a text.
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<&'a str>,
    certificate: Option<&'a str>,
    address: Option<IpAddr>,
    listener: Option<&'a str>,
    version: &'a str,
}

impl LoginRequest<'_> {
    /// The body of the request; it is overwritten when the last who has it drops it.
    pub(crate) fn body(&self) -> Bytes {
        let text = self.password.map(core::str::from_utf8);
        let encoded = self
            .password
            .filter(|_| text.is_some_and(|text| text.is_err()))
            .map(|bytes| Zeroizing::new(STANDARD.encode(bytes)));
        let login = Login {
            client_id: self.client_id,
            user: self.user,
            password: text.and_then(Result::ok),
            password_base64: encoded.as_ref().map(|text| text.as_str()),
            certificate: self.certificate,
            address: self.address,
            listener: self.listener,
            version: self.version,
        };
        // Texts, numbers and an address always are JSON.
        let body = serde_json::to_vec(&login).unwrap_or_default();
        Bytes::from_owner(Zeroizing::new(body))
    }
}

/// A client that wants to publish or to subscribe.
#[derive(Serialize)]
pub(crate) struct TopicRequest<'a> {
    pub(crate) action: &'a str,
    pub(crate) topic: &'a str,
    /// The group of a shared subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<&'a str>,
    /// None where it is not known any more: of a session that is resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) qos: Option<u8>,
    pub(crate) retain: bool,
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) listener: Option<&'a str>,
}

/// What a service says about a client.
#[derive(Clone, Debug)]
pub(crate) enum LoginAnswer {
    Allow(Allowance),
    Deny,
    /// It is for others to say.
    Next,
}

/// How a client is let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    /// Another name than the one that the client gave.
    pub(crate) user: Option<Arc<str>>,
    /// It may do everything.
    pub(crate) is_superuser: bool,
    /// The second since 1970 at which its connection ends.
    pub(crate) ends: Option<u64>,
    /// What it may do beside what the file of permissions says.
    pub(crate) rules: Option<Arc<RuleSet>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Allow,
    Deny,
    Next,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    result: Outcome,
    user: Option<String>,
    #[serde(default)]
    superuser: bool,
    expires: Option<u64>,
    permissions: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicBody {
    result: Outcome,
}

/// Reads the object that a body is. Lists of the same values in the same order are not taken for it.
fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Failure::Garbage);
    }
    serde_json::from_slice(body).map_err(|_| Failure::Garbage)
}

/// What the status alone says; none: the body says it.
fn by_status(reply: &Reply) -> Result<Option<bool>, Failure> {
    match reply.status {
        StatusCode::OK => Ok(None),
        StatusCode::NO_CONTENT => Ok(Some(true)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(Some(false)),
        other => Err(Failure::Status(other)),
    }
}

/// What a service says about a client; `source` is where its permissions come from.
pub(crate) fn login_answer(reply: &Reply, source: &Arc<str>) -> Result<LoginAnswer, Failure> {
    match by_status(reply)? {
        Some(true) => return Ok(LoginAnswer::Allow(Allowance::default())),
        Some(false) => return Ok(LoginAnswer::Deny),
        None => {}
    }
    let body: LoginBody = object(&reply.body)?;
    match body.result {
        Outcome::Deny => return Ok(LoginAnswer::Deny),
        Outcome::Next => return Ok(LoginAnswer::Next),
        Outcome::Allow => {}
    }
    let is_name = |user: &String| {
        let fits = !user.is_empty() && user.len() <= usize::from(u16::MAX);
        fits && !user.contains(char::is_control)
    };
    if !body.user.as_ref().is_none_or(is_name) {
        return Err(Failure::Garbage);
    }
    let rules = match &body.permissions {
        None => None,
        // What cannot be understood allows nothing, and may deny something.
        Some(claim) => Some(claimed_rules(claim, source).ok_or(Failure::Garbage)?),
    };
    Ok(LoginAnswer::Allow(Allowance {
        user: body.user.map(Into::into),
        is_superuser: body.superuser,
        ends: body.expires,
        rules: rules.map(Arc::new),
    }))
}

/// Whether a service allows it; none: it is for others to say.
pub(crate) fn topic_answer(reply: &Reply) -> Result<Option<bool>, Failure> {
    if let Some(said) = by_status(reply)? {
        return Ok(Some(said));
    }
    let body: TopicBody = object(&reply.body)?;
    Ok(match body.result {
        Outcome::Allow => Some(true),
        Outcome::Deny => Some(false),
        Outcome::Next => None,
    })
}

/// What an answer says of a client and of a topic; none: nothing that can be understood.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_answer(status: u16, body: &[u8]) -> (Option<bool>, Option<bool>) {
    let Ok(status) = StatusCode::from_u16(status) else {
        return (None, None);
    };
    let body = Bytes::copy_from_slice(body);
    let reply = Reply { status, body };
    let login = login_answer(&reply, &"service".into());
    let login = login.map(|answer| matches!(answer, LoginAnswer::Allow(_)));
    (login.ok(), topic_answer(&reply).ok().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// A password that is no text is sent in another field, and what is not known is null.
    #[test]
    fn a_login_is_an_object() {
        let request = |password| LoginRequest {
            client_id: "c\"",
            user: None,
            password,
            certificate: Some("anna"),
            address: Some([127, 0, 0, 1].into()),
            listener: None,
            version: "3.1.1",
        };
        let body = |password| {
            let body = request(password).body();
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()
        };
        let text = serde_json::json!({
            "client_id": "c\"", "user": null, "password": "x", "certificate": "anna",
            "address": "127.0.0.1", "listener": null, "version": "3.1.1",
        });
        assert_eq!(body(Some(b"x")), text);
        let mut bytes = text.clone();
        bytes["password"] = serde_json::Value::Null;
        assert_eq!(body(None), bytes);
        bytes["password_base64"] = "/w==".into();
        assert_eq!(body(Some(b"\xff")), bytes);
    }

    /// What is not exactly an answer is none.
    #[test]
    fn what_cannot_be_understood_is_no_answer() {
        let source: Arc<str> = "service".into();
        let garbage = [
            "",
            "{",
            "[]",
            r#"["allow"]"#,
            r#"["allow", null, true, null, null]"#,
            "null",
            "\"allow\"",
            "{}",
            r#"{"result": "Allow"}"#,
            r#"{"result": true}"#,
            r#"{"result": "allow", "admin": true}"#,
            r#"{"result": "allow", "user": ""}"#,
            r#"{"result": "allow", "user": "a\nb"}"#,
            r#"{"result": "allow", "expires": -1}"#,
            r#"{"result": "allow", "expires": "1"}"#,
            r#"{"result": "allow", "permissions": "all"}"#,
            r##"{"result": "allow", "permissions": [["#"]]}"##,
            r#"{"result": "allow", "permissions": {"publish": ["a/#/b"]}}"#,
            r#"{"result": "allow"} {"result": "deny"}"#,
        ];
        for body in garbage {
            let answer = login_answer(&reply(200, body), &source);
            assert_eq!(answer.unwrap_err(), Failure::Garbage, "{body}");
        }
        for body in [
            "",
            "{}",
            r#"["allow"]"#,
            r#"{"result": "allow", "user": "a"}"#,
        ] {
            assert_eq!(
                topic_answer(&reply(200, body)),
                Err(Failure::Garbage),
                "{body}"
            );
        }
        for status in [201, 301, 400, 404, 429, 500, 503] {
            let answer = topic_answer(&reply(status, r#"{"result": "allow"}"#));
            assert!(matches!(answer, Err(Failure::Status(_))), "{status}");
        }
        assert_eq!(topic_answer(&reply(204, "")), Ok(Some(true)));
        assert_eq!(topic_answer(&reply(403, "allow")), Ok(Some(false)));
        assert_eq!(topic_answer(&reply(200, r#"{"result": "next"}"#)), Ok(None));
    }
}
