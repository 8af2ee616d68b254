//! A terminal on this side, in the words of the wire: the modes of RFC 4254, section 8.

use remora_wire::native::proto;
use rustix::fd::AsFd;
use rustix::termios::{
    ControlModes as C, InputModes as I, LocalModes as L, OutputModes as O, SpecialCodeIndex as S, Termios,
    tcgetattr, tcgetwinsize,
};

/// What a terminal here is like, so that one on the host can be made like it; `None` where it isn't one.
pub fn terminal_like(fd: impl AsFd) -> Option<proto::Terminal> {
    let modes = tcgetattr(&fd).ok()?;
    Some(proto::Terminal { size: window_size(fd), modes: modes_of(&modes), job_control: false })
}

/// The size of a terminal's window; `None` where it isn't one.
pub fn window_size(fd: impl AsFd) -> Option<proto::WindowSize> {
    let size = tcgetwinsize(fd).ok()?;
    Some(proto::WindowSize {
        rows: size.ws_row.into(),
        columns: size.ws_col.into(),
        width: size.ws_xpixel.into(),
        height: size.ws_ypixel.into(),
    })
}

/// The modes as opcodes and arguments.
fn modes_of(modes: &Termios) -> Vec<proto::TerminalMode> {
    // 0 is "none" here (termios(3), _POSIX_VDISABLE), 255 there.
    let character = |index: S| match modes.special_codes[index] {
        0 => 255,
        value => u32::from(value),
    };
    let input = |flag: I| u32::from(modes.input_modes.contains(flag));
    let local = |flag: L| u32::from(modes.local_modes.contains(flag));
    let output = |flag: O| u32::from(modes.output_modes.contains(flag));
    let size = modes.control_modes & C::CSIZE;
    [
        (1, character(S::VINTR)),
        (2, character(S::VQUIT)),
        (3, character(S::VERASE)),
        (4, character(S::VKILL)),
        (5, character(S::VEOF)),
        (6, character(S::VEOL)),
        (7, character(S::VEOL2)),
        (8, character(S::VSTART)),
        (9, character(S::VSTOP)),
        (10, character(S::VSUSP)),
        (12, character(S::VREPRINT)),
        (13, character(S::VWERASE)),
        (14, character(S::VLNEXT)),
        (18, character(S::VDISCARD)),
        (30, input(I::IGNPAR)),
        (31, input(I::PARMRK)),
        (32, input(I::INPCK)),
        (33, input(I::ISTRIP)),
        (34, input(I::INLCR)),
        (35, input(I::IGNCR)),
        (36, input(I::ICRNL)),
        (38, input(I::IXON)),
        (39, input(I::IXANY)),
        (40, input(I::IXOFF)),
        (41, input(I::IMAXBEL)),
        #[cfg(target_os = "linux")]
        (42, input(I::IUTF8)),
        (50, local(L::ISIG)),
        (51, local(L::ICANON)),
        (53, local(L::ECHO)),
        (54, local(L::ECHOE)),
        (55, local(L::ECHOK)),
        (56, local(L::ECHONL)),
        (57, local(L::NOFLSH)),
        (58, local(L::TOSTOP)),
        (59, local(L::IEXTEN)),
        (60, local(L::ECHOCTL)),
        (61, local(L::ECHOKE)),
        (62, local(L::PENDIN)),
        (70, output(O::OPOST)),
        (72, output(O::ONLCR)),
        (73, output(O::OCRNL)),
        (74, output(O::ONOCR)),
        (75, output(O::ONLRET)),
        (90, u32::from(size == C::CS7)),
        (91, u32::from(size == C::CS8)),
        (92, u32::from(modes.control_modes.contains(C::PARENB))),
        (93, u32::from(modes.control_modes.contains(C::PARODD))),
        (128, modes.input_speed()),
        (129, modes.output_speed()),
    ]
    .into_iter()
    .map(|(opcode, argument)| proto::TerminalMode { opcode, argument })
    .collect()
}
