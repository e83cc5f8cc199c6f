//! A service that is asked by HTTP who clients are, and what they may do.

mod asked;
mod cache;
mod endpoint;
mod message;
mod service;
mod told;
mod topics;

use std::path::Path;

pub(crate) use crate::auth::http::asked::{Asked, Question};
pub(crate) use crate::auth::http::message::LoginRequest;
#[cfg(feature = "fuzzing")]
pub(crate) use crate::auth::http::message::fuzz_answer;
pub(crate) use crate::auth::http::service::{Answered, Service, Unanswered};
pub(crate) use crate::auth::http::told::Told;
pub(crate) use crate::auth::http::topics::{Reply, Topics};

use crate::auth::settings::HttpSettings;

/// Reads what the settings name: who is asked about clients, and who about topics. Blocks.
pub(crate) fn load(
    settings: &HttpSettings,
) -> Result<(Option<Service>, Option<Topics>), HttpError> {
    if settings.url.is_none() && settings.topic_url.is_none() {
        let problem = "a service needs a `url`, a `topic_url` or both";
        return Err(HttpError::new(HttpKey::Section, problem));
    }
    Ok((Service::load(settings)?, Topics::load(settings)?))
}

/// Why a service cannot be asked as the settings say.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct HttpError {
    /// The key of the section that is at fault.
    pub(crate) key: HttpKey,
    problem: String,
}

/// A key of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpKey {
    Url,
    TopicUrl,
    Authorities,
    AuthorizationFile,
    /// Neither URL is there.
    Section,
}

impl HttpError {
    fn new(key: HttpKey, problem: impl ToString) -> Self {
        Self {
            key,
            problem: problem.to_string(),
        }
    }

    fn of_file(key: HttpKey, file: &Path, problem: impl core::fmt::Display) -> Self {
        Self::new(key, format_args!("{}: {problem}", file.display()))
    }
}
