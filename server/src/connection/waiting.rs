//! Starts that wait: their jobs' keepers have not answered yet, or they are being detached. What comes for their channels meanwhile is
//! held, and given to them afterwards.

use bytes::{Bytes, BytesMut};
use remora_wire::native::{ServerEvent, proto};

/// Events that are held of one channel at the most, input apart, which its window bounds.
const MOST: usize = 256;

/// What came for a channel.
pub(super) struct Waiting {
    pub(super) start: proto::Start,
    held: Vec<ServerEvent>,
}

impl Waiting {
    pub(super) fn new(start: proto::Start) -> Self {
        Waiting { start, held: Vec::new() }
    }

    /// Holds an event. Pieces of input that follow each other become one.
    pub(super) fn hold(&mut self, event: ServerEvent) {
        if let (
            ServerEvent::Data { offset, bytes, .. },
            Some(ServerEvent::Data { offset: first, bytes: before, .. }),
        ) = (&event, self.held.last_mut())
            && first.checked_add(before.len() as u64) == Some(*offset)
        {
            let mut all = BytesMut::from(std::mem::take(before));
            all.extend_from_slice(bytes);
            *before = Bytes::from(all);
            return;
        }
        let is_input = matches!(event, ServerEvent::Data { .. } | ServerEvent::End { .. });
        if is_input || self.held.len() < MOST {
            self.held.push(event);
        } else if matches!(event, ServerEvent::Close { .. }) {
            // Whatever else it wanted: it wants no more of it.
            self.held = vec![event];
        }
    }

    /// What was held, in its order.
    pub(super) fn into_held(self) -> Vec<ServerEvent> {
        self.held
    }
}

/// The channel that an event is about, if it is about one that a start may wait on.
pub(super) fn channel_of(event: &ServerEvent) -> Option<u32> {
    match event {
        ServerEvent::Data { channel, .. }
        | ServerEvent::End { channel, .. }
        | ServerEvent::Credit { channel, .. }
        | ServerEvent::Stop { channel, .. }
        | ServerEvent::Signal { channel, .. }
        | ServerEvent::Resize { channel, .. }
        | ServerEvent::Close { channel } => Some(*channel),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_is_held_is_whole_and_the_rest_is_bounded() {
        let mut waiting = Waiting::new(proto::Start::default());
        for offset in 0..1000 {
            waiting.hold(ServerEvent::Data { channel: 1, offset, bytes: Bytes::from_static(b"x") });
        }
        for _ in 0..10_000 {
            waiting.hold(ServerEvent::Signal { channel: 1, name: "INT".to_owned() });
        }
        waiting.hold(ServerEvent::End { channel: 1, length: 1000 });
        let held = waiting.into_held();
        assert_eq!(held.len(), MOST + 1);
        assert!(matches!(&held[0], ServerEvent::Data { offset: 0, bytes, .. } if bytes.len() == 1000));
        assert!(matches!(held.last(), Some(ServerEvent::End { length: 1000, .. })));
    }
}
