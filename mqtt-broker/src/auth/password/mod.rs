//! Passwords: how they are kept, and how they are checked without holding anybody up.

pub(crate) mod file;
pub(crate) mod hash;
pub(crate) mod pool;
