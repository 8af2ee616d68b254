//! Which shell a line is for: what it understands, and how it tells its state.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A family of shells that a session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Bash,
    /// dash, and `sh` where it is dash.
    Dash,
    Zsh,
    Fish,
    /// Any other: it runs lines, and what they change is lost.
    Other,
}

impl Dialect {
    /// The family of a shell, by the name of its file; of `sh`, by what it is a link to.
    pub(crate) fn of(shell: &Path) -> Self {
        match shell.file_name().map(OsStrExt::as_bytes) {
            Some(b"sh") => {
                let real = std::fs::read_link(shell).unwrap_or_default();
                match real.file_name().map(OsStrExt::as_bytes) {
                    Some(b"sh") | None => Dialect::Other,
                    Some(_) => Dialect::of(&real),
                }
            }
            Some(b"bash" | b"rbash") => Dialect::Bash,
            Some(b"dash" | b"ash") => Dialect::Dash,
            Some(b"zsh" | b"zsh5") => Dialect::Zsh,
            Some(b"fish") => Dialect::Fish,
            _ => Dialect::Other,
        }
    }

    /// Whether a word is one of the shell itself: reserved, or built in. A line that begins with one may change the session.
    pub(crate) fn has_word(self, word: &str) -> bool {
        let of = |list: &[&str]| list.binary_search(&word).is_ok();
        of(COMMON)
            || match self {
                Dialect::Bash => of(BASH),
                Dialect::Dash => false,
                Dialect::Zsh => of(BASH) || of(ZSH),
                Dialect::Fish => of(BASH) || of(FISH),
                Dialect::Other => true,
            }
    }

    /// The words of the shell itself, for completion.
    pub(crate) fn words(self) -> impl Iterator<Item = &'static str> {
        let more: [&[&str]; 2] = match self {
            Dialect::Bash => [BASH, &[]],
            Dialect::Dash | Dialect::Other => [&[], &[]],
            Dialect::Zsh => [BASH, ZSH],
            Dialect::Fish => [BASH, FISH],
        };
        COMMON.iter().chain(more.into_iter().flatten()).copied().filter(|word| word.len() > 1)
    }
}

/// Reserved words and commands that every shell has itself (POSIX.1-2024, XCU 2.4, 2.15 and 1.6). Sorted.
const COMMON: &[&str] = &[
    "!", ".", ":", "[", "alias", "bg", "break", "case", "cd", "chdir", "command", "continue", "do", "done",
    "echo", "elif", "else", "esac", "eval", "exec", "exit", "export", "false", "fc", "fg", "fi", "for",
    "getopts", "hash", "if", "in", "jobs", "kill", "local", "printf", "pwd", "read", "readonly", "return",
    "set", "shift", "test", "then", "times", "trap", "true", "type", "ulimit", "umask", "unalias", "unset",
    "until", "wait", "while", "{", "}",
];

/// What bash has besides (bash(1)). Sorted.
const BASH: &[&str] = &[
    "[[",
    "]]",
    "bind",
    "builtin",
    "caller",
    "compgen",
    "complete",
    "compopt",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "enable",
    "function",
    "help",
    "history",
    "let",
    "logout",
    "mapfile",
    "popd",
    "pushd",
    "readarray",
    "select",
    "shopt",
    "source",
    "suspend",
    "time",
    "typeset",
];

/// What zsh has besides (zshbuiltins(1), zshmisc(1)). Sorted.
const ZSH: &[&str] = &[
    "-",
    "autoload",
    "bindkey",
    "bye",
    "cap",
    "clone",
    "comparguments",
    "compcall",
    "compctl",
    "compdescribe",
    "compfiles",
    "compgroups",
    "compquote",
    "comptags",
    "comptry",
    "compvalues",
    "disable",
    "echotc",
    "echoti",
    "emulate",
    "end",
    "float",
    "foreach",
    "functions",
    "getcap",
    "getln",
    "integer",
    "limit",
    "log",
    "nocorrect",
    "noglob",
    "print",
    "private",
    "pushln",
    "rehash",
    "repeat",
    "sched",
    "setcap",
    "setopt",
    "stat",
    "ttyctl",
    "unfunction",
    "unhash",
    "unlimit",
    "unsetopt",
    "vared",
    "whence",
    "where",
    "which",
    "zcompile",
    "zformat",
    "zftp",
    "zle",
    "zmodload",
    "zparseopts",
    "zprof",
    "zpty",
    "zregexparse",
    "zsocket",
    "zstyle",
    "ztcp",
];

/// What fish has besides (fish(1)). Sorted.
const FISH: &[&str] = &[
    "_",
    "abbr",
    "and",
    "argparse",
    "begin",
    "block",
    "breakpoint",
    "cdh",
    "commandline",
    "contains",
    "count",
    "emit",
    "end",
    "fish_add_path",
    "funced",
    "funcsave",
    "functions",
    "isatty",
    "math",
    "nextd",
    "not",
    "or",
    "path",
    "prevd",
    "random",
    "realpath",
    "setenv",
    "status",
    "string",
    "switch",
    "vared",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_so_that_every_word_is_found() {
        for list in [COMMON, BASH, ZSH, FISH] {
            assert!(list.is_sorted(), "{list:?}");
        }
        for word in ["cd", "!", "}", ":"] {
            assert!(Dialect::Dash.has_word(word), "{word}");
        }
        for word in ZSH {
            assert!(Dialect::Zsh.has_word(word), "{word}");
        }
        assert!(!Dialect::Dash.has_word("pushd") && Dialect::Bash.has_word("pushd"));
        assert!(!Dialect::Bash.has_word("ls"));
    }

    #[test]
    fn a_shell_is_known_by_its_name_and_sh_by_what_it_is() {
        assert_eq!(Dialect::of(Path::new("/usr/bin/zsh")), Dialect::Zsh);
        assert_eq!(Dialect::of(Path::new("/bin/tcsh")), Dialect::Other);
        let real = std::fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(Dialect::of(Path::new("/bin/sh")), Dialect::of(&real));
    }
}
