//! Any bytes as packets of 3.1 and of 3.1.1: decode, encode, decode.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_codec::ProtocolVersion;

fuzz_target!(|data: &[u8]| {
    ternmq_fuzz::check_round_trip(data, ProtocolVersion::V3_1);
    ternmq_fuzz::check_round_trip(data, ProtocolVersion::V3_1_1);
});
