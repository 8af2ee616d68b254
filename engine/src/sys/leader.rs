//! The leader: a small process between a command and the server, where a person may stop the command and go on (Ctrl-Z).
//!
//! A stop by the terminal is ignored in a process group whose members' parents are all in their own group or in another
//! session ("orphaned", setpgid(2)). So the session is the leader's, the command is its child in a group of its own, and
//! the leader does what a shell does: it gives the command the terminal, waits, and says what it sees. Then it ends as the
//! command did. As the spawner, from whom it is forked, it makes nothing but system calls on memory that was there before.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use super::child::{ChildStep, Scene, child, ends_with_parent, last_errno, reset_signal, set_signal_mask};
use super::plan::Area;

/// Bytes of input that were typed and not read, at most.
pub(crate) const MOST_UNREAD: usize = 64 * 1024;

/// What a leader says to the server, each in a packet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report<'a> {
    /// A signal of this number stopped the command.
    Stopped(i32),
    /// It goes on.
    Continued,
    /// It is over. If anything was typed the leader waits for the server to write no more into the terminal, and to shut its end
    /// down.
    Over,
    /// Input that nobody has read.
    Unread(&'a [u8]),
    /// What wait4(2) said: the raw status, and the peak resident set in bytes.
    Ended { status: i32, peak_memory: u64 },
}

/// A packet's head; all of it in the machine's own byte order, as both ends are one program.
const HEAD: usize = 16;

/// Bytes of the longest packet: a head, and as much input as a line of a terminal may have.
pub(crate) const LONGEST_REPORT: usize = HEAD + 4096;

impl<'a> Report<'a> {
    /// Takes a packet apart; `None` is none of ours.
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (kind, rest) = packet.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_first_chunk::<4>()?;
        let (more, rest) = rest.split_first_chunk::<8>()?;
        let value = i32::from_ne_bytes(*value);
        match u32::from_ne_bytes(*kind) {
            1 => Some(Report::Stopped(value)),
            2 => Some(Report::Continued),
            3 => Some(Report::Over),
            4 => Some(Report::Unread(rest)),
            5 => Some(Report::Ended {
                status: value,
                peak_memory: u64::from_ne_bytes(*more).saturating_mul(1024),
            }),
            _ => None,
        }
    }

    /// The head as it travels, with the peak in KiB.
    fn head(self) -> Head {
        let (kind, value, more) = match self {
            Report::Stopped(signal) => (1, signal, 0),
            Report::Continued => (2, 0, 0),
            Report::Over => (3, 0, 0),
            Report::Unread(_) => (4, 0, 0),
            Report::Ended { status, peak_memory } => (5, status, peak_memory / 1024),
        };
        Head { kind, value, more }
    }

    /// Sends it, or not where there is no room or nobody: nothing waits for a server that doesn't read.
    fn send(self) -> bool {
        let head = self.head();
        let unread: &[u8] = if let Report::Unread(bytes) = self { bytes } else { &[] };
        let mut vectors = [
            libc::iovec { iov_base: (&raw const head).cast_mut().cast(), iov_len: HEAD },
            libc::iovec { iov_base: unread.as_ptr().cast_mut().cast(), iov_len: unread.len() },
        ];
        // SAFETY: all zero bytes are a valid msghdr, and what it points to outlives the call, which only reads it.
        unsafe {
            let mut message = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
            message.msg_iov = vectors.as_mut_ptr();
            message.msg_iovlen = vectors.len() as _;
            libc::sendmsg(REPORTS, &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) >= 0
        }
    }
}

#[repr(C)]
struct Head {
    kind: u32,
    value: i32,
    more: u64,
}

/// Where the leader keeps its end of the socket to the server, the terminal, and the socket to the spawner.
const REPORTS: c_int = 3;
const TERMINAL: c_int = 4;
const SPAWNER: c_int = 5;

/// How long the server may take to stop writing, in milliseconds.
const PATIENCE: c_int = 1000;

/// How long it may take where it can't be seen, in milliseconds.
const MOMENT: c_int = 20;

/// The leader, from its fork to its end. All signals are blocked. `spawner` is a socket whose other end the spawner reads to
/// its end, and closes when it knows the command.
pub(super) fn run(area: &Area, scene: *mut Scene, reports: c_int, spawner: c_int) -> ! {
    // SAFETY: a scene that lives until the spawner has its answer, which isn't before this process has shut the socket down;
    // only atomics of it are written meanwhile.
    let scene = unsafe { &*scene.cast_const() };
    let command = match begin(area, scene) {
        Ok(command) => command,
        Err((step, errno)) => {
            scene.failed_errno.store(errno, Ordering::Release);
            scene.failed_step.store(step as u32, Ordering::Release);
            end(127);
        }
    };
    let [terminal, ..] = scene.stdio;
    if scene.failed_step.load(Ordering::Acquire) != 0 {
        wait(command);
        end(127);
    }
    scene.floor_kib.store(own_peak_kib(), Ordering::Release);
    // The command has executed: the spawner may know. From here on the scene is not ours.
    // SAFETY: numbers; this process is alone with its table of descriptors, and nothing in it owns one. All sources are
    // above 4, and each is copied before its number is taken by another.
    unsafe {
        libc::shutdown(spawner, libc::SHUT_WR);
        libc::dup2(reports, REPORTS);
        libc::dup2(terminal, TERMINAL);
        libc::dup2(spawner, SPAWNER);
        libc::syscall(libc::SYS_close_range, SPAWNER + 1, u32::MAX, 0);
        // Until the spawner has opened it by its number, the command isn't reaped.
        let mut byte = 0_u8;
        libc::read(SPAWNER, (&raw mut byte).cast(), 1);
        libc::close(SPAWNER);
    }
    attend(command);
    let typed = was_typed();
    Report::Over.send();
    match typed {
        Typed::Nothing => {}
        Typed::Before => wait_for_server(),
        // The socket can't tell any more. The server has our word in a moment.
        // SAFETY: no descriptors, only a timeout.
        Typed::Just => drop(unsafe { libc::poll(std::ptr::null_mut(), 0, MOMENT) }),
    }
    if typed != Typed::Nothing {
        hand_back();
    }
    let (status, peak_kib) = wait(command);
    Report::Ended { status, peak_memory: peak_kib.saturating_mul(1024) }.send();
    end_as(status)
}

/// Makes the session, takes the terminal, and clones the command.
fn begin(area: &Area, scene: &Scene) -> Result<c_int, (ChildStep, c_int)> {
    let [terminal, ..] = scene.stdio;
    if scene.keeper != 0 && !ends_with_parent(scene.keeper) {
        return Err((ChildStep::Session, libc::ESRCH));
    }
    // SAFETY: a static string and numbers. A new child leads no group, so it can make a session, and nobody else has this
    // terminal as theirs (ioctl_tty(2)).
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"remora-leader".as_ptr());
        if libc::setsid() < 0 {
            return Err((ChildStep::Session, last_errno()));
        }
        if libc::ioctl(terminal, libc::TIOCSCTTY, 0) < 0 {
            return Err((ChildStep::Terminal, last_errno()));
        }
    }
    // The server may have had its own idea of SIGCHLD.
    reset_signal(libc::SIGCHLD);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    let argument = (&raw const *scene).cast_mut().cast::<c_void>();
    // SAFETY: the child runs `child` on a stack of its own, which nobody uses but one child at a time: the spawner waits for
    // it, even where this process is killed meanwhile, and the kernel wakes this process only after the child has executed its
    // program or ended (CLONE_VFORK). The kernel writes the child's number where an atomic of it is.
    let pid = unsafe { libc::clone(child, area.stack_top(), flags, argument, scene.command.as_ptr()) };
    if pid < 0 { Err((ChildStep::Clone, last_errno())) } else { Ok(pid) }
}

/// Says how the command is until it is over. It isn't reaped, so its number stays its own.
fn attend(command: c_int) {
    let wanted = bit(libc::SIGCHLD) | bit(libc::SIGHUP);
    loop {
        if change(command, libc::WEXITED | libc::WNOWAIT).is_some() {
            return;
        }
        while let Some((code, signal)) = change(command, libc::WSTOPPED | libc::WCONTINUED) {
            match code {
                libc::CLD_STOPPED => Report::Stopped(signal).send(),
                _ => Report::Continued.send(),
            };
        }
        let nothing = std::ptr::null::<c_void>();
        // SAFETY: 64 bits, the kernel's own size of a signal set, which is passed along (in bytes); no siginfo, no timeout.
        let signal =
            unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const wanted, nothing, nothing, 8) };
        if signal == libc::c_long::from(libc::SIGHUP) {
            // The terminal is gone, and the kernel tells that to the leader of the session alone (tty_hangup(9)).
            // SAFETY: numbers; the command isn't reaped, so that its group is its own.
            unsafe {
                libc::kill(-command, libc::SIGHUP);
                libc::kill(-command, libc::SIGCONT);
            }
        }
    }
}

/// A change of the command that waitid(2) tells at once: code and status. What can't be waited for is over.
fn change(command: c_int, what: c_int) -> Option<(c_int, c_int)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is writable and outlives the call, all zero bytes are a valid siginfo_t, and the kernel writes a valid
    // one over it if anything.
    unsafe {
        let result =
            libc::waitid(libc::P_PID, command.unsigned_abs(), info.as_mut_ptr(), what | libc::WNOHANG);
        let info = info.assume_init_ref();
        match result {
            0 if info.si_pid() == 0 => None,
            0 => Some((info.si_code, info.si_status())),
            _ => (what & libc::WEXITED != 0).then_some((0, 0)),
        }
    }
}

/// When the server said that it writes into the terminal, which it does before it does so for the first time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Typed {
    Before,
    /// In this very moment.
    Just,
    /// Never, and now it can't say so any more: most commands are spared a wait for the server.
    Nothing,
}

fn was_typed() -> Typed {
    let mut byte = 0_u8;
    // SAFETY: one writable byte. What was sent before the shutdown can still be read, and nothing can be sent after it.
    unsafe {
        let place = (&raw mut byte).cast();
        if libc::recv(REPORTS, place, 1, libc::MSG_DONTWAIT) > 0 {
            return Typed::Before;
        }
        libc::shutdown(REPORTS, libc::SHUT_RD);
        if libc::recv(REPORTS, place, 1, libc::MSG_DONTWAIT) > 0 { Typed::Just } else { Typed::Nothing }
    }
}

/// Waits until the server has shut its end down, is gone, or takes too long.
fn wait_for_server() {
    let mut poll = libc::pollfd { fd: REPORTS, events: libc::POLLIN, revents: 0 };
    // SAFETY: one readable and writable pollfd.
    unsafe { libc::poll(&raw mut poll, 1, PATIENCE) };
}

/// Sends the input that is in the terminal still. It has no other reader by now that it is meant for: who is left is hung up.
fn hand_back() {
    let mut modes = MaybeUninit::<libc::termios>::zeroed();
    let mut foreground: libc::pid_t = 0;
    let mut bytes = [0_u8; LONGEST_REPORT - HEAD];
    // SAFETY: numbers and memory that is writable and outlives each call. All zero bytes are a valid termios. SIGTTOU is
    // blocked, so a process in the background may do all that; but only one in the foreground may read.
    unsafe {
        libc::ioctl(TERMINAL, libc::TIOCGPGRP, &raw mut foreground);
        let own = libc::getpid();
        libc::ioctl(TERMINAL, libc::TIOCSPGRP, &raw const own);
        if libc::tcgetattr(TERMINAL, modes.as_mut_ptr()) == 0 {
            let modes = modes.assume_init_mut();
            // A line that isn't finished can be read too when there are no lines any more (n_tty_set_termios), and nothing of
            // what is still on its way becomes a signal, an echo, or another character.
            modes.c_lflag &= !(libc::ICANON | libc::ISIG | libc::ECHO | libc::ECHONL | libc::IEXTEN);
            modes.c_iflag = 0;
            if let Some(least) = modes.c_cc.get_mut(libc::VMIN) {
                *least = 0;
            }
            if let Some(time) = modes.c_cc.get_mut(libc::VTIME) {
                *time = 0;
            }
            libc::tcsetattr(TERMINAL, libc::TCSANOW, modes);
        }
        let mut left = MOST_UNREAD;
        while left > 0 {
            let mut poll = libc::pollfd { fd: TERMINAL, events: libc::POLLIN, revents: 0 };
            if libc::poll(&raw mut poll, 1, 0) != 1 || poll.revents & libc::POLLIN == 0 {
                break;
            }
            let count = libc::read(TERMINAL, bytes.as_mut_ptr().cast(), bytes.len().min(left));
            let Some(read) = usize::try_from(count).ok().and_then(|count| bytes.get(..count)) else { break };
            if read.is_empty() || !Report::Unread(read).send() {
                break;
            }
            left -= read.len();
        }
        // The kernel hangs up on the foreground group when this process ends: the one that it was.
        libc::ioctl(TERMINAL, libc::TIOCSPGRP, &raw const foreground);
    }
}

/// Reaps the command; its status and its peak resident set in KiB.
fn wait(command: c_int) -> (c_int, u64) {
    // Were it lost it would be a death: nothing that looks like a success.
    let mut status = libc::SIGKILL;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `status` and `usage` are writable and outlive the call, and all zero bytes are a valid rusage.
    let peak = unsafe {
        libc::wait4(command, &raw mut status, 0, usage.as_mut_ptr());
        usage.assume_init_ref().ru_maxrss
    };
    (status, u64::try_from(peak).unwrap_or(0))
}

/// Ends this process as another ended, but for the core dump.
fn end_as(status: c_int) -> ! {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        reset_signal(signal);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: numbers and a readable limit. A dump that goes to a program has no limit (core(5)), so this process says that
        // it is none to dump.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
            libc::kill(libc::getpid(), signal);
        }
        set_signal_mask(!bit(signal));
        end(128 + signal);
    }
    end(libc::WEXITSTATUS(status))
}

/// A signal in a set as the kernel has it.
fn bit(signal: c_int) -> u64 {
    1_u64.checked_shl(signal.unsigned_abs().wrapping_sub(1)).unwrap_or(0)
}

/// Peak resident set of this process in KiB.
pub(super) fn own_peak_kib() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is writable and outlives the call, and all zero bytes are a valid rusage.
    let peak = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init().ru_maxrss
    };
    u64::try_from(peak).unwrap_or(0)
}

fn end(status: c_int) -> ! {
    // SAFETY: ends this process without running what the server registered for its own end.
    unsafe { libc::_exit(status) }
}
