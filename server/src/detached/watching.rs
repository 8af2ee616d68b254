//! A channel that watches a detached job: its output from the files, at the pace of this one watcher, and its receipt at the end.

use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes};
use remora_engine::{LogPart, Output};
use remora_identity::statement::ReceiptKey;
use remora_net::{HIGH_WATER, Link};
use remora_wire::limits;
use remora_wire::native::{Server, Stream, proto};

use super::{Entry, Looking, lock};
use crate::attachment::Attachment;
use crate::job;
use crate::settings::Settings;

/// One watcher.
pub(crate) struct Watching {
    pub(crate) entry: Arc<Entry>,
    _looking: Looking,
    place: Attachment,
    /// It types: until another does.
    types: bool,
    streams: [Arc<Mutex<Slot>>; 2],
}

/// Bytes on their way from the file.
#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Reading,
    Read(std::io::Result<LogPart>),
    Here(Bytes),
}

/// What a look has come to.
pub(crate) enum Looked {
    Goes,
    Over(Box<proto::Receipt>),
}

impl Watching {
    /// Begins to watch, and says where the job's stdin is.
    ///
    /// # Errors
    /// Its output isn't kept from there on, or not there yet.
    pub(crate) fn begin(
        entry: Arc<Entry>,
        place: Attachment,
        start: &proto::Start,
    ) -> Result<(Self, proto::StdinPosition), proto::NotStarted> {
        entry.answers()?;
        let resume = start.resume.unwrap_or_default();
        for (output, position) in [(Output::Stdout, resume.stdout), (Output::Stderr, resume.stderr)] {
            let at = position.unwrap_or_default().received;
            let kept = entry.log.start(output).unwrap_or(u64::MAX)..=entry.end(output);
            if !kept.contains(&at) {
                let text = format!(
                    "the host keeps that output from {} to {}, and not {at}",
                    kept.start(),
                    kept.end()
                );
                return Err(job::unsuitable(proto::NotStartedClass::Unknown, &text));
            }
        }
        let given = entry.job.as_ref().map_or(0, |job| job.input_given());
        let consumed = entry.job.as_ref().map_or(0, |job| job.input_consumed()).min(given);
        let closed = entry.running().is_none_or(|job| job.input_closed());
        // Who comes back to type goes on only if nobody has typed since.
        let fits = resume.stdin.is_none_or(|at| (at.consumed..=at.received).contains(&given));
        let watcher = start.attach.as_ref().map(|attach| attach.watcher.clone()).unwrap_or_default();
        let mut typist = lock(&entry.typist);
        let is_others = typist.as_ref().is_some_and(|(its, _)| *its != watcher);
        let types = !start.no_stdin && !closed && fits && (resume.attempt == 0 || !is_others);
        if types && let Some((_, before)) = typist.replace((watcher, place.clone())) {
            before.observer()();
        }
        drop(typist);
        lock(&entry.watchers).push(place.clone());
        let at = proto::StdinPosition { received: given, consumed, ended: false, stopped: !types };
        let looking = Looking::at(&entry);
        Ok((Watching { entry, _looking: looking, place, types, streams: Default::default() }, at))
    }

    pub(crate) fn is_typist(&self) -> bool {
        self.types && lock(&self.entry.typist).as_ref().is_some_and(|(_, place)| *place == self.place)
    }

    /// Takes what was typed.
    pub(crate) fn write(&self, offset: u64, bytes: Bytes) {
        if let (true, Some(job)) = (self.is_typist(), self.entry.running())
            && let Err(error) = job.write(offset, bytes)
        {
            tracing::warn!(%error, "what was typed into a detached job is refused");
        }
    }

    /// Nothing more is typed.
    pub(crate) fn end_input(&self, length: u64) {
        if let (true, Some(job)) = (self.is_typist(), self.entry.running()) {
            let _ = job.end_input(length);
        }
    }

    /// Sends what there is.
    pub(crate) fn attend(
        &mut self,
        link: &mut Link<Server>,
        settings: &Settings,
        host_key: Option<&ReceiptKey>,
    ) -> std::io::Result<Looked> {
        let channel = self.place.channel;
        if let Some(job) = self.entry.running()
            && self.is_typist()
        {
            link.end.consume(channel, job.input_consumed());
            if job.input_closed() {
                link.end.stop_stdin(channel);
            }
        } else {
            link.end.stop_stdin(channel);
        }
        // Asked before the streams: what was there by then is sent before the receipt.
        let receipt = self.entry.receipt(settings, host_key, false);
        let mut is_sent = true;
        for (stream, output) in [(Stream::Stdout, Output::Stdout), (Stream::Stderr, Output::Stderr)] {
            match self.send(link, stream, output, receipt.is_some())? {
                Ok(is_over) => is_sent &= is_over,
                Err(text) => {
                    let why = job::unsuitable(proto::NotStartedClass::Unknown, &text);
                    let receipt = self.entry.note.subject(false).not_started(settings, why, host_key);
                    return Ok(Looked::Over(Box::new(receipt)));
                }
            }
        }
        match receipt {
            Some(receipt) if is_sent => return Ok(Looked::Over(Box::new(receipt))),
            _ if link.carrier.pending() >= HIGH_WATER => self.place.bell.mark(channel),
            _ => {}
        }
        Ok(Looked::Goes)
    }

    /// Sends a stream as far as it goes; true once its end is sent. The inner error is why it can't be gone on with.
    fn send(
        &mut self,
        link: &mut Link<Server>,
        stream: Stream,
        output: Output,
        is_over: bool,
    ) -> std::io::Result<Result<bool, String>> {
        let channel = self.place.channel;
        let [stdout, stderr] = &self.streams;
        let slot = if output == Output::Stdout { stdout } else { stderr };
        while link.carrier.pending() < HIGH_WATER {
            let Some(outgoing) = link.end.outgoing(channel, stream) else { return Ok(Ok(true)) };
            if outgoing.ended() {
                return Ok(Ok(true));
            }
            let (sent, room, stopped) = (outgoing.sent(), outgoing.room(), outgoing.stopped());
            let mut here = lock(slot);
            match std::mem::take(&mut *here) {
                Slot::Reading => {
                    *here = Slot::Reading;
                    return Ok(Ok(false));
                }
                _ if stopped => {
                    link.end.end(channel, stream);
                    return Ok(Ok(true));
                }
                Slot::Read(Ok(part)) if part.start > sent => {
                    return Ok(Err(format!(
                        "the output from {sent} to {} was dropped before it could be sent",
                        part.start
                    )));
                }
                Slot::Read(Ok(part)) if part.bytes.is_empty() => {}
                Slot::Read(Ok(part)) => *here = Slot::Here(part.bytes.into()),
                Slot::Read(Err(error)) => return Ok(Err(format!("its output can't be read: {error}"))),
                Slot::Here(mut bytes) => {
                    let length = usize::try_from(room).unwrap_or(usize::MAX);
                    let length = length.min(bytes.len()).min(limits::DATA_FRAME);
                    if let Some(header) = link.end.data_header(channel, stream, length)
                        && length > 0
                    {
                        link.write_data(&header, bytes.get(..length).unwrap_or_default(), &[])?;
                        bytes.advance(length);
                    }
                    if !bytes.is_empty() {
                        *here = Slot::Here(bytes);
                    }
                    if length == 0 {
                        return Ok(Ok(false));
                    }
                }
                Slot::Empty => {
                    let end = self.entry.end(output);
                    if sent >= end {
                        if is_over {
                            link.end.end(channel, stream);
                        }
                        return Ok(Ok(is_over));
                    }
                    if room == 0 {
                        return Ok(Ok(false));
                    }
                    *here = Slot::Reading;
                    let most = usize::try_from(room).unwrap_or(usize::MAX).min(limits::DATA_FRAME);
                    let (log, slot, tell) = (self.entry.log.clone(), slot.clone(), self.place.observer());
                    tokio::task::spawn_blocking(move || {
                        let read = log.read(output, sent, most);
                        *lock(&slot) = Slot::Read(read);
                        tell();
                    });
                    return Ok(Ok(false));
                }
            }
        }
        Ok(Ok(false))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        lock(&self.entry.watchers).retain(|place| *place != self.place);
        let mut typist = lock(&self.entry.typist);
        if typist.as_ref().is_some_and(|(_, place)| *place == self.place) {
            *typist = None;
        }
    }
}
