//! Terminals for jobs: pty(7), termios(3), ioctl_tty(2).

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    ControlModes as C, InputModes as I, LocalModes as L, OptionalActions, OutputModes as O,
    SpecialCodeIndex as S, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

use crate::request::{Terminal, WindowSize};

/// Opens a terminal and gives its two ends: ours, and the job's.
///
/// # Errors
/// What the kernel says; `ENOSPC` where there are as many terminals as there may be.
pub(crate) fn open(terminal: &Terminal) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    set_modes(&slave, &terminal.modes)?;
    resize(&master, terminal.size);
    Ok((master, slave))
}

/// Sets the size of the window. 0×0 is "unknown" and fine with the kernel, as any other size is.
pub(crate) fn resize(terminal: &OwnedFd, size: WindowSize) {
    let size =
        Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: size.width, ws_ypixel: size.height };
    if let Err(error) = tcsetwinsize(terminal, size) {
        tracing::debug!(%error, "the window's size can't be set");
    }
}

/// Ends the input of who reads the terminal, as a person does who types Ctrl-D: the line so far is handed over, then an empty one is
/// the end. In raw mode there is no end of input.
pub(crate) fn end_input(terminal: &OwnedFd) {
    if let Ok(modes) = tcgetattr(terminal)
        && modes.local_modes.contains(L::ICANON)
        && let end @ 1.. = modes.special_codes[S::VEOF]
    {
        // Where the line is empty the first is the end already, and the second waits for the next reader, who reads the same.
        let _ = rustix::io::write(terminal, &[end, end]);
    }
}

/// Takes what is left of [`end_input`] off input that nobody has read: in the terminal an end is a zero byte (`__DISABLED_CHAR` in the
/// kernel).
pub(crate) fn strip_end(unread: &mut Vec<u8>) {
    for _ in 0..2 {
        if unread.last() == Some(&0) {
            unread.pop();
        }
    }
}

fn set_modes(terminal: &OwnedFd, wanted: &[(u8, u32)]) -> Result<(), Errno> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut modes = tcgetattr(terminal)?;
    for (opcode, argument) in wanted {
        set(&mut modes, *opcode, *argument);
    }
    tcsetattr(terminal, OptionalActions::Now, &modes)
}

/// Sets what an opcode of RFC 4254, section 8, names (42 is from RFC 8160). What this machine has no word for is passed over.
fn set(modes: &mut Termios, opcode: u8, argument: u32) {
    let on = argument != 0;
    let mut character = |index: S| {
        // 255 is "none" there, and 0 is here (termios(3), _POSIX_VDISABLE).
        modes.special_codes[index] = u8::try_from(argument).ok().filter(|value| *value != 255).unwrap_or(0);
    };
    match opcode {
        1 => character(S::VINTR),
        2 => character(S::VQUIT),
        3 => character(S::VERASE),
        4 => character(S::VKILL),
        5 => character(S::VEOF),
        6 => character(S::VEOL),
        7 => character(S::VEOL2),
        8 => character(S::VSTART),
        9 => character(S::VSTOP),
        10 => character(S::VSUSP),
        12 => character(S::VREPRINT),
        13 => character(S::VWERASE),
        14 => character(S::VLNEXT),
        16 => character(S::VSWTC),
        18 => character(S::VDISCARD),
        30 => modes.input_modes.set(I::IGNPAR, on),
        31 => modes.input_modes.set(I::PARMRK, on),
        32 => modes.input_modes.set(I::INPCK, on),
        33 => modes.input_modes.set(I::ISTRIP, on),
        34 => modes.input_modes.set(I::INLCR, on),
        35 => modes.input_modes.set(I::IGNCR, on),
        36 => modes.input_modes.set(I::ICRNL, on),
        37 => modes.input_modes.set(I::IUCLC, on),
        38 => modes.input_modes.set(I::IXON, on),
        39 => modes.input_modes.set(I::IXANY, on),
        40 => modes.input_modes.set(I::IXOFF, on),
        41 => modes.input_modes.set(I::IMAXBEL, on),
        42 => modes.input_modes.set(I::IUTF8, on),
        50 => modes.local_modes.set(L::ISIG, on),
        51 => modes.local_modes.set(L::ICANON, on),
        52 => modes.local_modes.set(L::XCASE, on),
        53 => modes.local_modes.set(L::ECHO, on),
        54 => modes.local_modes.set(L::ECHOE, on),
        55 => modes.local_modes.set(L::ECHOK, on),
        56 => modes.local_modes.set(L::ECHONL, on),
        57 => modes.local_modes.set(L::NOFLSH, on),
        58 => modes.local_modes.set(L::TOSTOP, on),
        59 => modes.local_modes.set(L::IEXTEN, on),
        60 => modes.local_modes.set(L::ECHOCTL, on),
        61 => modes.local_modes.set(L::ECHOKE, on),
        62 => modes.local_modes.set(L::PENDIN, on),
        70 => modes.output_modes.set(O::OPOST, on),
        71 => modes.output_modes.set(O::OLCUC, on),
        72 => modes.output_modes.set(O::ONLCR, on),
        73 => modes.output_modes.set(O::OCRNL, on),
        74 => modes.output_modes.set(O::ONOCR, on),
        75 => modes.output_modes.set(O::ONLRET, on),
        90 | 91 if on => {
            let size = if opcode == 90 { C::CS7 } else { C::CS8 };
            modes.control_modes = (modes.control_modes - C::CSIZE) | size;
        }
        92 => modes.control_modes.set(C::PARENB, on),
        93 => modes.control_modes.set(C::PARODD, on),
        // A terminal of the kernel's has no line: a speed that it doesn't know changes nothing.
        128 => drop(modes.set_input_speed(argument)),
        129 => drop(modes.set_output_speed(argument)),
        _ => {}
    }
}
