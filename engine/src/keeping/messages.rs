//! What a server and a keeper tell each other: one kind of message a byte, and its fields behind it. Both are versions of one
//! program, and may be different versions: see [`fields`](super::fields).

use std::ffi::CString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::detached::{Detached, Spooled};
use super::fields::{Fields, Found};
use super::folder::JobKey;
use crate::error::{NotStarted, Step};
use crate::order::Order;
use crate::outcome::{EndReason, Ended, How, InputEnd, LimitKind, MemoryMeans, OutputEnd, PeakMemory};
use crate::request::{Limits, Output, Stdin, Terminal, WindowSize};
use crate::runs::Run;
use crate::signal::Signal;
use crate::sys::{ChildStep, Failed};

/// The version that this program speaks. A keeper says its own; a server must read all that were ever released.
pub(crate) const VERSION: u64 = 1;

/// From the server to the keeper.
#[derive(Debug, PartialEq)]
pub(crate) enum ToKeeper {
    /// Run this. The first message to a new keeper, and only to that.
    Start(Box<Start>),
    /// Bytes of stdin at an offset.
    Input {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Stdin ends here.
    EndInput {
        at: u64,
    },
    /// Output up to here may be forgotten.
    Acknowledge {
        output: Output,
        upto: u64,
    },
    /// Nobody reads this stream any more.
    CloseOutput {
        output: Output,
    },
    Signal {
        signal: Signal,
    },
    Resize {
        size: WindowSize,
    },
    /// End the job.
    Close {
        reason: EndReason,
    },
    /// From now on the job is detached. It is answered by [`FromKeeper::Detached`].
    Detach {
        plan: Detached,
        note: Vec<u8>,
    },
    /// Its lease begins anew.
    Renew {
        /// Of this length from now on, if another.
        lease: Option<Duration>,
    },
    /// Nobody needs this job any more, its outcome included: end what runs of it, and go.
    Forget,
}

/// All that a keeper needs to run a job.
#[derive(Debug, PartialEq)]
pub(crate) struct Start {
    pub(crate) key: JobKey,
    pub(crate) order: Order,
    pub(crate) limits: Limits,
    /// How long the job goes on while no server is there for it.
    pub(crate) linger: Duration,
    /// What the server wants to know of the job when it finds it again.
    pub(crate) note: Vec<u8>,
    /// The session's part of it.
    pub(crate) session: Vec<u8>,
    /// Its shell tells the state of the session as it ends, through a FIFO in the job's folder.
    pub(crate) tells: bool,
    /// It is detached from its start.
    pub(crate) detach: Option<Detached>,
}

/// From the keeper to the server.
#[derive(Debug, PartialEq)]
pub(crate) enum FromKeeper {
    /// The first message to each server; the memory of the job's output comes along.
    Hello { version: u64, window: u64, note: Vec<u8>, session: Vec<u8> },
    /// The command runs.
    Started { pid: i32, in_root: bool },
    /// Nothing of it has run.
    NotStarted(NotStarted),
    /// A step of the new process failed.
    Failed(Failed),
    /// How the job is.
    Progress(Snapshot),
    /// What the job's shell has told of its session: comes before the end, where it comes.
    Told { bytes: Vec<u8>, length: u64 },
    /// The job is over. All its output was told of.
    Ended(Box<Ended>),
    /// The job is detached; or why it isn't.
    Detached(Option<NotStarted>),
}

/// How a job is. Told whenever something of it changed, the latest alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) stdin: Input,
    pub(crate) stdout: Produced,
    pub(crate) stderr: Produced,
    /// Number of the signal that stopped it; 0 is none.
    pub(crate) stopped: i32,
    /// It is held back, since the disk is full that its output is kept on.
    pub(crate) wants_room: bool,
    /// The lease that it has now, nanoseconds; 0 is none.
    pub(crate) lease: u64,
}

/// How far stdin is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// Offset up to which it came.
    pub(crate) given: u64,
    /// Offset up to which it is in the command's pipe.
    pub(crate) consumed: u64,
    /// Where it ends, if that was said.
    pub(crate) end: Option<u64>,
    /// The command reads no more of it.
    pub(crate) closed: bool,
}

/// How far an output stream is, and where in the shared memory it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Produced {
    /// Offset up to which it was acknowledged.
    pub(crate) start: u64,
    /// Offset up to which it was read.
    pub(crate) upto: u64,
    /// Where the byte at `upto` would lie, counted from the beginning of this stream's memory.
    pub(crate) place: u64,
    /// Bytes of the memory that are in use: what would lie behind lies at the beginning.
    pub(crate) capacity: u64,
    /// Nothing will come behind `upto`.
    pub(crate) ended: bool,
}

impl ToKeeper {
    /// Its bytes.
    pub(crate) fn compose(&self) -> Vec<u8> {
        let fields = Fields::new();
        let (kind, fields) = match self {
            ToKeeper::Start(start) => (1, start.fields()),
            ToKeeper::Input { offset, bytes } => (2, fields.number(1, *offset).bytes(2, bytes)),
            ToKeeper::EndInput { at } => (3, fields.number(1, *at)),
            ToKeeper::Acknowledge { output, upto } => {
                (4, fields.number(1, number_of(*output)).number(2, *upto))
            }
            ToKeeper::CloseOutput { output } => (5, fields.number(1, number_of(*output))),
            ToKeeper::Signal { signal } => (6, fields.signed(1, signal.number().into())),
            ToKeeper::Resize { size } => (7, size_fields(*size)),
            ToKeeper::Close { reason } => (8, reason_fields(*reason)),
            ToKeeper::Forget => (9, fields),
            ToKeeper::Detach { plan, note } => (20, fields.nested(1, plan.fields()).bytes(2, note)),
            ToKeeper::Renew { lease } => (21, fields.optional(1, lease.map(nanoseconds))),
        };
        with_kind(kind, fields)
    }

    /// Takes one apart; none where it makes no sense, or isn't known.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let (kind, fields) = message.split_first()?;
        let found = Found::parse(fields)?;
        Some(match kind {
            1 => ToKeeper::Start(Box::new(Start::of(found)?)),
            2 => ToKeeper::Input { offset: found.number(1), bytes: found.bytes(2).to_vec() },
            3 => ToKeeper::EndInput { at: found.number(1) },
            4 => ToKeeper::Acknowledge { output: output_of(found.number(1))?, upto: found.number(2) },
            5 => ToKeeper::CloseOutput { output: output_of(found.number(1))? },
            6 => ToKeeper::Signal { signal: Signal::from_number(found.small(1))? },
            7 => ToKeeper::Resize { size: size_of(found) },
            8 => ToKeeper::Close { reason: reason_of(found) },
            9 => ToKeeper::Forget,
            20 => ToKeeper::Detach { plan: Detached::of(found.nested(1)?), note: found.bytes(2).to_vec() },
            21 => ToKeeper::Renew { lease: found.optional(1).map(Duration::from_nanos) },
            _ => return None,
        })
    }
}

impl FromKeeper {
    /// Its bytes.
    pub(crate) fn compose(&self) -> Vec<u8> {
        let fields = Fields::new();
        let (kind, fields) = match self {
            FromKeeper::Hello { version, window, note, session } => {
                (1, fields.number(1, *version).number(2, *window).bytes(3, note).bytes(4, session))
            }
            FromKeeper::Started { pid, in_root } => (2, fields.signed(1, (*pid).into()).flag(2, *in_root)),
            FromKeeper::NotStarted(why) => (3, not_started_fields(why)),
            FromKeeper::Failed(failed) => (4, failed_fields(*failed)),
            FromKeeper::Progress(progress) => (5, progress.fields()),
            FromKeeper::Ended(ended) => (6, ended_fields(ended)),
            FromKeeper::Told { bytes, length } => (7, fields.bytes(1, bytes).number(2, *length)),
            FromKeeper::Detached(None) => (20, fields),
            FromKeeper::Detached(Some(why)) => (20, fields.nested(1, not_started_fields(why))),
        };
        with_kind(kind, fields)
    }

    /// Takes one apart; none where it makes no sense, or isn't known.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let (kind, fields) = message.split_first()?;
        let found = Found::parse(fields)?;
        Some(match kind {
            1 => FromKeeper::Hello {
                version: found.number(1),
                window: found.number(2),
                note: found.bytes(3).to_vec(),
                session: found.bytes(4).to_vec(),
            },
            2 => FromKeeper::Started { pid: found.small(1), in_root: found.flag(2) },
            3 => FromKeeper::NotStarted(not_started_of(found)?),
            4 => FromKeeper::Failed(failed_of(found)?),
            5 => FromKeeper::Progress(Snapshot::of(found)?),
            6 => FromKeeper::Ended(Box::new(ended_of(found)?)),
            7 => FromKeeper::Told { bytes: found.bytes(1).to_vec(), length: found.number(2) },
            20 => FromKeeper::Detached(match found.nested(1) {
                Some(why) => Some(not_started_of(why)?),
                None => None,
            }),
            _ => return None,
        })
    }
}

fn with_kind(kind: u8, fields: Fields) -> Vec<u8> {
    let mut message = fields.into_bytes();
    message.insert(0, kind);
    message
}

fn not_started_fields(why: &NotStarted) -> Fields {
    Fields::new()
        .bytes(1, why.step.name().as_bytes())
        .optional(2, why.errno.map(|errno| i64::from(errno).cast_unsigned()))
        .bytes(3, why.what.as_encoded_bytes())
}

fn not_started_of(found: Found<'_>) -> Option<NotStarted> {
    use std::os::unix::ffi::OsStringExt;
    Some(NotStarted {
        step: Step::ALL.into_iter().find(|step| step.name().as_bytes() == found.bytes(1))?,
        errno: found.optional(2).map(|_| found.small(2)),
        what: std::ffi::OsString::from_vec(found.bytes(3).to_vec()),
    })
}

impl Start {
    fn fields(&self) -> Fields {
        let Order { candidates, argv, envp, cwd, or_root, umask, stdin, terminal, wait_streams, keep_order } =
            &self.order;
        let Limits { wall, memory, open_files, output, window, stdin_window } = &self.limits;
        let strings = |list: &[CString]| list.iter().map(|one| one.as_bytes().to_vec()).collect::<Vec<_>>();
        let mut fields = Fields::new();
        for (tag, list) in [(1, strings(candidates)), (2, strings(argv)), (3, strings(envp))] {
            fields = fields.list(tag, list.iter().map(Vec::as_slice));
        }
        fields = fields
            .bytes(4, cwd.as_bytes())
            .flag(5, *or_root)
            .optional(6, umask.map(u64::from))
            .flag(7, *stdin == Stdin::Piped)
            .flag(9, *wait_streams)
            .optional(10, wall.map(nanoseconds))
            .optional(11, *memory)
            .optional(12, *open_files)
            .optional(13, *output)
            .number(14, *window as u64)
            .number(15, *stdin_window as u64)
            .number(16, nanoseconds(self.linger))
            .bytes(17, &self.note)
            .bytes(18, &self.key.0)
            .bytes(19, &self.session)
            .flag(20, self.tells)
            .flag(21, *keep_order);
        if let Some(plan) = &self.detach {
            fields = fields.nested(40, plan.fields());
        }
        match terminal {
            Some(Terminal { size, modes, job_control }) => {
                let modes: Vec<Vec<u8>> = modes
                    .iter()
                    .map(|(opcode, argument)| {
                        Fields::new().number(1, (*opcode).into()).number(2, (*argument).into()).into_bytes()
                    })
                    .collect();
                let terminal =
                    size_fields(*size).flag(5, *job_control).list(6, modes.iter().map(Vec::as_slice));
                fields.nested(8, terminal)
            }
            None => fields,
        }
    }

    fn of(found: Found<'_>) -> Option<Self> {
        let strings = |tag| found.all(tag).map(CString::new).collect::<Result<Vec<_>, _>>().ok();
        let number = |tag| usize::try_from(found.number(tag)).ok();
        let terminal = found.nested(8).map(|terminal| Terminal {
            size: size_of(terminal),
            job_control: terminal.flag(5),
            modes: terminal
                .all(6)
                .filter_map(Found::parse)
                .filter_map(|mode| {
                    Some((u8::try_from(mode.number(1)).ok()?, u32::try_from(mode.number(2)).ok()?))
                })
                .collect(),
        });
        Some(Start {
            order: Order {
                candidates: strings(1)?,
                argv: strings(2)?,
                envp: strings(3)?,
                cwd: CString::new(found.bytes(4)).ok()?,
                or_root: found.flag(5),
                umask: found.optional(6).and_then(|mask| u32::try_from(mask).ok()),
                stdin: if found.flag(7) { Stdin::Piped } else { Stdin::Null },
                terminal,
                wait_streams: found.flag(9),
                keep_order: found.flag(21),
            },
            limits: Limits {
                wall: found.optional(10).map(Duration::from_nanos),
                memory: found.optional(11),
                open_files: found.optional(12),
                output: found.optional(13),
                window: number(14)?,
                stdin_window: number(15)?,
            },
            linger: Duration::from_nanos(found.number(16)),
            note: found.bytes(17).to_vec(),
            key: JobKey(found.array(18)),
            session: found.bytes(19).to_vec(),
            tells: found.flag(20),
            detach: found.nested(40).map(Detached::of),
        })
    }
}

impl Snapshot {
    fn fields(&self) -> Fields {
        let produced = |produced: &Produced| {
            Fields::new()
                .number(1, produced.start)
                .number(2, produced.upto)
                .number(3, produced.place)
                .number(4, produced.capacity)
                .flag(5, produced.ended)
        };
        let stdin = Fields::new()
            .number(1, self.stdin.given)
            .number(2, self.stdin.consumed)
            .optional(3, self.stdin.end)
            .flag(4, self.stdin.closed);
        Fields::new()
            .nested(1, stdin)
            .nested(2, produced(&self.stdout))
            .nested(3, produced(&self.stderr))
            .signed(4, self.stopped.into())
            .flag(5, self.wants_room)
            .number(6, self.lease)
    }

    fn of(found: Found<'_>) -> Option<Self> {
        let produced = |tag| {
            found.nested(tag).map(|found| Produced {
                start: found.number(1),
                upto: found.number(2),
                place: found.number(3),
                capacity: found.number(4),
                ended: found.flag(5),
            })
        };
        let stdin = found.nested(1)?;
        Some(Snapshot {
            stdin: Input {
                given: stdin.number(1),
                consumed: stdin.number(2),
                end: stdin.optional(3),
                closed: stdin.flag(4),
            },
            stdout: produced(2)?,
            stderr: produced(3)?,
            stopped: found.small(4),
            wants_room: found.flag(5),
            lease: found.number(6),
        })
    }
}

fn number_of(output: Output) -> u64 {
    match output {
        Output::Stdout => 1,
        Output::Stderr => 2,
    }
}

fn output_of(number: u64) -> Option<Output> {
    Output::ALL.into_iter().find(|output| number_of(*output) == number)
}

fn size_fields(size: WindowSize) -> Fields {
    Fields::new()
        .number(1, size.rows.into())
        .number(2, size.columns.into())
        .number(3, size.width.into())
        .number(4, size.height.into())
}

fn size_of(found: Found<'_>) -> WindowSize {
    let number = |tag| u16::try_from(found.number(tag)).unwrap_or(u16::MAX);
    WindowSize { rows: number(1), columns: number(2), width: number(3), height: number(4) }
}

const REASONS: [EndReason; 9] = [
    EndReason::Deadline,
    EndReason::Limit(LimitKind::Output),
    EndReason::Limit(LimitKind::Memory),
    EndReason::Lease,
    EndReason::Linger,
    EndReason::Stop,
    EndReason::Shutdown,
    EndReason::ClientGone,
    EndReason::Limit(LimitKind::Spool),
];

/// A reason is its place, counted from 1.
fn reason_fields(reason: EndReason) -> Fields {
    let place = REASONS.iter().position(|known| *known == reason).map_or(0, |place| place as u64 + 1);
    Fields::new().number(1, place)
}

/// A reason that a newer program has is a stop.
fn reason_of(found: Found<'_>) -> EndReason {
    let place = usize::try_from(found.number(1)).unwrap_or(usize::MAX);
    place.checked_sub(1).and_then(|place| REASONS.get(place)).copied().unwrap_or(EndReason::Stop)
}

fn failed_fields(failed: Failed) -> Fields {
    match failed {
        Failed::Step { step, errno, candidate } => {
            let place = ChildStep::ALL.iter().position(|known| *known == step).unwrap_or(0);
            Fields::new()
                .flag(1, true)
                .number(2, place as u64)
                .signed(3, errno.into())
                .number(4, candidate as u64)
        }
        Failed::Spawner(errno) => Fields::new().signed(3, errno.raw_os_error().into()),
    }
}

fn failed_of(found: Found<'_>) -> Option<Failed> {
    if !found.flag(1) {
        // What is no error's number is one that rustix doesn't take.
        let errno = Some(found.small(3)).filter(|errno| (1..4096).contains(errno))?;
        return Some(Failed::Spawner(rustix::io::Errno::from_raw_os_error(errno)));
    }
    let step = usize::try_from(found.number(2)).ok().and_then(|place| ChildStep::ALL.get(place))?;
    let candidate = usize::try_from(found.number(4)).ok()?;
    Some(Failed::Step { step: *step, errno: found.small(3), candidate })
}

pub(super) fn ended_fields(ended: &Ended) -> Fields {
    let output = |end: &OutputEnd| {
        Fields::new()
            .number(1, end.length)
            .bytes(2, &end.blake3)
            .flag(3, end.held_open)
            .flag(4, end.closed_early)
            .flag(5, end.cut)
    };
    let how = match ended.how {
        How::Exited(status) => Fields::new().number(1, 1).signed(2, status.into()),
        How::Signaled { signal, core_dumped } => {
            Fields::new().number(1, 2).signed(2, signal.number().into()).flag(3, core_dumped)
        }
        How::Unknown => Fields::new(),
        How::KeeperLost => Fields::new().number(1, 3),
    };
    let (measured, at_most) = match ended.peak_memory {
        PeakMemory::Measured(bytes) => (Some(bytes), 0),
        PeakMemory::AtMost(bytes) => (None, bytes),
    };
    let mut fields = Fields::new()
        .nested(1, how)
        .number(3, unix_nanoseconds(ended.started))
        .number(4, unix_nanoseconds(ended.ended))
        .number(5, nanoseconds(ended.wall))
        .number(6, nanoseconds(ended.user))
        .number(7, nanoseconds(ended.system))
        .optional(8, measured)
        .number(9, at_most)
        .number(
            10,
            match ended.memory_limited_by {
                None => 0,
                Some(MemoryMeans::Cgroup) => 1,
                Some(MemoryMeans::AddressSpace) => 2,
            },
        )
        .nested(11, output(&ended.stdout))
        .nested(12, output(&ended.stderr))
        .bytes(14, &ended.unread_input)
        .number(15, ended.unread_upto)
        .signed(16, ended.pid.into())
        .bytes(17, &ended.order.iter().flat_map(|run| run.to_bytes()).collect::<Vec<u8>>());
    if let Some(reason) = ended.stopped {
        fields = fields.nested(2, reason_fields(reason));
    }
    if let Some(end) = &ended.stdin {
        let end = Fields::new().number(1, end.length).bytes(2, &end.blake3).flag(3, end.closed_early);
        fields = fields.nested(13, end);
    }
    if let Some(spooled) = &ended.spooled {
        fields = fields.nested(40, spooled.fields());
    }
    fields
}

pub(super) fn ended_of(found: Found<'_>) -> Option<Ended> {
    let output = |tag| {
        found.nested(tag).map(|end| OutputEnd {
            length: end.number(1),
            blake3: end.array(2),
            held_open: end.flag(3),
            closed_early: end.flag(4),
            cut: end.flag(5),
        })
    };
    let how = found.nested(1)?;
    let time = |tag| UNIX_EPOCH + Duration::from_nanos(found.number(tag));
    let duration = |tag| Duration::from_nanos(found.number(tag));
    Some(Ended {
        how: match how.number(1) {
            1 => How::Exited(how.small(2)),
            2 => How::Signaled { signal: Signal::from_number(how.small(2))?, core_dumped: how.flag(3) },
            3 => How::KeeperLost,
            _ => How::Unknown,
        },
        stopped: found.nested(2).map(reason_of),
        started: time(3),
        ended: time(4),
        wall: duration(5),
        user: duration(6),
        system: duration(7),
        peak_memory: found.optional(8).map_or(PeakMemory::AtMost(found.number(9)), PeakMemory::Measured),
        memory_limited_by: match found.number(10) {
            1 => Some(MemoryMeans::Cgroup),
            2 => Some(MemoryMeans::AddressSpace),
            _ => None,
        },
        stdout: output(11)?,
        stderr: output(12)?,
        stdin: found.nested(13).map(|end| InputEnd {
            length: end.number(1),
            blake3: end.array(2),
            closed_early: end.flag(3),
        }),
        unread_input: found.bytes(14).to_vec(),
        unread_upto: found.number(15),
        pid: found.small(16),
        // The server knows the session.
        session: None,
        spooled: found.nested(40).map(Spooled::of),
        order: found.bytes(17).as_chunks().0.iter().map(|bytes| Run::from_bytes(*bytes)).collect(),
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn unix_nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeping::detached::OnFull;

    fn start() -> Start {
        Start {
            order: Order {
                candidates: vec![c"/bin/sh".into()],
                argv: vec![c"sh".into(), c"".into(), c"a\nb".into()],
                envp: vec![c"A=1".into()],
                cwd: c"/".into(),
                or_root: true,
                umask: Some(0),
                stdin: Stdin::Piped,
                terminal: Some(Terminal {
                    size: WindowSize { rows: 1, columns: 2, width: 0, height: 4 },
                    modes: vec![(1, 3), (200, 0)],
                    job_control: true,
                }),
                wait_streams: true,
                keep_order: true,
            },
            limits: Limits { wall: Some(Duration::ZERO), memory: Some(5), ..Limits::default() },
            linger: Duration::from_secs(600),
            note: b"note".to_vec(),
            detach: Some(Detached {
                limit: 5,
                on_full: OnFull::DropOldest,
                lease: Some(Duration::from_secs(1)),
            }),
            key: JobKey([7; 16]),
            session: b"session".to_vec(),
            tells: true,
        }
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let to = [
            ToKeeper::Start(Box::new(start())),
            ToKeeper::Input { offset: 7, bytes: b"x".to_vec() },
            ToKeeper::EndInput { at: 0 },
            ToKeeper::Acknowledge { output: Output::Stderr, upto: u64::MAX },
            ToKeeper::CloseOutput { output: Output::Stdout },
            ToKeeper::Signal { signal: Signal::TERM },
            ToKeeper::Resize { size: WindowSize { rows: 1, columns: 2, width: 3, height: 4 } },
            ToKeeper::Close { reason: EndReason::Limit(LimitKind::Memory) },
            ToKeeper::Forget,
            ToKeeper::Detach { plan: Detached::default(), note: b"n".to_vec() },
            ToKeeper::Renew { lease: None },
        ];
        for message in to {
            assert_eq!(ToKeeper::parse(&message.compose()).as_ref(), Some(&message));
        }
        let from = [
            FromKeeper::Hello { version: 1, window: 1 << 20, note: b"n".to_vec(), session: b"s".to_vec() },
            FromKeeper::Told { bytes: b"t".to_vec(), length: 1 << 40 },
            FromKeeper::Started { pid: 7, in_root: true },
            FromKeeper::NotStarted(NotStarted::bytes(Step::Terminal, Some(libc::ENOSPC), b"what")),
            FromKeeper::Failed(Failed::Step { step: ChildStep::Execute, errno: 2, candidate: 3 }),
            FromKeeper::Failed(Failed::Spawner(rustix::io::Errno::AGAIN)),
            FromKeeper::Progress(Snapshot {
                stdin: Input { given: 4, consumed: 3, end: Some(0), closed: true },
                stdout: Produced { start: 1, upto: 2, place: 3, capacity: 4, ended: true },
                stderr: Produced::default(),
                stopped: 20,
                wants_room: true,
                lease: 7,
            }),
            FromKeeper::Ended(Box::new(ended())),
            FromKeeper::Detached(None),
            FromKeeper::Detached(Some(NotStarted::bytes(Step::Spool, Some(libc::ENOSPC), b""))),
        ];
        for message in from {
            let parsed = FromKeeper::parse(&message.compose());
            assert_eq!(format!("{parsed:?}"), format!("{:?}", Some(message)));
        }
    }

    #[test]
    fn no_bytes_of_a_message_or_an_outcome_are_a_panic_or_take_more_room_than_they_have() {
        let start = ToKeeper::Start(Box::new(start())).compose();
        let failed = NotStarted::bytes(Step::Terminal, Some(libc::ENOSPC), b"what");
        let failed = FromKeeper::NotStarted(failed).compose();
        let ended = FromKeeper::Ended(Box::new(ended())).compose();
        let spawner = FromKeeper::Failed(Failed::Spawner(rustix::io::Errno::AGAIN)).compose();
        for whole in [start, failed, ended, spawner] {
            for bytes in remora_testkit::mutants(7, &whole, 30_000) {
                if let Some(to) = ToKeeper::parse(&bytes) {
                    assert!(to.compose().len() <= bytes.len() + 1000, "{bytes:?}");
                }
                if let Some(from) = FromKeeper::parse(&bytes) {
                    assert!(from.compose().len() <= bytes.len() + 1000, "{bytes:?}");
                }
                // As a folder has it.
                let _ = bytes.get(1..).and_then(Found::parse).and_then(ended_of);
            }
        }
    }

    fn ended() -> Ended {
        let output =
            OutputEnd { length: 1, blake3: [1; 32], held_open: true, closed_early: false, cut: true };
        Ended {
            how: How::Signaled { signal: Signal::KILL, core_dumped: true },
            stopped: Some(EndReason::Linger),
            started: UNIX_EPOCH + Duration::from_nanos(5),
            ended: UNIX_EPOCH + Duration::from_nanos(7),
            wall: Duration::from_nanos(2),
            user: Duration::ZERO,
            system: Duration::from_micros(1),
            peak_memory: PeakMemory::Measured(0),
            memory_limited_by: Some(MemoryMeans::AddressSpace),
            stdout: output.clone(),
            stderr: output,
            stdin: Some(InputEnd { length: 3, blake3: [2; 32], closed_early: true }),
            unread_input: b"typed".to_vec(),
            unread_upto: 9,
            pid: 12,
            session: None,
            order: vec![
                Run { output: Output::Stderr, length: 1 },
                Run { output: Output::Stdout, length: u64::MAX >> 1 },
            ],
            spooled: Some(Spooled {
                on_full: OnFull::Kill,
                limit: 3,
                was_full: true,
                disk_was_full: true,
                start: [0, 4],
                lost: [5, 6],
            }),
        }
    }

    #[test]
    fn every_step_and_reason_has_a_place() {
        for step in Step::ALL {
            let message = FromKeeper::NotStarted(NotStarted::bytes(step, None, b""));
            assert_eq!(
                format!("{:?}", FromKeeper::parse(&message.compose())),
                format!("{:?}", Some(message))
            );
        }
        for reason in REASONS {
            let message = ToKeeper::Close { reason };
            assert_eq!(ToKeeper::parse(&message.compose()), Some(message));
        }
    }
}
