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
    /// Whether a change holds from the next start only.
    pub(crate) at_start: bool,
}

/// A section.
pub(crate) trait Described {
    const KEYS: &'static [Key];

    /// The keys that have other values than in `other`.
    fn differing(&self, other: &Self) -> Vec<&'static Key>;
}

/// Declares a section: each key with its documentation, its default, and the default (or an example, where
/// the default is `None`) as TOML; `at_start` behind it marks those of which a change holds from the next start only.
macro_rules! section {
    (
        $(#[$outer:meta])*
        struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $default:expr, $text:literal $($at_start:ident)?;
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
                        at_start: matches!(concat!($(stringify!($at_start))?).as_bytes(), b"at_start"),
                    },
                )*
            ];

            fn differing(&self, other: &Self) -> Vec<&'static $crate::settings::describe::Key> {
                let same = [$(self.$field == other.$field),*];
                let keys = Self::KEYS.iter().zip(same);
                keys.filter_map(|(key, same)| (!same).then_some(key)).collect()
            }
        }
    };
}

pub(crate) use section;
