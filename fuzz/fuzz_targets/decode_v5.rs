//! Any bytes as packets of 5.0: decode, encode, decode.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_codec::ProtocolVersion;

fuzz_target!(|data: &[u8]| {
    ternmq_fuzz::check_round_trip(data, ProtocolVersion::V5);
});
