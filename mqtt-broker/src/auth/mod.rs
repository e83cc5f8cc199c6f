//! Who clients are, and what they may do.

mod access;
mod acl;
mod authority;
mod certificate;
mod denials;
mod guard;
mod http;
mod login;
mod password;
mod pattern;
mod permissions;
mod policy;
mod rule;
mod scram;
mod secret;
mod settings;
mod token;

pub use crate::auth::acl::AclError;
pub use crate::auth::authority::{AuthError, AuthPlan, Authority};
pub use crate::auth::certificate::CertificateIdentity;
pub use crate::auth::denials::Denial;
pub use crate::auth::http::HttpError;
pub use crate::auth::password::file::{
    PasswordFileError, count_users, hash_passwords, new_password_file, password_line, remove_user,
    set_password,
};
pub use crate::auth::password::hash::HashKind;
pub use crate::auth::permissions::{Explanation, Permissions};
pub use crate::auth::rule::Action;
pub use crate::auth::settings::{
    AuthSettings, DeniedPublish, HttpSettings, JwtSettings, OnFailure,
};
pub use crate::auth::token::TokenKeyError;

pub(crate) use crate::auth::access::{Access, Owner, Proof};
pub(crate) use crate::auth::acl::Acl;
pub(crate) use crate::auth::denials::{Denials, LogLimit};
pub(crate) use crate::auth::guard::Guard;
pub(crate) use crate::auth::http::{Asked, HttpKey, Question, Reply, Told, Topics};
pub(crate) use crate::auth::login::{Login, LoginError};
pub(crate) use crate::auth::password::file::Passwords;
pub(crate) use crate::auth::scram::{Proven, SERVER_FINAL, ScramExchange};
pub(crate) use crate::auth::secret::Secret;
#[cfg(feature = "fuzzing")]
pub(crate) use crate::auth::{http::fuzz_answer, password::hash, token::Tokens};
