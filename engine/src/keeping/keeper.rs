//! A keeper's life: it was forked by the warden and runs this. It is alone with one job, and when nothing is left of that, and its
//! server is there still, it takes the next: a fork costs more than the rest of a short command.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use super::channel::{Channel, Waiting};
use super::detached::Detached;
use super::folder::{Folder, Jobs, Record};
use super::messages::{FromKeeper, Snapshot, Start, ToKeeper, VERSION};
use super::spooling::Spooling;
use crate::cgroup::Parent;
use crate::config::EngineConfig;
use crate::enclosure::Enclosure;
use crate::error::{NotStarted, Step};
use crate::incarnation::Incarnation;
use crate::job::Job;
use crate::launch::{Launching, Unlaunched, launch};
use crate::outcome::EndReason;
use crate::request::{Limits, Output};
use crate::ring::Ring;
use crate::session::Collector;
use crate::sys::{self, Here, Orphans, SharedMemory, Signals};
use crate::tree::Tree;

/// How long a server may take to take a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// A wait that is begun anew when it is over.
const AGE: Duration = Duration::from_secs(3600);

/// Bytes that wait for a server that doesn't read: beyond it it is told nothing new.
const BACKLOG: usize = 64 * 1024;

/// Between two looks at streams that others hold open.
const LOOK: Duration = Duration::from_millis(200);

/// What all keepers have from the warden.
#[derive(Debug)]
pub(crate) struct Kit {
    pub(crate) jobs: Jobs,
    pub(crate) config: EngineConfig,
    /// `/dev/null`.
    pub(crate) null: OwnedFd,
    pub(crate) cgroups: Option<Parent>,
    pub(crate) boot_id: [u8; 16],
}

/// A keeper without a job.
pub(crate) struct Idle {
    runtime: tokio::runtime::Runtime,
    here: Here,
    memory: SharedMemory,
    own: Incarnation,
    /// That children have ended.
    ended: AsyncFd<Signals>,
    tree: Arc<Tree>,
    /// The warden that has forked it.
    warden: Option<Pid>,
}

impl Idle {
    /// Makes it ready.
    ///
    /// # Errors
    /// What the kernel says of descriptors and memory.
    pub(crate) fn new(kit: &Kit) -> io::Result<Self> {
        // Before anything else: it may be gone by then.
        let warden = rustix::process::getppid();
        sys::adopt_orphans()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let own = i32::try_from(std::process::id()).ok().and_then(Incarnation::now);
        let own = own.ok_or(io::ErrorKind::NotFound)?;
        let memory = SharedMemory::new(2 * Limits::WINDOW)?;
        let ended = {
            let _guard = runtime.enter();
            sys::watch(Signals::block(&[libc::SIGCHLD])?, Interest::READABLE)?
        };
        // Before anything runs in it. Without one, what can be found otherwise is.
        let enclosure = kit.cgroups.as_ref().and_then(|parent| Enclosure::enter(parent.path(), own).ok());
        let tree = Arc::new(Tree::new(own.pid, enclosure));
        Ok(Idle { runtime, here: Here::new()?, memory, own, ended, tree, warden })
    }

    /// Keeps the jobs that come over a server's socket, one after the other.
    pub(crate) fn keep(mut self, kit: &Kit, socket: OwnedFd) {
        let mut server = Waiting::new(socket);
        let mut is_new = true;
        loop {
            // The server keeps the memory from one job to the next.
            let memory = is_new.then(|| self.memory.as_fd());
            is_new = false;
            if server.send(&hello(&[], &[]).compose(), memory, Instant::now() + PATIENCE).is_err() {
                return;
            }
            // However long that takes: the server's end is the end.
            let start = loop {
                match server.receive(Instant::now() + AGE) {
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                    Ok(Some(message)) => break ToKeeper::parse(&message),
                    Ok(None) | Err(_) => return,
                }
            };
            let Some(ToKeeper::Start(start)) = start else { return };
            // Whoever asked may have given it up, or be gone: it is begun for nobody then, and has not run.
            match server.receive(Instant::now()) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                _ => return,
            }
            let Some(pieces) = self.memory.pieces() else { return };
            let rings = pieces.map(Ring::shared);
            let Idle { runtime, here, memory, own, ended, tree, warden } = &mut self;
            let place = Place { kit, memory, own: *own, ended, tree };
            let left = runtime.block_on(run(*start, here, rings, server, place));
            match left {
                // Where its warden is gone, nobody would see to what is left of a job should it be killed: that of the living one does.
                Some(left) if *warden == rustix::process::getppid() && memory.clear().is_ok() => {
                    server = left;
                }
                _ => break,
            }
        }
        // A thread that reads /proc holds nobody up.
        self.runtime.shutdown_background();
    }
}

/// Where a job is kept.
#[derive(Clone, Copy)]
struct Place<'a> {
    kit: &'a Kit,
    memory: &'a SharedMemory,
    own: Incarnation,
    ended: &'a AsyncFd<Signals>,
    tree: &'a Arc<Tree>,
}

fn hello(note: &[u8], session: &[u8]) -> FromKeeper {
    let (note, session) = (note.to_vec(), session.to_vec());
    FromKeeper::Hello { version: VERSION, window: Limits::WINDOW as u64, note, session }
}

/// Keeps one job to its end. Gives back the server's socket where nothing is left of it, and the server is there.
async fn run(
    start: Start,
    here: &mut Here,
    rings: [Ring; 2],
    server: Waiting,
    place: Place<'_>,
) -> Option<Waiting> {
    let Start { key, order, limits, linger, note, session, tells, detach } = start;
    let Place { kit, memory, own, ended, tree } = place;
    let until = Instant::now() + PATIENCE;
    let refuse = |mut server: Waiting, answer: FromKeeper| {
        server.send(&answer.compose(), None, until).is_ok().then_some(server)
    };
    // The moment at which the job begins: whoever comes second has come too late.
    let folder = match kit.jobs.make(key) {
        Ok(folder) => folder,
        Err(errno) => return refuse(server, FromKeeper::NotStarted(no_keeper(&errno.into()))),
    };
    let (running, held) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let news = Arc::new(News::default());
    let on_change = Arc::clone(&news);
    let launching = Launching {
        null: kit.null.as_fd(),
        cgroups: kit.cgroups.as_ref(),
        config: &kit.config,
        running: &running,
        held: &held,
        runtime: &tokio::runtime::Handle::current(),
        rings: Some(rings),
        on_change: Arc::new(move || on_change.tell()),
        session: None,
        tree: Some(Arc::clone(tree)),
        spawners: None,
    };
    let refuse = |server: Waiting, answer: FromKeeper| {
        let _ = folder.remove();
        refuse(server, answer)
    };
    // Before the command, so that nobody can take a job that ran for one that never did.
    let prepared = (|| {
        let (note, session, enclosure) = (note.clone(), session.clone(), tree.enclosure().cloned());
        let record = folder.write(&Record {
            boot_id: kit.boot_id,
            keeper: own,
            leader: None,
            note,
            session,
            enclosure,
            detached: detach,
        })?;
        let collector = if tells { Some(Collector::new(folder.told()?)?) } else { None };
        Ok((record, collector))
    })();
    let (record, collector) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let error: io::Error = error;
            let why = match detach {
                Some(_) => NotStarted::bytes(Step::Spool, error.raw_os_error(), b""),
                None => no_keeper(&error),
            };
            return refuse(server, FromKeeper::NotStarted(why));
        }
    };
    // A detached job is on the disk before its command runs.
    let spooling = detach.map(|plan| {
        let spooling = Spooling::create(&folder, plan, [0; 2])?;
        spooling.sync()?;
        Ok(spooling)
    });
    let spooling = match spooling.transpose() {
        Ok(spooling) => spooling,
        Err(why) => return refuse(server, FromKeeper::NotStarted(why)),
    };
    let job = match launch(&order, &limits, launching, |plan| here.spawn(plan)) {
        Ok(job) => job,
        Err(Unlaunched::Failed(failed)) => return refuse(server, FromKeeper::Failed(failed)),
        Err(Unlaunched::NotStarted(why)) => return refuse(server, FromKeeper::NotStarted(why)),
    };
    let started = FromKeeper::Started { pid: job.pid(), in_root: job.is_in_root() };
    let mut attending = Attending {
        told: None,
        told_end: false,
        server: None,
        listener: None,
        since: Instant::now(),
        timer: Box::pin(tokio::time::sleep(linger)),
        linger,
        started,
        news,
        note,
        session,
        collector,
        jobs: &kit.jobs,
        memory,
        ended,
        job,
        folder: &folder,
        spooling,
        is_forgotten: false,
    };
    let settled = |result: io::Result<()>| {
        if let Err(error) = result {
            tracing::error!(%error, "a job can't be found again by another server");
        }
    };
    if let Some(spooling) = &attending.spooling {
        spooling.begin(&attending.job);
        // Who detaches goes as soon as there is an answer.
        settled(attending.settle(record).and_then(|()| folder.sync()));
        attending.greet(server, None);
    } else {
        // The server has its answer before anything is written that only a later one needs.
        attending.greet(server, None);
        settled(attending.settle(record));
    }
    drop(order);
    poll_fn(|cx| attending.poll(cx)).await;
    let server = attending.server.take();
    let is_over = attending.job.finished().is_some();
    let is_detached = attending.spooling.is_some();
    // Whatever runs of it is ended with the last handle.
    drop(attending);
    if is_over && sys::reap_rest() == Orphans::Some {
        sys::become_attendant();
    }
    let server = if is_detached {
        folder.remove_socket();
        None
    } else {
        let _ = folder.remove();
        server
    };
    let is_done = || held.load(Ordering::Relaxed) == 0 && running.load(Ordering::Relaxed) == 0;
    // Nobody waits for a child any more once nothing runs.
    let is_clean = || is_done() && sys::reap_rest() == Orphans::None;
    if is_over && is_clean() {
        return server.map(Channel::unwatched);
    }
    // The server needn't wait for what is left. A keeper lives as long as that does: it is who reaps it, and by whom it is found.
    drop(server);
    while !is_clean() {
        if !is_over && is_done() {
            tree.kill(0, true);
        } else if is_done() {
            let Ok(mut ready) = ended.readable().await else { return None };
            while ended.get_ref().next().is_some() {}
            ready.clear_ready();
            continue;
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}

/// That the job has changed.
#[derive(Default)]
struct News(Mutex<(bool, Option<Waker>)>);

impl News {
    fn tell(&self) {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        news.0 = true;
        if let Some(waker) = news.1.take() {
            waker.wake();
        }
    }

    fn take(&self, waker: &Waker) -> bool {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        news.1 = Some(waker.clone());
        std::mem::take(&mut news.0)
    }
}

/// Serves whichever server is there.
struct Attending<'a> {
    job: Job,
    news: Arc<News>,
    server: Option<Channel>,
    listener: Option<AsyncFd<OwnedFd>>,
    /// What the server was told last.
    told: Option<Snapshot>,
    told_end: bool,
    /// Since when nobody is there.
    since: Instant,
    timer: Pin<Box<Sleep>>,
    linger: Duration,
    started: FromKeeper,
    note: Vec<u8>,
    session: Vec<u8>,
    collector: Option<Collector>,
    jobs: &'a Jobs,
    memory: &'a SharedMemory,
    ended: &'a AsyncFd<Signals>,
    folder: &'a Folder,
    /// Where its output is kept, if it is detached.
    spooling: Option<Spooling<'a>>,
    /// Whoever had it started has given it up.
    is_forgotten: bool,
}

impl Attending<'_> {
    /// Leaves what another server needs to find the job.
    fn settle(&mut self, record: File) -> io::Result<()> {
        if let Some(leader) = Incarnation::now(self.job.session()) {
            Folder::add_leader(record, leader)?;
        }
        self.listener = Some(sys::watch(self.folder.listen()?, Interest::READABLE)?);
        Ok(())
    }

    /// Takes a server on, in place of the one before.
    fn greet(&mut self, mut server: Waiting, hello: Option<FromKeeper>) {
        let until = Instant::now() + Duration::from_secs(1);
        let told = (|| {
            if let Some(hello) = hello {
                server.send(&hello.compose(), Some(self.memory.as_fd()), until)?;
            }
            server.send(&self.started.compose(), None, until)
        })();
        if told.is_err() {
            // What it said before it went still counts.
            let last = server.receive(Instant::now()).ok().flatten();
            self.is_forgotten |= last.is_some_and(|last| ToKeeper::parse(&last) == Some(ToKeeper::Forget));
        }
        match told.and_then(|()| server.watched()) {
            Ok(channel) => {
                self.server = Some(channel);
                (self.told, self.told_end) = (None, false);
            }
            Err(error) => tracing::warn!(%error, "a server that can't be answered"),
        }
    }

    /// Ready when nobody needs the job any more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reap(cx);
        self.accept(cx);
        if self.is_forgotten && self.spooling.is_none() || self.listen(cx) {
            return Poll::Ready(());
        }
        let mut changed = self.news.take(cx.waker());
        if let Some(spooling) = &mut self.spooling {
            let before = spooling.wants_room();
            spooling.drive(&self.job, cx);
            changed |= before != spooling.wants_room();
        }
        self.tell(changed || self.told.is_none(), cx);
        if let Some(spooling) = &self.spooling {
            // Nobody need be there. Who is has heard how it ended.
            let heard = self.server.as_ref().is_none_or(|server| self.told_end && server.pending() == 0);
            return if spooling.ended().is_some() && heard { Poll::Ready(()) } else { Poll::Pending };
        }
        if self.server.is_none() {
            return self.wait(cx);
        }
        Poll::Pending
    }

    /// Takes new servers on: the newest is the one that counts.
    fn accept(&mut self, cx: &mut Context<'_>) {
        while let Some(listener) = &self.listener {
            let Poll::Ready(Ok(mut guard)) = listener.poll_read_ready(cx) else { return };
            match accept_with(listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) if is_ours(socket.as_fd()) => {
                    let hello = hello(&self.note, &self.session);
                    self.greet(Waiting::new(socket), Some(hello));
                }
                Ok(_) => tracing::warn!("somebody else's process has asked for a job"),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(_) => return,
            }
        }
    }

    /// Does what the server says; whether nobody needs the job any more.
    fn listen(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some(server) = &mut self.server {
            let message = match server.poll_message(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(Some(message))) => message,
                Poll::Ready(end) => {
                    if let Err(error) = end {
                        tracing::warn!(%error, "a server's word can't be read");
                    }
                    self.server = None;
                    self.since = Instant::now();
                    return false;
                }
            };
            match ToKeeper::parse(&message) {
                // A detached job is forgotten by its folder's removal, once it is over.
                Some(ToKeeper::Forget) => match self.spooling {
                    Some(_) => {}
                    None => return true,
                },
                Some(message) => self.obey(message),
                None => tracing::warn!("a server's word makes no sense here"),
            }
        }
        false
    }

    fn obey(&mut self, message: ToKeeper) {
        let job = &self.job;
        let is_detached = self.spooling.is_some();
        let taken = match message {
            ToKeeper::Input { offset, bytes } => job.write(offset, bytes.into()),
            ToKeeper::EndInput { at } => job.end_input(at),
            // What was not taken yet is taken by us.
            ToKeeper::Acknowledge { .. } | ToKeeper::CloseOutput { .. } if is_detached => return,
            ToKeeper::Acknowledge { output, upto } => return job.acknowledge(output, upto),
            ToKeeper::CloseOutput { output } => return job.close_output(output),
            ToKeeper::Detach { plan, note } => {
                let why = self.detach(plan, note).err();
                if let Some(server) = &mut self.server {
                    server.send(&FromKeeper::Detached(why).compose());
                }
                return;
            }
            ToKeeper::Renew { lease } => {
                if let Some(spooling) = &mut self.spooling {
                    spooling.renew(lease);
                    self.news.tell();
                }
                return;
            }
            ToKeeper::Signal { signal } => return job.signal(signal),
            ToKeeper::Resize { size } => return job.resize(size),
            ToKeeper::Close { reason } => {
                job.close(reason);
                if let Some(spooling) = &mut self.spooling {
                    spooling.hurry();
                    self.news.tell();
                }
                return;
            }
            ToKeeper::Start(_) | ToKeeper::Forget => return,
        };
        if let Err(error) = taken {
            tracing::error!(%error, "a server gives input out of turn");
        }
    }

    /// From now on the job is detached, with what its server has not acknowledged.
    fn detach(&mut self, plan: Detached, note: Vec<u8>) -> Result<(), NotStarted> {
        if self.spooling.is_some() {
            return Ok(());
        }
        let from = Output::ALL.map(|output| self.job.progress(output).acknowledged);
        let made = Spooling::create(self.folder, plan, from).and_then(|spooling| {
            let no_room = |error: io::Error| NotStarted::bytes(Step::Spool, error.raw_os_error(), b"");
            self.folder.add_detached(&plan, &note).map_err(no_room)?;
            spooling.sync()?;
            Ok(spooling)
        });
        match made {
            Ok(spooling) => {
                spooling.begin(&self.job);
                self.spooling = Some(spooling);
                self.note = note;
                Ok(())
            }
            Err(why) => {
                let _ = self.folder.remove_spool();
                Err(why)
            }
        }
    }

    /// Tells the server what is new.
    fn tell(&mut self, changed: bool, cx: &mut Context<'_>) {
        let Some(server) = &mut self.server else { return };
        if server.pending() > BACKLOG {
            server.poll_flush(cx);
            if server.pending() > BACKLOG {
                // Told once there is room: only how it is then counts.
                self.news.tell_later();
                return;
            }
        }
        // Asked before how it is: all that was printed is told before the end.
        let ended = match &self.spooling {
            Some(spooling) => spooling.ended(),
            None => self.job.finished(),
        };
        if changed || ended.is_some() {
            let wants_room = self.spooling.as_ref().is_some_and(Spooling::wants_room);
            let lease = self.spooling.as_ref().map_or(0, Spooling::lease);
            let now = Snapshot { wants_room, lease, ..self.job.snapshot() };
            if self.told != Some(now) {
                server.send(&FromKeeper::Progress(now).compose());
                self.told = Some(now);
            }
        }
        if let (Some(ended), false) = (ended, self.told_end) {
            if let Some(collector) = &self.collector {
                let (bytes, length) = collector.told();
                server.send(&FromKeeper::Told { bytes, length: length as u64 }.compose());
            }
            server.send(&FromKeeper::Ended(Box::new((*ended).clone())).compose());
            self.told_end = true;
        }
        server.poll_flush(cx);
    }

    /// Reaps what the job's processes left behind, as the init of the machine would have done.
    fn reap(&self, cx: &mut Context<'_>) {
        while let Poll::Ready(Ok(mut ready)) = self.ended.poll_read_ready(cx) {
            while self.ended.get_ref().next().is_some() {}
            ready.clear_ready();
            sys::reap_but(self.job.session());
        }
    }

    /// Nobody is there. After the job's linger time it is ended, and what it has printed is kept for as long again, as a server would
    /// keep it; then this is ready.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let alone = self.since.elapsed();
            let until = if alone < self.linger {
                self.since + self.linger
            } else {
                self.job.close(EndReason::Linger);
                if alone < self.linger * 2 {
                    self.since + self.linger * 2
                } else {
                    // It is for nobody now, and must not hold up the end.
                    for output in Output::ALL {
                        self.job.acknowledge(output, self.job.produced(output));
                    }
                    if self.job.finished().is_some() {
                        if !self.linger.is_zero() {
                            // Its client may come later still, and must not have it run anew.
                            self.jobs.end_epoch();
                        }
                        return Poll::Ready(());
                    }
                    Instant::now() + LOOK
                }
            };
            self.timer.as_mut().reset(until.into());
            if std::future::Future::poll(self.timer.as_mut(), cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl News {
    /// Remembers that there is something to tell, and wakes nobody: the server's socket will.
    fn tell_later(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
    }
}

/// Whether a peer is this account, or root (unix(7), SO_PEERCRED).
fn is_ours(socket: BorrowedFd<'_>) -> bool {
    let own = rustix::process::geteuid();
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

/// A start that failed for want of a keeper.
pub(crate) fn no_keeper(error: &io::Error) -> NotStarted {
    NotStarted::bytes(Step::Keeper, error.raw_os_error(), b"")
}
