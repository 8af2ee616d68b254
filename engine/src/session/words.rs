//! Words as a shell expands them, where every shell gives exactly one and the same: quotes, `~`, `$NAME`. Anything else is none
//! of our business, and the whole line goes to the shell.

use brush_parser::ParserOptions;
use brush_parser::word::{self, Parameter, ParameterExpr, TildeExpr, WordPiece, WordPieceWithSource};

use super::state::State;

/// Where the home of another user is.
pub(crate) type Homes<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// Expands a word to exactly one; none where a shell must do it.
pub(crate) fn expand(text: &str, state: &State, homes: Homes<'_>) -> Option<Vec<u8>> {
    let pieces = tracing::dispatcher::with_default(&tracing::Dispatch::none(), || {
        word::parse(text, &ParserOptions::default())
    })
    .ok()?;
    let mut out = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        unquoted(&piece.piece, index == 0, state, homes, &mut out)?;
    }
    Some(out)
}

fn unquoted(
    piece: &WordPiece,
    first: bool,
    state: &State,
    homes: Homes<'_>,
    out: &mut Vec<u8>,
) -> Option<()> {
    match piece {
        // A word that begins with '=' is a path in zsh.
        WordPiece::Text(text) if is_safe(text) && !(first && text.starts_with('=')) => {
            out.extend_from_slice(text.as_bytes());
        }
        WordPiece::SingleQuotedText(text) => out.extend_from_slice(text.as_bytes()),
        WordPiece::EscapeSequence(sequence) => {
            let rest = sequence.strip_prefix('\\').filter(|rest| rest.chars().count() == 1)?;
            out.extend_from_slice(rest.as_bytes());
        }
        WordPiece::DoubleQuotedSequence(pieces) => quoted(pieces, state, out)?,
        WordPiece::TildeExpansion(tilde) if first => match tilde {
            TildeExpr::Home => {
                out.extend_from_slice(state.variable(b"HOME").filter(|home| !home.is_empty())?)
            }
            TildeExpr::UserHome(user) => out.extend_from_slice(&homes(user)?),
            _ => return None,
        },
        WordPiece::ParameterExpansion(expansion) => {
            let value = variable(expansion, state)?;
            // Unquoted, it would be split and matched with files.
            if value.is_empty() || !std::str::from_utf8(value).is_ok_and(is_safe) {
                return None;
            }
            out.extend_from_slice(value);
        }
        _ => return None,
    }
    Some(())
}

fn quoted(pieces: &[WordPieceWithSource], state: &State, out: &mut Vec<u8>) -> Option<()> {
    for piece in pieces {
        match &piece.piece {
            WordPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
            WordPiece::EscapeSequence(sequence) => match sequence.as_bytes() {
                [b'\\', byte @ (b'$' | b'`' | b'"' | b'\\')] => out.push(*byte),
                _ => return None,
            },
            WordPiece::ParameterExpansion(expansion) => out.extend_from_slice(variable(expansion, state)?),
            _ => return None,
        }
    }
    Some(())
}

/// The value of a plain `$NAME` that the session has. What it doesn't have may be the shell's own, as `$RANDOM` is.
fn variable<'a>(expansion: &ParameterExpr, state: &'a State) -> Option<&'a [u8]> {
    match expansion {
        ParameterExpr::Parameter { parameter: Parameter::Named(name), indirect: false }
            if !is_special(name) =>
        {
            state.variable(name.as_bytes())
        }
        _ => None,
    }
}

/// Characters that mean themselves in every shell, wherever they stand unquoted.
fn is_safe(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "_./,:@%+-=".contains(c))
}

/// Whether a name can be a variable's.
pub(crate) fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Whether a shell does more with a variable than keep it: sets it itself, refuses a value, or acts on one at once. Names in
/// lower case are so in zsh (`path`, `status`).
pub(crate) fn is_special(name: &str) -> bool {
    const PREFIXES: [&str; 9] =
        ["BASH", "COMP_", "EPOCH", "HIST", "LC_", "READLINE_", "ZSH", "fish", "PROMPT"];
    const NAMES: [&str; 60] = [
        "ARGC",
        "COLUMNS",
        "COPROC",
        "CPUTYPE",
        "DIRSTACK",
        "EGID",
        "EUID",
        "FPATH",
        "FUNCNAME",
        "GID",
        "GROUPS",
        "HOST",
        "HOSTNAME",
        "HOSTTYPE",
        "IFS",
        "KEYTIMEOUT",
        "LANG",
        "LANGUAGE",
        "LINENO",
        "LINES",
        "MACHTYPE",
        "MAILCHECK",
        "MAPFILE",
        "MATCH",
        "NULLCMD",
        "OLDPWD",
        "OPTARG",
        "OPTERR",
        "OPTIND",
        "OSTYPE",
        "PIPESTATUS",
        "POSIXLY_CORRECT",
        "PPID",
        "PS1",
        "PS2",
        "PS3",
        "PS4",
        "PWD",
        "RANDOM",
        "READNULLCMD",
        "REPLY",
        "RPROMPT",
        "SECONDS",
        "SHELLOPTS",
        "SHLVL",
        "SIGNAL",
        "SPROMPT",
        "SRANDOM",
        "TERM",
        "TERMINFO",
        "TIMEFORMAT",
        "TMOUT",
        "TRY_BLOCK_ERROR",
        "TTY",
        "TTYIDLE",
        "UID",
        "USERNAME",
        "VENDOR",
        "WORDCHARS",
        "_",
    ];
    // Read they are what the session says they are.
    !matches!(name, "PWD" | "OLDPWD" | "LANG" | "TERM") && NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.bytes().all(|byte| !byte.is_ascii_uppercase())
}

/// Whether a session may set or unset a variable by itself: no shell does more with it.
pub(crate) fn is_settable(name: &str) -> bool {
    is_name(name.as_bytes())
        && !is_special(name)
        && !matches!(name, "PWD" | "OLDPWD" | "LANG" | "TERM" | "HOME")
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::state;
    use super::*;

    fn one(text: &str) -> Option<String> {
        let state = state("/w", &[("HOME", "/home/a b"), ("X", "x y"), ("SAFE", "s/1"), ("EMPTY", "")]);
        let homes = |user: &str| (user == "root").then(|| b"/root".to_vec());
        expand(text, &state, &homes).map(|word| String::from_utf8(word).unwrap())
    }

    #[test]
    fn quotes_tildes_and_variables() {
        for (text, word) in [
            ("plain", "plain"),
            ("'a b'", "a b"),
            ("a\\ b", "a b"),
            ("\"a $X\"c", "a x yc"),
            ("\"\\$X \\n \\\"\"", "$X \\n \""),
            ("~", "/home/a b"),
            ("~/x", "/home/a b/x"),
            ("~root/x", "/root/x"),
            ("$SAFE/2", "s/1/2"),
            ("${SAFE}x", "s/1x"),
            ("\"$EMPTY\"", ""),
            ("$PWD", "/w"),
            ("A=b", "A=b"),
            ("''", ""),
        ] {
            assert_eq!(one(text).as_deref(), Some(word), "{text}");
        }
    }

    #[test]
    fn what_shells_disagree_on_is_left_to_them() {
        for text in [
            "$X",
            "$EMPTY",
            "$NONE",
            "$RANDOM",
            "$1",
            "$?",
            "$$",
            "*",
            "a?",
            "[a]",
            "~nobody-here",
            "~+",
            "~-",
            "=ls",
            "a^b",
            "#x",
            "${X:-1}",
            "${#X}",
            "$(ls)",
            "`ls`",
            "$((1))",
            "$'a'",
            "$\"a\"",
            "\"$(ls)\"",
            "\"${X%y}\"",
            "a{b,c}",
            "!x",
            "A=~/x",
        ] {
            assert_eq!(one(text), None, "{text}");
        }
    }
}
