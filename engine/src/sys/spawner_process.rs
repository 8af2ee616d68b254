//! The spawner's own process: from fork(2) to its end it makes nothing but system calls, on memory that was there before. It
//! allocates nothing, takes no lock and can't panic, so that it may be forked from a process with any number of threads.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use super::child::{ChildStep, Scene, child, last_errno};
use super::leader::{self, own_peak_kib};
use super::plan::Area;

/// What it says of one start. All of it in the machine's own byte order: both ends are one program.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Answer {
    /// The server's child, also where a step failed and it must be waited for: the command, or its leader; 0 where there is none.
    pub(super) pid: i32,
    /// The command, where there is a leader; else 0.
    pub(super) command: i32,
    /// The place in [`ChildStep::ALL`] of the step that failed; 0 is none if a descriptor comes along, else the clone.
    pub(super) step: u32,
    /// What the kernel said.
    pub(super) errno: i32,
    /// The candidate that `errno` is about.
    pub(super) candidate: u32,
    /// 1 where the root had to do as the working directory.
    pub(super) in_root: u32,
    /// Peak resident set of the process that spawned the command.
    pub(super) floor_kib: u64,
}

impl Answer {
    pub(super) fn from_bytes(bytes: [u8; size_of::<Answer>()]) -> Self {
        // SAFETY: as many bytes as an Answer has, which is integers without padding: any value is valid.
        unsafe { std::mem::transmute(bytes) }
    }
}

/// Where the spawner keeps its end of the socket, and where its epoll instance.
const SOCKET: c_int = 3;
const EPOLL: c_int = 4;

/// Descriptors that come with a request: 0, 1 and 2 of the command, the leader's reports, and the cgroup. The last two may not
/// come.
pub(super) const MOST_DESCRIPTORS: usize = 5;

/// Commands that run at the same time, at the most; one more is refused as it is by a full process table. Each costs a
/// descriptor, and the lowest free number is what it gets.
const MOST_CHILDREN: usize = 16 * 1024;
const OTHER_DESCRIPTORS: usize = 16;

/// The token of the socket; a child's is the number of its descriptor.
const SERVER: u64 = 0;

/// A pause between two looks at what is left, in milliseconds.
const PAUSE: c_int = 20;

/// Signals what leads a group and who is in it (pidfd_send_signal(2)); Linux 6.9 and later.
pub(super) const PROCESS_GROUP: c_int = 1 << 2;

/// The spawner. `area` is shared with the server; `socket` and `null` are above 2; `grace` in milliseconds.
pub(super) fn run(area: &Area, socket: c_int, null: c_int, grace: c_int) -> ! {
    let Some(mut children) = settle(socket, null) else { end() };
    loop {
        match next_event() {
            Some(SERVER) if !serve(area, &mut children) => break,
            Some(SERVER) | None => {}
            Some(pidfd) => children.forget(pidfd),
        }
    }
    children.end_all(grace);
    end()
}

/// Lets go of all that was copied from the server but the socket: its session, descriptors and working directory.
fn settle(socket: c_int, null: c_int) -> Option<Children> {
    // SAFETY: system calls on numbers and static strings. This process is alone with its table of descriptors, and nothing
    // in it owns one: what the server's values own is the server's copy.
    unsafe {
        libc::setsid();
        for standard in 0..=2 {
            libc::dup2(null, standard);
        }
        if libc::dup2(socket, SOCKET) != SOCKET {
            return None;
        }
        libc::syscall(libc::SYS_close_range, SOCKET + 1, u32::MAX, 0);
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_NAME, c"remora-spawner".as_ptr());
        if libc::epoll_create1(0) != EPOLL {
            return None;
        }
    }
    watch(SOCKET, SERVER).then_some(())?;
    Children::new()
}

/// Adds a descriptor to what [`next_event`] waits for.
fn watch(fd: c_int, token: u64) -> bool {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
    // SAFETY: numbers, and a structure that the kernel only reads.
    unsafe { libc::epoll_ctl(EPOLL, libc::EPOLL_CTL_ADD, fd, &raw mut event) == 0 }
}

/// Waits for something to happen and says to which token.
fn next_event() -> Option<u64> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one event.
    let count = unsafe { libc::epoll_wait(EPOLL, &raw mut event, 1, -1) };
    (count == 1).then_some(event.u64)
}

/// Serves one request; `false` where the other end is gone.
fn serve(area: &Area, children: &mut Children) -> bool {
    let Some(request) = Request::receive() else { return true };
    if request.is_end {
        return false;
    }
    // SAFETY: the head lies in the area, aligned; the server waits for the answer and doesn't touch it. These are the only
    // fields that this process writes but for atomics, and no reference to the scene is alive.
    let scene = unsafe { &raw mut (*area.head()).scene };
    // SAFETY: as above.
    let is_led = unsafe { (*scene).is_led };
    let [stdin, stdout, stderr, fourth, fifth] = request.fds;
    let (reports, cgroup) = if is_led { (fourth, fifth) } else { (-1, fourth) };
    let (answer, pidfds) = if request.is_whole {
        // SAFETY: as above.
        unsafe {
            (*scene).stdio = [stdin, stdout, stderr];
            (*scene).cgroup = cgroup;
        }
        if is_led { children.spawn_led(area, scene, reports) } else { children.spawn(area, scene) }
    } else {
        // The table of descriptors is full, and the kernel left some out.
        (Answer::failed(ChildStep::Descriptors, libc::EMFILE), NONE)
    };
    request.close();
    if area.was_given_up() {
        let [pidfd, command] = pidfds;
        for (pidfd, pid) in [(command, answer.command), (pidfd, answer.pid)] {
            if pidfd >= 0 {
                signal_group(pidfd, pid, libc::SIGKILL);
            }
        }
    }
    send(answer, pidfds);
    if let [leader, command] = pidfds
        && command >= 0
    {
        close(leader);
    }
    true
}

/// No descriptors of an answer: the child's, and the command's where that is another.
const NONE: [c_int; 2] = [-1; 2];

/// One request as it came.
struct Request {
    is_end: bool,
    /// As many descriptors came as were sent.
    is_whole: bool,
    /// -1 for each that didn't come.
    fds: [c_int; MOST_DESCRIPTORS],
}

impl Request {
    fn receive() -> Option<Self> {
        let mut byte = 0_u8;
        let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // Aligned as a cmsghdr, and larger than five descriptors need.
        let mut control = [0_u64; 8];
        let mut request = Request { is_end: false, is_whole: false, fds: [-1; MOST_DESCRIPTORS] };
        // SAFETY: all zero bytes are a valid msghdr. Everything it points to outlives the call, and CMSG_* walk only what
        // the kernel wrote there; an SCM_RIGHTS message holds whole numbers of descriptors, read unaligned.
        unsafe {
            let mut message = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
            message.msg_iov = &raw mut vector;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            let received =
                libc::recvmsg(SOCKET, &raw mut message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT);
            if received < 0 {
                return None;
            }
            request.is_end = received == 0;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(header).cast::<c_int>();
                request.is_whole = bytes / size_of::<c_int>() == usize::from(byte);
                for (index, fd) in request.fds.iter_mut().enumerate().take(bytes / size_of::<c_int>()) {
                    *fd = data.add(index).read_unaligned();
                }
            }
        }
        Some(request)
    }

    fn close(&self) {
        for fd in self.fds {
            if fd >= 0 {
                // SAFETY: came with this request and is nobody else's.
                unsafe { libc::close(fd) };
            }
        }
    }
}

impl Answer {
    /// What became of a scene whose child has executed or ended.
    fn of(scene: &Scene, pid: c_int, floor_kib: u64) -> Self {
        Answer {
            pid,
            command: scene.command.load(Ordering::Acquire),
            step: scene.failed_step.load(Ordering::Acquire),
            errno: scene.failed_errno.load(Ordering::Acquire),
            candidate: scene.failed_candidate.load(Ordering::Acquire),
            in_root: scene.in_root.load(Ordering::Acquire),
            floor_kib,
        }
    }

    fn failed(step: ChildStep, errno: c_int) -> Self {
        Answer { pid: 0, command: 0, step: step as u32, errno, candidate: 0, in_root: 0, floor_kib: 0 }
    }
}

/// Sends an answer, with copies of the descriptors there are.
fn send(answer: Answer, pidfds: [c_int; 2]) {
    let count = pidfds.iter().filter(|pidfd| **pidfd >= 0).count();
    let bytes = (count * size_of::<c_int>()) as u32;
    let mut vector =
        libc::iovec { iov_base: (&raw const answer).cast_mut().cast(), iov_len: size_of::<Answer>() };
    let mut control = [0_u64; 4];
    // SAFETY: all zero bytes are a valid msghdr. Everything it points to outlives the call, and the control buffer is
    // aligned as a cmsghdr and has room for two descriptors, of which the first is there if any.
    unsafe {
        let mut message = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        if count > 0 {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
            let data = libc::CMSG_DATA(header).cast::<c_int>();
            for (index, pidfd) in pidfds.iter().enumerate().take(count) {
                data.add(index).write_unaligned(*pidfd);
            }
        }
        libc::sendmsg(SOCKET, &raw const message, libc::MSG_NOSIGNAL);
    }
}

/// The children that run: a process id for each descriptor number that is a pidfd, 0 elsewhere. Zeroed memory that costs a
/// page where it is used.
struct Children {
    pids: *mut c_int,
    count: usize,
}

impl Children {
    fn new() -> Option<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let bytes = MOST_CHILDREN * size_of::<c_int>();
        // SAFETY: a new mapping where the kernel finds room for it, of no file.
        let pids = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        (pids != libc::MAP_FAILED).then_some(Children { pids: pids.cast(), count: 0 })
    }

    /// The place of a descriptor number.
    fn place(&self, fd: c_int) -> Option<*mut c_int> {
        let index = usize::try_from(fd).ok().filter(|index| *index < MOST_CHILDREN)?;
        // SAFETY: inside the mapping.
        Some(unsafe { self.pids.add(index) })
    }

    fn is_full(&self) -> bool {
        self.count >= MOST_CHILDREN - OTHER_DESCRIPTORS
    }

    /// Clones a child for a scene. Returns the answer, and the child's descriptor if there is one.
    fn spawn(&mut self, area: &Area, scene: *mut Scene) -> (Answer, [c_int; 2]) {
        if self.is_full() {
            return (Answer::failed(ChildStep::Clone, libc::EAGAIN), NONE);
        }
        let floor_kib = own_peak_kib();
        let mut pidfd: c_int = -1;
        let flags =
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_PARENT | libc::SIGCHLD;
        // SAFETY: the child runs `child` on a stack of its own, which nobody uses but one child at a time: the kernel wakes
        // this process only after the child has executed its program or ended (CLONE_VFORK). The scene and what it points to
        // lie in the area, which the server leaves alone until it has an answer or has given this process up. `pidfd` is
        // writable. All signals are blocked, so no handler runs in the child.
        let pid =
            unsafe { libc::clone(child, area.stack_top(), flags, scene.cast::<c_void>(), &raw mut pidfd) };
        if pid < 0 {
            return (Answer::failed(ChildStep::Clone, last_errno()), NONE);
        }
        // SAFETY: as above; the child doesn't write any more.
        let scene = unsafe { &*scene.cast_const() };
        let answer = Answer::of(scene, pid, floor_kib);
        if answer.step != 0 {
            close(pidfd);
            return (answer, NONE);
        }
        self.remember(pidfd, pid);
        (answer, [pidfd, -1])
    }

    /// Forks a leader that clones the child. Returns the answer, and the descriptors of both if both are there.
    fn spawn_led(&mut self, area: &Area, scene: *mut Scene, reports: c_int) -> (Answer, [c_int; 2]) {
        if self.is_full() {
            return (Answer::failed(ChildStep::Clone, libc::EAGAIN), NONE);
        }
        let mut pair = NONE;
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        // SAFETY: room for two numbers.
        if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) } < 0 {
            return (Answer::failed(ChildStep::Descriptors, last_errno()), NONE);
        }
        let [ours, theirs] = pair;
        let mut pidfd: c_int = -1;
        let flags = libc::CLONE_PIDFD | libc::CLONE_PARENT | libc::SIGCHLD;
        // SAFETY: a fork, so the copy has memory of its own but for the area; as this process it makes nothing but system calls.
        // `pidfd` is writable. The first three arguments are the same wherever we run but on s390.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                libc::c_long::from(flags),
                std::ptr::null_mut::<c_void>(),
                &raw mut pidfd,
            )
        };
        if pid == 0 {
            leader::run(area, scene, reports, theirs);
        }
        let errno = last_errno();
        close(theirs);
        let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else {
            close(ours);
            return (Answer::failed(ChildStep::Clone, errno), NONE);
        };
        // The leader and the command hold the other end until the command has executed, or both are gone.
        let mut byte = 0_u8;
        // SAFETY: one writable byte.
        unsafe { libc::read(ours, (&raw mut byte).cast(), 1) };
        // SAFETY: as in `spawn`; neither writes any more.
        let scene = unsafe { &*scene.cast_const() };
        let mut answer = Answer::of(scene, pid, scene.floor_kib.load(Ordering::Acquire));
        let mut command = -1;
        if answer.step == 0 && answer.command > 0 {
            // The leader doesn't reap it before we close our end. Where the leader was killed, the session tells that the number
            // isn't another's: that is the leader's, who isn't reaped.
            // SAFETY: numbers only.
            unsafe {
                command = libc::syscall(libc::SYS_pidfd_open, answer.command, 0) as c_int;
                if command < 0 {
                    answer.errno = last_errno();
                    answer.step = ChildStep::Descriptors as u32;
                }
                if libc::getsid(answer.command) != pid {
                    close(command);
                    command = -1;
                } else if command < 0 {
                    libc::kill(-answer.command, libc::SIGKILL);
                }
            }
        }
        if command < 0 {
            // Not started, or nobody could end it: the server waits for the leader's end.
            if answer.errno == 0 {
                answer.errno = libc::ENOMEM;
            }
            signal_group(pidfd, pid, libc::SIGKILL);
            close(pidfd);
            close(ours);
            return (answer, NONE);
        }
        // The leader isn't watched: it ends with its command, or with its terminal.
        self.remember(command, answer.command);
        close(ours);
        (answer, [pidfd, command])
    }

    /// Watches a child until it is over.
    fn remember(&mut self, pidfd: c_int, pid: c_int) {
        if let Some(place) = self.place(pidfd).filter(|_| watch(pidfd, u64::from(pidfd.unsigned_abs()))) {
            // SAFETY: inside the mapping, which nobody else uses.
            unsafe { place.write(pid) };
            self.count += 1;
        }
    }

    /// A child is over. The server has a copy of the descriptor, so closing ours doesn't end the watch (epoll(7)).
    fn forget(&mut self, token: u64) {
        let Ok(pidfd) = c_int::try_from(token) else { return };
        // SAFETY: numbers only; a null event is ignored.
        unsafe { libc::epoll_ctl(EPOLL, libc::EPOLL_CTL_DEL, pidfd, std::ptr::null_mut()) };
        close(pidfd);
        if let Some(place) = self.place(pidfd) {
            // SAFETY: inside the mapping, which nobody else uses.
            unsafe { place.write(0) };
            self.count = self.count.saturating_sub(1);
        }
    }

    /// Calls `f` with the descriptor and process id of each child.
    fn each(&self, mut f: impl FnMut(c_int, c_int)) {
        for fd in 0..MOST_CHILDREN as c_int {
            // SAFETY: inside the mapping, where only this process writes.
            let pid = self.place(fd).map_or(0, |place| unsafe { place.read() });
            if pid > 0 {
                f(fd, pid);
            }
        }
    }

    /// The server is gone: SIGTERM to all groups, and SIGKILL to what is left of them after the grace.
    fn end_all(&mut self, grace: c_int) {
        if self.count == 0 {
            return;
        }
        self.each(|pidfd, pid| {
            signal_group(pidfd, pid, libc::SIGTERM);
            signal_group(pidfd, pid, libc::SIGCONT);
        });
        let mut waited = 0;
        loop {
            let mut left = false;
            self.each(|pidfd, pid| left |= signal_group(pidfd, pid, 0));
            if !left || waited >= grace {
                break;
            }
            // SAFETY: no descriptors, only a timeout.
            unsafe { libc::poll(std::ptr::null_mut(), 0, PAUSE) };
            waited = waited.saturating_add(PAUSE);
        }
        self.each(|pidfd, pid| {
            signal_group(pidfd, pid, libc::SIGKILL);
        });
    }
}

/// Signals a group by its leader's descriptor, which can't mean another's; whether there is anybody in it. Before Linux 6.9 by
/// its number, and only while the leader is there.
fn signal_group(pidfd: c_int, pid: c_int, signal: c_int) -> bool {
    let by_descriptor = |signal: c_int, flags: c_int| {
        let nothing = std::ptr::null::<c_void>();
        // SAFETY: numbers, and no siginfo.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, nothing, flags) == 0 }
    };
    if by_descriptor(signal, PROCESS_GROUP) {
        return true;
    }
    if last_errno() != libc::EINVAL || pid <= 1 || !by_descriptor(0, 0) {
        return false;
    }
    // SAFETY: numbers; above 1, so neither "every process" nor our own group.
    unsafe { libc::kill(-pid, signal) == 0 }
}

fn close(fd: c_int) {
    // SAFETY: this process's own descriptor, which no value owns.
    unsafe { libc::close(fd) };
}

fn end() -> ! {
    // SAFETY: ends this process without running what the server registered for its own end.
    unsafe { libc::_exit(0) }
}
