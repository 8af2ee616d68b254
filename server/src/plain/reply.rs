//! One request, from the command to the last byte of its reply.

use std::sync::Arc;

use bytes::Bytes;
use remora_engine::{
    Begun, EndReason, Ended, Engine, Job, JobRequest, LimitKind, NotStarted, Outcome, Output, Program,
};
use remora_wire::plain::{Digests, EndedBy, Ending, Header, Streams, Wire, length_prefix};
use tokio::io::Interest;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::spool::{self, Spool, SpoolError};
use super::transcode::Transcoder;
use super::{Connection, FAREWELL, Gone, leaves};
use crate::connection::chain;
use crate::serve::Phase;
use crate::settings::Settings;

/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;
/// What the payload of a `header` reply is called.
const FILE_NAME: &str = "output.txt";

/// One output stream on its way into a reply.
struct Flow {
    which: Output,
    taken: u64,
    transcoder: Option<Transcoder>,
    over: bool,
}

impl Flow {
    fn new(which: Output, encoding: Option<&'static encoding_rs::Encoding>) -> Self {
        Flow { which, taken: 0, transcoder: encoding.map(Transcoder::new), over: false }
    }

    /// The next bytes, as they are to be sent; none when there are none now.
    fn take(&mut self, job: &Job) -> Option<Vec<u8>> {
        let progress = job.progress(self.which);
        let waiting = usize::try_from(progress.produced.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let take = waiting.min(CHUNK);
        let last = progress.ended && take == waiting;
        if self.over || (take == 0 && !last) {
            return None;
        }
        let mut bytes = Vec::with_capacity(take);
        // Nobody else acknowledges, so what was produced is still there.
        let _ = job.output(self.which, self.taken, |first, second| {
            bytes.extend_from_slice(first.get(..take).unwrap_or(first));
            bytes.extend_from_slice(second.get(..take - bytes.len()).unwrap_or(second));
        });
        self.taken += bytes.len() as u64;
        job.acknowledge(self.which, self.taken);
        self.over = last;
        Some(match &mut self.transcoder {
            Some(transcoder) => transcoder.convert(&bytes, last),
            None => bytes,
        })
    }
}

/// A reply that may be sent, or, on `raw`, the rest of one.
struct Reply {
    spool: Spool,
    /// Digests of stdout.
    digests: Digests,
    ending: Ending,
    /// What made us end it.
    ended_by: Option<EndedBy>,
    /// Bytes of stdout that went out already.
    sent: u64,
}

impl Connection {
    /// Runs one request and sends its reply.
    ///
    /// # Errors
    /// [`Gone`], once the command has ended.
    pub(super) async fn answer(&mut self, request: Bytes) -> Result<(), Gone> {
        let settings = self.settings.borrow().clone();
        let limit = spool::limit(self.wire, settings.limits.output);
        let reply = Reply {
            spool: Spool::new(limit, settings.spool_dir.clone()),
            digests: Digests::new(),
            ending: Ending::Unknown,
            ended_by: None,
            sent: 0,
        };
        let bell = Arc::new(Notify::new());
        let mut leader = None;
        let reply = match self.start(request, &settings, &bell).await {
            Ok(job) => {
                info!(peer = %self.peer, pid = job.pid(), "job started");
                leader = Some(job.pid());
                let reply = self.collect(&job, &bell, reply).await;
                match reply {
                    Ok(reply) => reply,
                    Err(Gone) => {
                        // A reset ends the job, its whole process group.
                        job.close_output(Output::Stdout);
                        job.close_output(Output::Stderr);
                        job.close(EndReason::ClientGone);
                        job.wait().await;
                        info!(peer = %self.peer, pid = job.pid(), "job ended with its connection");
                        self.groups.note(job.pid()).await;
                        return Err(Gone);
                    }
                }
            }
            Err((text, ending)) => {
                info!(peer = %self.peer, reason = %text, "job not started");
                replaced(reply, &text, ending)
            }
        };
        let mut phase = self.phase.clone();
        let sent = tokio::select! {
            biased;
            sent = self.send(reply) => sent,
            () = async {
                leaves(&mut phase, Phase::Draining).await;
                tokio::time::sleep(FAREWELL).await;
            } => Err(Gone),
        };
        if let Some(leader) = leader {
            self.groups.note(leader).await;
        }
        sent
    }

    /// Starts the command; else what to tell the peer.
    async fn start(
        &self,
        request: Bytes,
        settings: &Settings,
        bell: &Arc<Notify>,
    ) -> Result<Job, (String, Ending)> {
        if request.contains(&0) {
            return Err(("the request holds a NUL byte, and no command can".to_owned(), Ending::Exited(126)));
        }
        let shell = Some("/bin/sh".into());
        let session = Some(self.session.clone());
        let request = JobRequest { shell, session, ..JobRequest::new(Program::Line(request.into())) };
        let permitted = settings
            .policy
            .permit(&self.who, request)
            .map_err(|refusal| (refusal.to_string(), Ending::Exited(196)))?;
        let bell = Arc::clone(bell);
        let on_change = Arc::new(move || bell.notify_one());
        let begun = Engine::begin(&settings.engine, permitted, settings.limits.engine(None), on_change);
        let started = match begun {
            Ok(Begun::Started(job)) => Ok(job),
            Ok(Begun::Later(later)) => match tokio::task::spawn_blocking(move || later.finish()).await {
                Ok(started) => started,
                Err(error) => return Err((format!("not started: {error}"), Ending::Exited(199))),
            },
            Err(error) => Err(error),
        };
        started.map_err(|error| (format!("not started: {error}"), Ending::Exited(status(&error))))
    }

    /// Moves the output into the spool, or, on `raw`, stdout to the peer at once, until the job is finished.
    async fn collect(&mut self, job: &Job, bell: &Notify, mut reply: Reply) -> Result<Reply, Gone> {
        let live = self.wire == Wire::Raw;
        let mut phase = self.phase.clone();
        let mut ending = false;
        let mut excess: Option<SpoolError> = None;
        let mut pending = Bytes::new();
        let mut flows = [Flow::new(Output::Stdout, self.encoding), Flow::new(Output::Stderr, self.encoding)];
        loop {
            let finished = job.finished();
            let mut moved = false;
            for flow in &mut flows {
                let to_peer = live && flow.which == Output::Stdout;
                if to_peer && !pending.is_empty() {
                    continue;
                }
                let Some(bytes) = flow.take(job) else { continue };
                moved = true;
                if to_peer {
                    pending = bytes.into();
                    continue;
                }
                if excess.is_some() {
                    continue;
                }
                if flow.which == Output::Stdout && self.wire == Wire::Header {
                    reply.digests.update(&bytes);
                }
                if let Err(error) = reply.spool.push(flow.which, &bytes) {
                    job.close(EndReason::Limit(LimitKind::Output));
                    reply.spool.clear();
                    excess = Some(error);
                }
            }
            if let Some(ended) = finished
                && pending.is_empty()
                && flows.iter().all(|flow| flow.over)
            {
                return Ok(conclude(reply, &ended, excess.as_ref()));
            }
            tokio::select! {
                biased;
                // Half-closing is no error, a reset is: EPOLLERR comes without reading what waits (tcp_poll in net/ipv4/tcp.c).
                _ = self.stream.ready(Interest::ERROR) => return Err(Gone),
                () = leaves(&mut phase, Phase::Draining), if !ending => {
                    ending = true;
                    job.close(EndReason::Shutdown);
                }
                _ = self.stream.writable(), if !pending.is_empty() => {
                    let written = self.try_write(&pending)?;
                    reply.sent += written as u64;
                    let _ = pending.split_to(written);
                }
                () = tokio::task::yield_now(), if moved => {}
                () = bell.notified(), if !moved => {}
            }
        }
    }

    /// Sends a reply, or what is left of it.
    async fn send(&self, mut reply: Reply) -> Result<(), Gone> {
        let mut buffer = vec![0; CHUNK];
        let streams = Streams {
            stdout: reply.spool.length(Output::Stdout),
            stderr: reply.spool.length(Output::Stderr),
        };
        let total = reply.spool.total();
        match self.wire {
            // A peer that waits for a byte would wait for ever.
            Wire::Raw if reply.sent + total == 0 => self.write(b"\n").await?,
            Wire::Raw => {}
            Wire::Length => self.write(&length_prefix(total).ok_or(Gone)?).await?,
            Wire::Header => {
                let mut at = 0;
                while at < streams.stderr {
                    let bytes = read(&reply.spool, Output::Stderr, at, &mut buffer)?;
                    reply.digests.update(bytes);
                    at += bytes.len() as u64;
                    tokio::task::yield_now().await;
                }
                let (md5, blake3) = reply.digests.finish();
                let header = Header {
                    total_size: total,
                    md5: Some(md5),
                    blake3: Some(blake3),
                    file_name: Some(FILE_NAME.to_owned()),
                    streams: Some(streams),
                    ending: Some(reply.ending),
                    ended_by: reply.ended_by,
                    ignored: Vec::new(),
                };
                self.write(&header.encode()).await?;
            }
        }
        for (which, length) in [(Output::Stdout, streams.stdout), (Output::Stderr, streams.stderr)] {
            let mut at = 0;
            while at < length {
                let bytes = read(&reply.spool, which, at, &mut buffer)?;
                self.write(bytes).await?;
                at += bytes.len() as u64;
            }
        }
        Ok(())
    }

    async fn write(&self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            self.stream.writable().await.map_err(|_| Gone)?;
            let written = self.try_write(bytes)?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn try_write(&self, bytes: &[u8]) -> Result<usize, Gone> {
        match self.stream.try_write(bytes) {
            Ok(written) => Ok(written),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => {
                info!(peer = %self.peer, %error, "connection lost");
                Err(Gone)
            }
        }
    }
}

/// Bytes of a reply; never none, as long as there are some.
fn read<'a>(spool: &Spool, which: Output, at: u64, buffer: &'a mut [u8]) -> Result<&'a [u8], Gone> {
    match spool.read(which, at, buffer) {
        Ok(count) if count > 0 => Ok(buffer.get(..count).unwrap_or_default()),
        Ok(_) => {
            warn!("a reply's file is shorter than what was written to it");
            Err(Gone)
        }
        Err(error) => {
            warn!(%error, "can't read a reply's file");
            Err(Gone)
        }
    }
}

/// A reply that says something instead of what the command printed.
fn replaced(mut reply: Reply, text: &str, ending: Ending) -> Reply {
    reply.spool.clear();
    reply.digests = Digests::new();
    // Whatever the limit: this is what tells of it.
    reply.spool.notice(&format!("remora: {text}\n"));
    reply.ending = ending;
    reply
}

/// The reply of a job that is over.
fn conclude(mut reply: Reply, ended: &Ended, excess: Option<&SpoolError>) -> Reply {
    let outcome = ended.outcome();
    info!(pid = ended.pid, ?outcome, "job ended");
    let (ending, by) = match outcome {
        Outcome::Exited(status) => (Ending::Exited(u8::try_from(status).unwrap_or(u8::MAX)), None),
        Outcome::Signaled { signal, by, .. } => {
            (Ending::Signaled(u8::try_from(signal.number()).unwrap_or(0)), by)
        }
        Outcome::Deadline => (Ending::Exited(124), Some(EndReason::Deadline)),
        Outcome::Unknown => (Ending::Unknown, None),
    };
    // The command may have ended by itself while its reply outgrew the limit: that isn't told as success.
    let limited = match ending {
        Ending::Signaled(_) => ending,
        Ending::Exited(_) | Ending::Unknown | Ending::Impossible(_) => Ending::Signaled(15),
    };
    reply.ended_by = match (excess, by) {
        (Some(_), _) | (None, Some(EndReason::Limit(LimitKind::Output))) => Some(EndedBy::Output),
        (None, Some(EndReason::Limit(_))) => Some(EndedBy::Memory),
        (None, Some(EndReason::Deadline)) => Some(EndedBy::Deadline),
        (None, Some(EndReason::Shutdown)) => Some(EndedBy::Shutdown),
        (None, Some(_) | None) => None,
    };
    // On `raw`, stdout is on its way before anybody knows.
    let told = match reply.sent {
        0 => "its output is not sent",
        _ => "what stands before this line is all of its output that is sent",
    };
    match (excess, by) {
        (Some(error), _) => {
            let text = format!("{}; the command was ended, and {told}", chain(error));
            return replaced(reply, &text, limited);
        }
        (None, Some(EndReason::Limit(LimitKind::Output))) => {
            let text = format!("the command printed more than its limit; it was ended, and {told}");
            return replaced(reply, &text, limited);
        }
        (None, Some(EndReason::Deadline)) => {
            reply.spool.notice("remora: the command ran into its time limit and was ended\n")
        }
        (None, Some(EndReason::Limit(_))) => {
            reply.spool.notice("remora: the command used more memory than its limit\n")
        }
        (None, Some(EndReason::Shutdown)) => {
            reply.spool.notice("remora: the server stops and ended the command\n")
        }
        (None, Some(_) | None) if ending == Ending::Unknown => {
            reply.spool.notice("remora: how the command ended is not known\n");
        }
        (None, Some(_) | None) => {}
    }
    reply.ending = ending;
    reply
}

/// The exit status that docs/EXIT-STATUS.md gives a command that was not started.
fn status(error: &NotStarted) -> u8 {
    use remora_engine::Blame;
    match error.blame() {
        Blame::NotFound => 127,
        Blame::CannotExec => 126,
        Blame::HostFull => 194,
        Blame::Internal => 199,
        Blame::Unknown => 198,
    }
}
