//! A connection's way to detached jobs: their starts, and the channels that watch them.

use std::sync::Arc;

use bytes::Bytes;
use remora_wire::native::proto;
use tracing::info;

use super::Connection;
use super::waiting::Waiting;
use crate::detached::{self, Begun, Looked, Note, Owner, Watching};
use crate::job::{self, Subject};
use crate::record::request_digest;
use crate::registry::Pending;
use crate::sessions;
use crate::settings::Settings;

/// Why the channel of a detached job is closed.
const DETACHED: &str = "it goes on without a connection";

impl Connection {
    /// Starts a job that is detached from the start. It is answered when it is on the disk.
    pub(super) fn start_detached(&mut self, channel: u32, start: &proto::Start) {
        let settings = self.settings.borrow().clone();
        let mut subject = Subject::of(start, &self.who);
        match self.prepare_detached(start, &settings, &mut subject) {
            Ok(begun) => {
                let bell = self.bell.clone();
                self.starting += 1;
                tokio::spawn(async move {
                    let result = detached::begin(begun).await.map(|entry| entry.pid());
                    let mut ready = bell.lock();
                    ready.begun.push((channel, subject, result));
                    ready.wake();
                });
            }
            Err(why) => self.tell_begun(channel, &subject, Err(why)),
        }
    }

    fn prepare_detached(
        &self,
        start: &proto::Start,
        settings: &Arc<Settings>,
        subject: &mut Subject,
    ) -> Result<Begun, proto::NotStarted> {
        use proto::NotStartedClass as Why;
        self.check(start, settings)?;
        if self.draining {
            return Err(job::unsuitable(Why::HostFull, "the server stops"));
        }
        if !settings.engine.has_keepers() {
            let text = "this host gives commands no keepers, so that none can be detached";
            return Err(job::unsuitable(Why::Incompatible, text));
        }
        let name = start.detach.as_ref().map(|detach| detach.name.as_str()).unwrap_or_default();
        detached::check_name(name)?;
        let (session, directory) = self.place_of(start, settings)?;
        subject.session = session.as_ref().map(sessions::apart);
        subject.working_directory = directory;
        let owner = Owner::of(&self.who);
        let note = Note::new(&owner, start, request_digest(start), subject, settings.boot_id);
        let mut request = job::request(start, session)
            .ok_or_else(|| job::unsuitable(Why::Incompatible, "there is no command"))?;
        let id = start.job_id.as_slice().try_into();
        let id = id.map_err(|_| job::unsuitable(Why::Incompatible, "its job id isn't 16 bytes"))?;
        request.key = Some(owner.key(&id));
        request.note = prost::Message::encode_to_vec(&note);
        request.detach = start.detach.as_ref().map(detached::plan);
        let permitted =
            settings.policy.permit(&self.who, request).map_err(|refusal| job::refused(&refusal))?;
        let limits = settings.limits.engine(job::timeout(start));
        let is_known = start.resume.is_some_and(|resume| resume.known);
        Ok(Begun { settings: settings.clone(), note, is_known, permitted, limits })
    }

    /// Says what came of a start.
    pub(super) fn tell_begun(
        &mut self,
        channel: u32,
        subject: &Subject,
        result: Result<u64, proto::NotStarted>,
    ) {
        match result {
            Ok(pid) => {
                info!(peer = %self.peer, user = %self.who.user(), pid, "detached job started");
                self.link.end.resumed(channel, pid, &proto::StdinPosition::default());
                self.link.end.detached(channel, DETACHED);
            }
            Err(why) => {
                info!(peer = %self.peer, user = %self.who.user(), reason = %why.text, "job not started");
                let receipt = subject.not_started(&self.settings.borrow(), why, self.host_key.as_ref());
                self.link.end.receipt(channel, &receipt);
            }
        }
    }

    /// Whether a start is of a job that was detached since.
    pub(super) fn is_detached(&self, start: &proto::Start, settings: &Settings) -> bool {
        let found = settings.detached.of_id(&Owner::of(&self.who), &start.job_id);
        found.is_some_and(|entry| entry.is_of(&request_digest(start)))
    }

    /// Says that a channel's job is detached.
    pub(super) fn tell_detached(&mut self, channel: u32) {
        info!(peer = %self.peer, user = %self.who.user(), "a job was detached");
        self.link.end.detached(channel, DETACHED);
    }

    /// Begins anew with a start once it is known what becomes of its job.
    pub(super) fn start_later(&mut self, channel: u32, start: &proto::Start, pending: Pending) {
        let bell = self.bell.clone();
        self.waiting.insert(channel, Waiting::new(start.clone()));
        tokio::spawn(async move {
            pending.known().await;
            let mut ready = bell.lock();
            ready.again.push(channel);
            ready.wake();
        });
    }

    /// It is known.
    pub(super) fn start_again(&mut self, channel: u32) {
        let Some(waiting) = self.waiting.remove(&channel) else { return };
        self.start(channel, &waiting.start);
        waiting.into_held().into_iter().for_each(|event| self.handle(event));
    }

    /// Has a channel watch a detached job.
    pub(super) fn watch_detached(&mut self, channel: u32, start: &proto::Start) {
        let settings = self.settings.borrow().clone();
        let begun = self.check(start, &settings).and_then(|()| {
            let found = settings.detached.of_id(&Owner::of(&self.who), &start.job_id);
            let absent =
                || job::unsuitable(proto::NotStartedClass::Refused, "no detached job of yours has this id");
            Watching::begin(found.ok_or_else(absent)?, self.place(channel), start)
        });
        match begun {
            Ok((watching, at)) => {
                self.link.end.resumed(channel, watching.entry.pid(), &at);
                self.watching.insert(channel, watching);
                self.bell.mark(channel);
            }
            Err(why) => {
                let subject = Subject::of(start, &self.who);
                let receipt = subject.not_started(&settings, why, self.host_key.as_ref());
                self.link.end.receipt(channel, &receipt);
            }
        }
    }

    /// Sends what is new to a channel that watches.
    pub(super) fn attend_watching(&mut self, channel: u32) -> std::io::Result<()> {
        let settings = self.settings.borrow().clone();
        let Some(watching) = self.watching.get_mut(&channel) else { return Ok(()) };
        if let Looked::Over(receipt) = watching.attend(&mut self.link, &settings, self.host_key.as_ref())? {
            self.link.end.receipt(channel, &receipt);
            self.watching.remove(&channel);
        }
        Ok(())
    }

    /// What a watcher types.
    pub(super) fn type_detached(&self, channel: u32, offset: u64, bytes: Bytes) {
        if let Some(watching) = self.watching.get(&channel) {
            watching.write(offset, bytes);
        }
    }
}
