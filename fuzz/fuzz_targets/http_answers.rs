//! Any answer of a service that is asked who clients are: it is understood, or it is a failure and lets nobody in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_broker::fuzzing::http_answer;
use serde_json::Value;

fuzz_target!(|input: (u16, &[u8])| {
    // Mostly the one whose body counts.
    let status = if input.0.is_multiple_of(4) {
        input.0 / 4
    } else {
        200
    };
    let (login, topic) = http_answer(status, input.1);
    match status {
        204 => assert_eq!((login, topic), (Some(true), Some(true))),
        401 | 403 => assert_eq!((login, topic), (Some(false), Some(false))),
        200 => {
            let body: Option<Value> = serde_json::from_slice(input.1).ok();
            let result = body.as_ref().and_then(|body| body.get("result")?.as_str());
            if login == Some(true) || topic == Some(true) {
                assert_eq!(result, Some("allow"));
            }
            if topic == Some(false) {
                assert_eq!(result, Some("deny"));
            }
        }
        _ => assert_eq!((login, topic), (None, None)),
    }
});
