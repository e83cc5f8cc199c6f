//! Frames of RFC 6455 as a server reads them: taken apart in place, so that a connection holds no buffer.

/// Longest payload of a control frame (section 5.5).
pub(crate) const CONTROL_BYTES: usize = 125;
/// Bytes of the longest header: two, eight of length, four of mask.
const HEADER_BYTES: usize = 14;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// How a peer broke the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Section 5.1: what a client sends is masked.
    #[error("WebSocket frame without a mask")]
    Unmasked,
    /// Section 5.2: no extension was agreed on.
    #[error("WebSocket frame with reserved bits")]
    Reserved,
    /// An opcode without a meaning.
    #[error("WebSocket frame with opcode {0}")]
    Opcode(u8),
    /// [MQTT-6.0.0-1]: MQTT travels in binary frames.
    #[error("WebSocket text frame [MQTT-6.0.0-1]")]
    Text,
    /// Section 5.4: a new message within a fragmented one, or a continuation of none.
    #[error("WebSocket fragments out of order")]
    Fragments,
    /// Section 5.5: control frames are short and whole.
    #[error("WebSocket control frame too long or fragmented")]
    Control,
    /// Section 5.2: the highest bit of the length is 0.
    #[error("WebSocket frame of impossible length")]
    Length,
}

impl FrameError {
    /// The status that a Close frame gives for it (section 7.4.1).
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Text => 1003,
            _ => 1002,
        }
    }
}

/// What the peer wants besides data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// The payload of the last PING, which a PONG repeats.
    pub(crate) ping: Option<Vec<u8>>,
    /// It sent CLOSE; what follows is of no interest.
    pub(crate) close: bool,
}

#[derive(Debug)]
enum State {
    Header,
    Payload(Payload),
}

#[derive(Debug)]
struct Payload {
    opcode: u8,
    left: u64,
    mask: [u8; 4],
    /// Place in `mask` of the next byte.
    phase: usize,
}

/// Takes a stream of frames apart.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// Within a message of several frames.
    fragmented: bool,
    /// Payload of a control frame that is not whole yet.
    control: Vec<u8>,
    closed: bool,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Header,
            header: [0; HEADER_BYTES],
            header_len: 0,
            fragmented: false,
            control: Vec::new(),
            closed: false,
        }
    }

    /// Takes the next bytes of the stream, and moves the data among them, unmasked, to their front; returns
    /// how many bytes that is.
    pub(crate) fn decode(
        &mut self,
        bytes: &mut [u8],
        requests: &mut Requests,
    ) -> Result<usize, FrameError> {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() && !self.closed {
            match &mut self.state {
                State::Header => {
                    let Some(&byte) = bytes.get(from) else { break };
                    from += 1;
                    self.take_header_byte(byte, requests)?;
                }
                State::Payload(payload) => {
                    let available = (bytes.len() - from) as u64;
                    let count = available.min(payload.left) as usize;
                    if let Some(part) = bytes.get_mut(from..from + count) {
                        unmask(part, payload);
                        if payload.opcode >= CLOSE {
                            self.control.extend_from_slice(part);
                        } else {
                            bytes.copy_within(from..from + count, to);
                            to += count;
                        }
                    }
                    from += count;
                    payload.left -= count as u64;
                    self.finish_if_whole(requests);
                }
            }
        }
        Ok(to)
    }

    fn take_header_byte(&mut self, byte: u8, requests: &mut Requests) -> Result<(), FrameError> {
        if let Some(slot) = self.header.get_mut(self.header_len) {
            *slot = byte;
            self.header_len += 1;
        }
        let [first, second, ..] = self.header;
        match self.header_len {
            1 => self.check_first(first)?,
            2 => {
                if second & 0x80 == 0 {
                    return Err(FrameError::Unmasked);
                }
                if first & 0x0f >= CLOSE && usize::from(second & 0x7f) > CONTROL_BYTES {
                    return Err(FrameError::Control);
                }
            }
            _ => {}
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.header_len < 2 + extended + 4 {
            return Ok(());
        }
        let rest = self.header.get(2..self.header_len).unwrap_or_default();
        let (length, mask) = rest.split_at_checked(extended).unwrap_or_default();
        let left = match length {
            [] => u64::from(second & 0x7f),
            bytes => bytes
                .iter()
                .fold(0, |value, &byte| value << 8 | u64::from(byte)),
        };
        if left >> 63 != 0 {
            return Err(FrameError::Length);
        }
        let opcode = first & 0x0f;
        if opcode < CLOSE {
            self.fragmented = first & 0x80 == 0;
        }
        self.header_len = 0;
        self.state = State::Payload(Payload {
            opcode,
            left,
            mask: mask.try_into().unwrap_or_default(),
            phase: 0,
        });
        self.finish_if_whole(requests);
        Ok(())
    }

    fn check_first(&self, byte: u8) -> Result<(), FrameError> {
        if byte & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        let last = byte & 0x80 != 0;
        match byte & 0x0f {
            CONTINUATION if !self.fragmented => Err(FrameError::Fragments),
            BINARY if self.fragmented => Err(FrameError::Fragments),
            CONTINUATION | BINARY => Ok(()),
            TEXT => Err(FrameError::Text),
            CLOSE | PING | PONG if !last => Err(FrameError::Control),
            CLOSE | PING | PONG => Ok(()),
            opcode => Err(FrameError::Opcode(opcode)),
        }
    }

    fn finish_if_whole(&mut self, requests: &mut Requests) {
        let State::Payload(Payload {
            left: 0, opcode, ..
        }) = self.state
        else {
            return;
        };
        self.state = State::Header;
        match opcode {
            PING => requests.ping = Some(core::mem::take(&mut self.control)),
            CLOSE => {
                requests.close = true;
                self.closed = true;
            }
            _ => {}
        }
        self.control = Vec::new();
    }
}

/// Section 5.3.
fn unmask(bytes: &mut [u8], payload: &mut Payload) {
    let mut mask = payload.mask;
    mask.rotate_left(payload.phase);
    payload.phase = (payload.phase + bytes.len()) % 4;
    let word = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Writes the header of a whole binary frame of so many bytes into `header`; returns its length.
pub(crate) fn binary_header(len: usize, header: &mut [u8; 10]) -> usize {
    header[0] = 0x80 | BINARY;
    match len {
        0..=125 => {
            header[1] = len as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    }
}

/// Appends a PONG.
pub(crate) fn put_pong(payload: &[u8], out: &mut Vec<u8>) {
    put_control(PONG, payload, out);
}

/// Appends a CLOSE with a status.
pub(crate) fn put_close(status: u16, out: &mut Vec<u8>) {
    put_control(CLOSE, &status.to_be_bytes(), out);
}

fn put_control(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    let payload = payload.get(..CONTROL_BYTES).unwrap_or(payload);
    out.extend_from_slice(&[0x80 | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client writes it, by the letter of section 5.2.
    fn client_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(
            payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ mask[at % 4]),
        );
        out
    }

    fn decode(bytes: &[u8]) -> Result<(Vec<u8>, Requests), FrameError> {
        let mut decoder = Decoder::new();
        let mut requests = Requests::default();
        let mut bytes = bytes.to_vec();
        let len = decoder.decode(&mut bytes, &mut requests)?;
        bytes.truncate(len);
        Ok((bytes, requests))
    }

    #[test]
    fn the_example_of_the_standard() {
        // Section 5.7: a ping with the body "Hello".
        let ping = b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        let (data, requests) = decode(ping).unwrap();
        assert!(data.is_empty());
        assert_eq!(requests.ping.as_deref(), Some(b"Hello".as_slice()));
        let mut pong = Vec::new();
        put_pong(b"Hello", &mut pong);
        assert_eq!(pong, b"\x8a\x05Hello");
    }

    #[test]
    fn what_breaks_the_framing_is_named() {
        let cases: [(&[u8], FrameError); 9] = [
            (b"\x82\x05Hello", FrameError::Unmasked),
            (b"\xc2\x80", FrameError::Reserved),
            (b"\x83", FrameError::Opcode(3)),
            (b"\x81\x80\0\0\0\0", FrameError::Text),
            (b"\x80\x80\0\0\0\0", FrameError::Fragments),
            (b"\x02\x80\0\0\0\0\x82", FrameError::Fragments),
            (b"\x09\x80", FrameError::Control),
            (b"\x89\xfe", FrameError::Control),
            (b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", FrameError::Length),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes).unwrap_err(), error, "{bytes:02x?}");
        }
    }

    #[test]
    fn nothing_is_read_after_close() {
        let mut bytes = client_frame(0x88, [1; 4], &1000_u16.to_be_bytes());
        bytes.extend_from_slice(b"\xff\xff\xff garbage");
        let (data, requests) = decode(&bytes).unwrap();
        assert!(data.is_empty() && requests.close);
    }

    #[derive(Clone, Debug)]
    enum Part {
        Data(Vec<u8>),
        Ping(Vec<u8>),
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        let part = prop_oneof![
            3 => bytes(300).prop_map(Part::Data),
            1 => bytes(126).prop_map(Part::Ping),
        ];
        prop::collection::vec(part, 0..8)
    }

    proptest! {
        /// However frames are cut by the network, fragmented and mixed with PINGs, the data is the same.
        #[test]
        fn any_split_gives_the_same_data(
            parts in parts(),
            mask in any::<[u8; 4]>(),
            fragmented in any::<bool>(),
            cut in 1..40_usize,
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            let mut last_ping = None;
            let count = parts.iter().filter(|part| matches!(part, Part::Data(_))).count();
            let mut seen = 0;
            for part in &parts {
                match part {
                    Part::Data(data) => {
                        seen += 1;
                        let opcode = if fragmented && seen > 1 { 0 } else { BINARY };
                        let fin = if fragmented && seen < count { 0 } else { 0x80 };
                        stream.extend(client_frame(fin | opcode, mask, data));
                        expected.extend_from_slice(data);
                    }
                    Part::Ping(data) => {
                        stream.extend(client_frame(0x80 | PING, mask, data));
                        last_ping = Some(data.clone());
                    }
                }
            }
            let mut decoder = Decoder::new();
            let mut requests = Requests::default();
            let mut data = Vec::new();
            for chunk in stream.chunks(cut) {
                let mut chunk = chunk.to_vec();
                let len = decoder.decode(&mut chunk, &mut requests).unwrap();
                data.extend_from_slice(&chunk[..len]);
            }
            prop_assert_eq!(data, expected);
            prop_assert_eq!(requests.ping, last_ping);
        }

        /// Garbage is an error or data, never a panic, and never more data than bytes.
        #[test]
        fn garbage_is_bounded(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6)) {
            let mut decoder = Decoder::new();
            let mut requests = Requests::default();
            for mut chunk in chunks {
                let most = chunk.len();
                match decoder.decode(&mut chunk, &mut requests) {
                    Ok(len) => prop_assert!(len <= most),
                    Err(_) => break,
                }
                prop_assert!(decoder.control.len() <= CONTROL_BYTES);
            }
        }
    }
}
