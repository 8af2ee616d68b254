//! A line as its shell gets it when what it changes is to be known: behind a trap that tells the shell's state as it ends.
//!
//! The state goes into a FIFO that the trap opens by its name, so that nothing the line starts inherits anything: no
//! descriptor, no variable. The line itself follows on the same line of text, so that messages keep their line numbers; where
//! the session has aliases it is evaluated, since aliases are only expanded in text that is read after they are defined.

use super::dialect::Dialect;
use super::state::State;
use super::unquote::{quoted, quoted_on_one_line};

/// How every telling begins and ends.
pub(crate) const BEGIN: &str = "remora 1";
pub(crate) const END: &str = "end";

/// What is told in place of the status where the shell ended before the line did.
pub(crate) const EARLY: &str = "early";
/// How the names of what is defined here begin.
pub(crate) const OURS: &str = "__remora";

/// A line to be wrapped.
pub(crate) struct Line<'a> {
    pub(crate) text: &'a [u8],
    /// Its syntax is known to be right. Otherwise bash would quote all that stands around it in a message: it is evaluated.
    pub(crate) is_right: bool,
    /// It is to be known whether it ends its shell, or comes to its own end.
    pub(crate) may_exit: bool,
    /// It asks how the line before it ended.
    pub(crate) asks_status: bool,
}

impl Line<'_> {
    /// Whether it can't stand in the text as it is.
    fn is_evaluated(&self, dialect: Dialect, state: &State) -> bool {
        let open = self.may_exit
            && (!self.is_right || self.text.ends_with(b"\\") || self.text.windows(2).any(|two| two == b"<<"));
        !state.aliases.is_empty() || open || (!self.is_right && dialect == Dialect::Bash)
    }
}

/// The text for `-c`; none for a shell that can't tell its state. Without a FIFO it tells nothing, and only begins as the session is.
pub(crate) fn wrap(dialect: Dialect, line: &Line<'_>, fifo: Option<&[u8]>, state: &State) -> Option<Vec<u8>> {
    match dialect {
        Dialect::Bash | Dialect::Dash | Dialect::Zsh => Some(with_trap(dialect, line, fifo, state)),
        Dialect::Fish => Some(fish(line, fifo, state)),
        Dialect::Other => None,
    }
}

/// What a shell prints of its state behind directory and mask, as [`super::told`] reads it. Names of commands are kept from
/// aliases and functions of the user's.
fn tell(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Bash => {
            "\\builtin export -p; \\builtin printf '\\0'; \\builtin alias -p; \\builtin printf '\\0'; \
             \\builtin declare -F; \\builtin printf '\\0'; \\builtin declare -f; \\builtin printf '\\0'; \
             \\builtin declare -p DIRSTACK; \\builtin printf '\\0'"
        }
        Dialect::Zsh => {
            "for __remora in \"${(@k)parameters[(R)*export*]}\"; do \
             \\builtin printf '%s\\0%s\\0' \"$__remora\" \"${(P)__remora}\"; done; \\builtin printf '\\0'; \
             \\builtin alias -L; \\builtin printf '\\0'; for __remora in \"${(@k)functions}\"; do \
             \\builtin printf '%s\\0%s\\0' \"$__remora\" \"${functions[$__remora]}\"; done; \\builtin printf '\\0'; \
             for __remora in \"${dirstack[@]}\"; do \\builtin printf '%s\\0' \"$__remora\"; done; \\builtin printf '\\0'"
        }
        _ => "export -p; command printf '\\0'; command alias; command printf '\\0\\0\\0\\0'",
    }
}

fn with_trap(dialect: Dialect, line: &Line<'_>, fifo: Option<&[u8]>, state: &State) -> Vec<u8> {
    let mut text = prelude(dialect, state);
    if let Some(fifo) = fifo {
        text.extend_from_slice(b"trap ");
        text.extend_from_slice(&quoted(&handler(dialect, fifo)));
        text.extend_from_slice(b" EXIT; ");
    }
    if line.asks_status && state.status != 0 {
        text.extend_from_slice(format!("{OURS}() {{ return {}; }}; {OURS}; ", state.status).as_bytes());
    }
    if line.is_evaluated(dialect, state) {
        text.extend_from_slice(b"eval ");
        text.extend_from_slice(&quoted(line.text));
    } else {
        text.extend_from_slice(line.text);
    }
    if line.may_exit {
        // Where the line comes to its end it is marked, and its status stays. One command, so that as little as can be is traced.
        text.extend_from_slice(format!("\nexit ${{{OURS}:=$?}}").as_bytes());
    }
    text
}

/// What the shell does as it ends.
fn handler(dialect: Dialect, fifo: &[u8]) -> Vec<u8> {
    // The shell ends behind this, so nobody misses its options and traps: what traces, echoes, looks on or stops at failures is
    // turned off without a word of its own.
    let (quiet, own) = match dialect {
        Dialect::Zsh => ("trap - DEBUG ZERR; set +xveu; \\builtin emulate zsh", "\\builtin"),
        Dialect::Dash => ("set +xveu", "command"),
        _ => ("trap - DEBUG ERR; set +xveu", "\\builtin"),
    };
    [
        format!("{{ {quiet}; }} >/dev/null 2>&1; {{ {own} printf '{BEGIN}\\0'; {own} pwd; ").into_bytes(),
        format!("{own} printf '\\0%s\\0' \"$OLDPWD\"; {own} umask; ").into_bytes(),
        format!("{own} printf '\\0%s\\0' \"${{{OURS}-{EARLY}}}\"; ").into_bytes(),
        format!("{}; {own} printf '{END}\\0'; }} 2>/dev/null >", tell(dialect)).into_bytes(),
        quoted(fifo),
    ]
    .concat()
}

/// Makes a new shell what the session's last one was, in what no environment carries.
fn prelude(dialect: Dialect, state: &State) -> Vec<u8> {
    let mut text = Vec::new();
    let mut add = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| text.extend_from_slice(part));
        text.extend_from_slice(b"; ");
    };
    match dialect {
        Dialect::Bash => {
            for source in state.functions.values() {
                add(&[b"eval ", &quoted_on_one_line(source)]);
            }
            for directory in state.stack.iter().rev() {
                add(&[b"pushd -n ", &quoted_on_one_line(directory), b" >/dev/null"]);
            }
            if !state.aliases.is_empty() {
                add(&[b"shopt -s expand_aliases"]);
            }
        }
        Dialect::Zsh => {
            for (name, source) in &state.functions {
                add(&[b"functions[", name, b"]=", &quoted_on_one_line(source)]);
            }
            // zsh forgets where it was before, whatever the environment says.
            if let Some(previous) = &state.previous {
                let (there, back) = (quoted_on_one_line(previous), quoted_on_one_line(&state.cwd));
                add(&[b"{ cd -q ", &there, b" && cd -q ", &back, b"; } 2>/dev/null"]);
            }
            if !state.stack.is_empty() {
                let stack: Vec<Vec<u8>> =
                    state.stack.iter().map(|directory| quoted_on_one_line(directory)).collect();
                add(&[b"dirstack=( ", &stack.join(&b' '), b" )"]);
            }
        }
        _ => {}
    }
    for name in state.marked.keys() {
        add(&[b"export ", name]);
    }
    for (name, value) in &state.aliases {
        let value = if dialect == Dialect::Dash { quoted(value) } else { quoted_on_one_line(value) };
        add(&[b"alias ", name, b"=", &value]);
    }
    text
}

fn fish(line: &Line<'_>, fifo: Option<&[u8]>, state: &State) -> Vec<u8> {
    let mut text = Vec::new();
    for source in state.functions.values() {
        text.extend_from_slice(b"eval ");
        text.extend_from_slice(&quoted_for_fish(source));
        text.extend_from_slice(b"; ");
    }
    if let Some(previous) = &state.previous {
        text.extend_from_slice(b"set -g dirprev ");
        text.extend_from_slice(&quoted_for_fish(previous));
        text.extend_from_slice(b"; ");
    }
    if !state.stack.is_empty() {
        let stack: Vec<Vec<u8>> = state.stack.iter().map(|directory| quoted_for_fish(directory)).collect();
        text.extend_from_slice(b"set -g dirstack ");
        text.extend_from_slice(&stack.join(&b' '));
        text.extend_from_slice(b"; ");
    }
    if let Some(fifo) = fifo {
        text.extend_from_slice(fish_handler().as_bytes());
        text.extend_from_slice(&quoted_for_fish(fifo));
        text.extend_from_slice(b"; end; ");
    }
    if line.asks_status && state.status != 0 {
        let status = state.status;
        text.extend_from_slice(
            format!("function {OURS}_status; return {status}; end; {OURS}_status; ").as_bytes(),
        );
    }
    // On lines of its own: fish shows the whole line that something is wrong in.
    text.push(b'\n');
    text.extend_from_slice(line.text);
    // An assignment leaves the status as it is.
    text.extend_from_slice(format!("\nset -g {OURS}_end 1").as_bytes());
    text
}

/// What fish does as it ends, but for where it tells.
fn fish_handler() -> String {
    format!(
        "function {OURS}_tell --on-event fish_exit; begin; builtin printf '{BEGIN}\\0'; builtin pwd; \
         builtin printf '\\0%s\\0' \"$OLDPWD\"; umask; builtin printf '\\0'; \
         if set -q {OURS}_end; builtin printf '\\0'; else; builtin printf '{EARLY}\\0'; end; \
         for n in (builtin set -nx); builtin printf '%s\\0%s\\0' $n \"$$n\"; end; builtin printf '\\0\\0'; \
         set -l own $fish_function_path/*.fish; set own (string replace -r '.*/' '' -- $own); \
         for n in (builtin functions -na); not string match -q '{OURS}*' $n; \
         and not builtin contains -- $n.fish $own; and begin; builtin printf '%s\\0' $n; builtin functions --no-details $n; builtin printf '\\0'; end; end; \
         builtin printf '\\0'; for n in $dirstack; builtin printf '%s\\0' $n; end; \
         builtin printf '\\0{END}\\0'; end 2>/dev/null >"
    )
}

/// A word in fish's single quotes, where a backslash hides a quote and itself.
fn quoted_for_fish(word: &[u8]) -> Vec<u8> {
    let mut out = b"'".to_vec();
    for byte in word {
        if matches!(byte, b'\'' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'\'');
    out
}
