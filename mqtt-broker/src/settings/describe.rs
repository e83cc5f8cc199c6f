//! Sections of the configuration file as types that can tell about their keys.

/// A key of a section, for those who write `broker.example.toml`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Lines of its documentation, each with a leading space.
    pub(crate) doc: &'static str,
    /// The default as TOML, or an example where there is none; empty for tables.
    pub(crate) text: &'static str,
    /// Whether `text` is an example.
    pub(crate) optional: bool,
}

/// A section.
pub(crate) trait Described {
    const KEYS: &'static [Key];
}

/// Declares a section: each key with its documentation, its default, and the default (or an example, where
/// the default is `None`) as TOML.
macro_rules! section {
    (
        $(#[$outer:meta])*
        struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $default:expr, $text:literal;
            )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::settings::describe::Described for $name {
            const KEYS: &'static [$crate::settings::describe::Key] = &[
                $(
                    $crate::settings::describe::Key {
                        name: stringify!($field),
                        doc: concat!($($doc, "\n"),+),
                        text: $text,
                        optional: matches!(stringify!($default).as_bytes(), b"None"),
                    },
                )*
            ];
        }
    };
}

pub(crate) use section;
