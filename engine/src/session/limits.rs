//! Every limit of a session, in one place. Sizes are bytes.

/// Exported variables together. What a program can be given is bounded by the kernel (execve(2)), and arguments must fit beside.
pub(crate) const ENVIRONMENT: usize = 1024 * 1024;
/// One variable: `NAME=VALUE` and the NUL behind it (execve(2), `MAX_ARG_STRLEN`: 32 pages).
pub(crate) const VARIABLE: usize = 128 * 1024;
/// Aliases together; functions together; the directory stack. They travel to the shell inside one argument.
pub(crate) const DEFINITIONS: usize = 64 * 1024;
/// Directories on the stack.
pub(crate) const STACK: usize = 256;
/// The longest path (`PATH_MAX`).
pub(crate) const PATH: usize = 4096;
/// What is read of the state that a shell tells; beyond it nothing of it is kept.
pub(crate) const CAPTURE: usize = 4 * ENVIRONMENT;
/// The longest line that is looked at for whether it can be carried out without a shell.
pub(crate) const LINE: usize = 4096;
/// How deep a line may nest that is shown to the parser, which recurses.
pub(crate) const DEPTH: usize = 24;
/// How many brackets and `case`s, which count twice, such a line may hold: 24 of them would take the parser a third of a second.
pub(crate) const BRANCHES: usize = 8;
/// The longest name of a session.
pub(crate) const NAME: usize = 64;
/// Words that a completion gives at the most, and their bytes together.
pub(crate) const COMPLETIONS: usize = 1000;
/// Their bytes together.
pub(crate) const COMPLETION_BYTES: usize = 256 * 1024;
/// Entries of folders that are looked at for a completion.
pub(crate) const COMPLETION_ENTRIES: usize = 100_000;
