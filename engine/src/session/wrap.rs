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

/// The text for `-c`; none for a shell that can't tell its state. A line that isn't known to be right is evaluated: what the shell
/// says of it then quotes the line alone.
pub(crate) fn wrap(
    dialect: Dialect,
    line: &[u8],
    is_right: bool,
    fifo: &[u8],
    state: &State,
) -> Option<Vec<u8>> {
    match dialect {
        Dialect::Bash | Dialect::Dash | Dialect::Zsh => Some(with_trap(dialect, line, is_right, fifo, state)),
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

fn with_trap(dialect: Dialect, line: &[u8], is_right: bool, fifo: &[u8], state: &State) -> Vec<u8> {
    // The shell ends behind this, so nobody misses its options: what traces, echoes or stops at failures is turned off without
    // a word of its own.
    let (quiet, own) = match dialect {
        Dialect::Zsh => ("set +xveu; \\builtin emulate zsh", "\\builtin"),
        Dialect::Dash => ("set +xveu", "command"),
        _ => ("set +xveu", "\\builtin"),
    };
    let handler = [
        format!("{{ {quiet}; }} 2>/dev/null; {{ {own} printf '{BEGIN}\\0'; {own} pwd; ").into_bytes(),
        format!("{own} printf '\\0%s\\0' \"$OLDPWD\"; {own} umask; {own} printf '\\0'; ").into_bytes(),
        format!("{}; {own} printf '{END}\\0'; }} 2>/dev/null >", tell(dialect)).into_bytes(),
        quoted(fifo),
    ]
    .concat();
    let mut text = prelude(dialect, state);
    text.extend_from_slice(b"trap ");
    text.extend_from_slice(&quoted(&handler));
    text.extend_from_slice(b" EXIT; ");
    // Only bash quotes the text in a message about its syntax.
    if (is_right || dialect != Dialect::Bash) && state.aliases.is_empty() {
        text.extend_from_slice(line);
    } else {
        text.extend_from_slice(b"eval ");
        text.extend_from_slice(&quoted(line));
    }
    text
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
    for (name, value) in &state.aliases {
        let value = if dialect == Dialect::Dash { quoted(value) } else { quoted_on_one_line(value) };
        add(&[b"alias ", name, b"=", &value]);
    }
    text
}

fn fish(line: &[u8], fifo: &[u8], state: &State) -> Vec<u8> {
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
    let tell = format!(
        "function __remora_tell --on-event fish_exit; begin; builtin printf '{BEGIN}\\0'; builtin pwd; \
         builtin printf '\\0%s\\0' \"$OLDPWD\"; umask; builtin printf '\\0'; \
         for n in (builtin set -nx); builtin printf '%s\\0%s\\0' $n \"$$n\"; end; builtin printf '\\0\\0'; \
         set -l own $fish_function_path/*.fish; set own (string replace -r '.*/' '' -- $own); \
         for n in (builtin functions -na); test $n != __remora_tell; \
         and not builtin contains -- $n.fish $own; and begin; builtin printf '%s\\0' $n; builtin functions --no-details $n; builtin printf '\\0'; end; end; \
         builtin printf '\\0'; for n in $dirstack; builtin printf '%s\\0' $n; end; \
         builtin printf '\\0{END}\\0'; end 2>/dev/null >"
    );
    text.extend_from_slice(tell.as_bytes());
    text.extend_from_slice(&quoted_for_fish(fifo));
    text.extend_from_slice(b"; end; ");
    text.extend_from_slice(line);
    text
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
