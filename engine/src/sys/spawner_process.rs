//! The spawner's own process: from fork(2) to its end it makes nothing but system calls, on memory that was there before. It
//! allocates nothing, takes no lock and can't panic, so that it may be forked from a process with any number of threads.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use super::child::{ChildStep, Scene};
use super::clone::{Answer, NONE, clone_command, close, fork_leader, signal_group};
use super::plan::Area;

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
        let (answer, pidfd) = clone_command(area, scene, libc::CLONE_PARENT);
        if pidfd >= 0 {
            self.remember(pidfd, answer.pid);
        }
        (answer, [pidfd, -1])
    }

    /// Forks a leader that clones the child. Returns the answer, and the descriptors of both if both are there.
    fn spawn_led(&mut self, area: &Area, scene: *mut Scene, reports: c_int) -> (Answer, [c_int; 2]) {
        if self.is_full() {
            return (Answer::failed(ChildStep::Clone, libc::EAGAIN), NONE);
        }
        let (answer, pidfds) = fork_leader(area, scene, reports, libc::CLONE_PARENT);
        if let [_, command] = pidfds
            && command >= 0
        {
            // The leader isn't watched: it ends with its command, or with its terminal.
            self.remember(command, answer.command);
        }
        (answer, pidfds)
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

fn end() -> ! {
    // SAFETY: ends this process without running what the server registered for its own end.
    unsafe { libc::_exit(0) }
}
