//! However a stream takes what is written, the same bytes come out, and receipts tell what is written whole.

use std::collections::VecDeque;

use futures_util::FutureExt;
use mqtt_codec::{PacketId, ProtocolVersion};
use mqtt_session::{Outgoing, Time, Transmission};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{Message, Receipt};

/// A stream that takes so many bytes at each call, then no more.
struct Narrow {
    takes: VecDeque<usize>,
    is_vectored: bool,
    bytes: Vec<u8>,
}

impl Narrow {
    fn take(&mut self, pieces: &[&[u8]]) -> Poll<io::Result<usize>> {
        assert!(pieces.iter().any(|piece| !piece.is_empty()));
        let Some(count) = self.takes.pop_front() else {
            return Poll::Pending;
        };
        let bytes = pieces.concat();
        let count = count.min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(&[bytes])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.is_vectored);
        let pieces: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
        self.take(&pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What is appended.
#[derive(Debug, Clone)]
enum Step {
    /// A message of this quality of service, with so many bytes.
    Publish(QoS, usize),
    /// A packet of the client's own.
    Short(Vec<u8>),
    /// Nothing: the stream takes so many bytes at each call.
    Write(Vec<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let qos = prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)];
    let size = prop_oneof![0..10_usize, LARGE_PAYLOAD - 2..LARGE_PAYLOAD + 2];
    prop_oneof![
        3 => (qos, size).prop_map(|(qos, size)| Step::Publish(qos, size)),
        1 => vec(any::<u8>(), 1..5).prop_map(Step::Short),
        2 => vec(1..2 * LARGE_PAYLOAD, 0..5).prop_map(Step::Write),
    ]
}

fn outbound(qos: QoS, size: usize, number: usize) -> (Outbound, Receipt) {
    let message = Message::new("t", vec![number as u8; size]).unwrap();
    Outbound::new(message.qos(qos), Time::default)
}

fn how(qos: QoS) -> Transmission {
    let mut how = Transmission::new(ProtocolVersion::V5);
    how.packet_id = (qos > QoS::AtMostOnce).then_some(PacketId::MAX);
    how
}

/// The packet, written the plain way.
fn packet(outbound: &Outbound) -> Vec<u8> {
    let mut bytes = Vec::new();
    let view = crate::outbound::view(&outbound.message);
    let how = how(outbound.qos());
    how.write_publish(view, &mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn any_way_of_writing_gives_the_same_bytes(
        steps in vec(step(), 1..30),
        is_vectored in any::<bool>(),
    ) {
        let mut stream = Narrow { takes: VecDeque::new(), is_vectored, bytes: Vec::new() };
        let mut output = Output::new(stream.is_write_vectored());
        let mut expected = Vec::new();
        // The receipts at QoS 0, with the place where each message ends.
        let mut receipts: VecDeque<(usize, Receipt)> = VecDeque::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Publish(qos, size) => {
                    let (outbound, receipt) = outbound(*qos, *size, number);
                    expected.extend(packet(&outbound));
                    outbound.encode(&how(*qos), &mut output);
                    if *qos == QoS::AtMostOnce {
                        receipts.push_back((expected.len(), receipt));
                        output.sent(outbound);
                    }
                }
                Step::Short(bytes) => {
                    expected.extend(bytes);
                    output.bytes().extend(bytes);
                }
                Step::Write(takes) => {
                    stream.takes = takes.iter().copied().collect();
                    while !output.is_empty() && !stream.takes.is_empty() {
                        let written = output.poll_write(Pin::new(&mut stream), &mut context);
                        prop_assert!(matches!(written, Poll::Ready(Ok(()))));
                    }
                }
            }
            let written = stream.bytes.len();
            prop_assert_eq!(output.size(), expected.len() - written);
            prop_assert_eq!(&output.copy_behind(0), &expected[written..]);
            for (end, receipt) in &mut receipts {
                prop_assert_eq!(receipt.now_or_never().is_some(), *end <= written);
            }
            receipts.retain(|(end, _)| *end > written);
        }
        prop_assert_eq!(&stream.bytes, &expected[..stream.bytes.len()]);
        prop_assert_eq!(output.take_unwritten().len(), receipts.len());
    }
}

#[test]
fn large_payloads_are_not_copied_where_the_stream_takes_pieces() {
    for is_vectored in [true, false] {
        let mut output = Output::new(is_vectored);
        let (message, _receipt) = outbound(QoS::AtLeastOnce, LARGE_PAYLOAD, 0);
        message.encode(&how(QoS::AtLeastOnce), &mut output);
        let lies_in = |payload: &Bytes| {
            output
                .pieces()
                .any(|piece| piece.as_ptr() == payload.as_ptr())
        };
        assert_eq!(lies_in(message.message.payload()), is_vectored);
        assert_eq!(output.bytes.len() < LARGE_PAYLOAD, is_vectored);
    }
}

#[test]
fn a_stream_that_takes_nothing_is_an_error() {
    let mut output = Output::new(false);
    output.bytes().push(1);
    let mut stream = Narrow {
        takes: VecDeque::from([0]),
        is_vectored: false,
        bytes: Vec::new(),
    };
    let mut context = Context::from_waker(std::task::Waker::noop());
    let written = output.poll_write(Pin::new(&mut stream), &mut context);
    assert!(matches!(written, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WriteZero));
}
