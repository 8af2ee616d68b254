//! Every limit of the protocols, in one place. Sizes are bytes.

/// Length of a native frame's header.
pub const FRAME_HEADER: usize = 9;
/// Length of the offset in front of a data frame's bytes.
pub const DATA_OFFSET: usize = 8;
/// Most bytes of a stream in one data frame.
pub const DATA_FRAME: usize = 256 * 1024;
/// Largest control message before the user is authenticated.
pub const CONTROL_BEFORE_AUTH: usize = 64 * 1024;
/// Largest control message afterwards. A job's arguments and environment must fit.
pub const CONTROL: usize = 1024 * 1024;
/// Largest control message about a running job, or a connection: these are small.
pub const CONTROL_SMALL: usize = 16 * 1024;
/// Largest receipt: it carries names, a statement, and the order of the output.
pub const CONTROL_RECEIPT: usize = 128 * 1024;
/// Jobs at a time on one connection.
pub const JOBS: u32 = 256;
/// Unsigned key offers over the life of a connection.
pub const OFFERS: usize = 8;
/// Authentication attempts over the life of a connection, as sshd's MaxAuthTries.
pub const AUTH_ATTEMPTS: u32 = 6;
/// Length of the server's nonce.
pub const NONCE: usize = 32;
/// Length of a job's id.
pub const JOB_ID: usize = 16;
/// Initial credit of every stream: what is kept until its receiver has consumed it.
pub const WINDOW: u64 = 1024 * 1024;
/// Largest window that a peer may ask this side to fill.
pub const WINDOW_MAX: u64 = 16 * 1024 * 1024;
/// Control bytes waiting to be written before the connection takes no more input: answers to pings and the like.
pub const CONTROL_BACKLOG: usize = 256 * 1024;

/// Longest request on a plain wire.
pub const PLAIN_REQUEST: usize = 64 * 1024;
/// Longest JSON header on the `header` wire.
pub const PLAIN_HEADER: usize = 64 * 1024;
/// Longest reply that the `length` and `header` wires can announce to peers that read a signed 32-bit length.
pub const PLAIN_LENGTH: u64 = i32::MAX as u64;
/// Longest payload that a `header` reply may announce: what a file's size is in (off_t).
pub const PLAIN_TOTAL: u64 = i64::MAX as u64;

/// Modes of one terminal: each opcode is one byte.
pub const TERMINAL_MODES: usize = 256;

/// Questions of one connection that wait for their answers at a time.
pub const QUESTIONS: usize = 16;
/// Longest name of a session.
pub const SESSION_NAME: usize = 64;
