//! Bytes written as hex, with a comment after `;` on each line.

/// The bytes of a commented hex text.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.lines()
        .map(|line| line.split(';').next().unwrap_or(""))
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("not hex: {byte}")))
        .collect()
}
