//! The word that the cursor is in, and words written so that a shell reads them as they are.

use remora_client::proto::CompletionKind as Kind;

/// How the part of a word before the cursor is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quote {
    None,
    Single,
    Double,
}

/// The word that ends at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Where it begins in the line, bytes; behind a `$`, `=` or `:` that is none of it.
    pub(super) start: usize,
    /// Without its quotes.
    pub(super) text: String,
    pub(super) quote: Quote,
    pub(super) kind: Kind,
    /// It begins with a `~` that stands for a home directory.
    pub(super) tilde: bool,
}

/// Words behind which a command stands, and not its argument.
const BEFORE_COMMANDS: &[&str] = &[
    "if", "then", "else", "elif", "do", "while", "until", "!", "{", "time", "exec", "command", "sudo", "env",
];
/// Commands whose arguments are directories.
const OF_DIRECTORIES: &[&str] = &["cd", "pushd", "rmdir"];
/// Commands whose arguments are names of variables.
const OF_VARIABLES: &[&str] = &["export", "unset", "readonly", "printenv"];

/// The word that ends at the end of this part of a line.
pub(super) fn word_at_end(line: &str) -> Word {
    let mut scan = Scan::default();
    for (at, c) in line.char_indices() {
        scan.take(at, c);
    }
    scan.finish(line)
}

/// What is known of a line up to some place.
#[derive(Default)]
struct Scan {
    /// The word so far, if one has begun, and where.
    word: Option<(usize, String)>,
    /// The `~` at its beginning isn't quoted.
    tilde: bool,
    /// Where behind a `=` or `:` a path of its own begins: offset in the line, and in the text.
    part: Option<(usize, usize)>,
    /// Where behind a `$` a name begins, likewise.
    variable: Option<(usize, usize)>,
    single: bool,
    double: bool,
    escaped: bool,
    comment: bool,
    /// The command of the words before; none where a command is to come.
    command: Option<String>,
    /// The word is a file's name behind a redirection.
    redirected: bool,
}

impl Scan {
    fn take(&mut self, at: usize, c: char) {
        let behind = at + c.len_utf8();
        if self.comment {
            self.comment = c != '\n';
            return;
        }
        if std::mem::take(&mut self.escaped) {
            // Within double quotes a backslash escapes a few alone (POSIX.1-2024, Shell Command Language, 2.2.3).
            if self.double && !"$`\"\\\n".contains(c) {
                self.push(at, '\\');
            }
            if c != '\n' {
                self.push(at, c);
            }
            return;
        }
        match c {
            '\'' if self.single => self.single = false,
            _ if self.single => self.push(at, c),
            '\\' => {
                self.begin(at);
                self.escaped = true;
            }
            '"' => {
                self.begin(at);
                self.double = !self.double;
            }
            '$' => {
                self.push(at, c);
                self.variable = self.word.as_ref().map(|(_, text)| (behind, text.len()));
            }
            '{' if self.variable.is_some_and(|(start, _)| start == at) => {
                self.push(at, c);
                self.variable = self.word.as_ref().map(|(_, text)| (behind, text.len()));
            }
            _ if self.double => self.name_goes_on(c).push(at, c),
            '\'' => {
                self.begin(at);
                self.single = true;
            }
            ' ' | '\t' => self.end(),
            '\n' | ';' | '|' | '&' | '(' | ')' | '`' => {
                self.end();
                // `2>&1` and `>|` stay within a redirection.
                if !(self.redirected && "&|".contains(c)) {
                    self.command = None;
                    self.redirected = false;
                }
            }
            '<' | '>' => {
                // The number before it isn't a word.
                if self.word.as_ref().is_some_and(|(_, text)| text.bytes().all(|byte| byte.is_ascii_digit()))
                {
                    self.word = None;
                }
                self.end();
                self.redirected = true;
            }
            '#' if self.word.is_none() => self.comment = true,
            '~' if self.word.is_none() => {
                self.push(at, c);
                self.tilde = true;
            }
            '=' | ':' => {
                self.name_goes_on(c).push(at, c);
                self.part = self.word.as_ref().map(|(_, text)| (behind, text.len()));
            }
            _ => self.name_goes_on(c).push(at, c),
        }
    }

    fn begin(&mut self, at: usize) {
        self.word.get_or_insert_with(|| (at, String::new()));
    }

    fn push(&mut self, at: usize, c: char) {
        self.word.get_or_insert_with(|| (at, String::new())).1.push(c);
    }

    /// A variable's name ends where something else begins.
    fn name_goes_on(&mut self, c: char) -> &mut Self {
        if !(c.is_ascii_alphanumeric() || c == '_') {
            self.variable = None;
        }
        self
    }

    fn end(&mut self) {
        let Some((_, text)) = self.word.take() else { return };
        let assignment = self.command.is_none() && self.part.is_some() && is_assignment(&text);
        (self.tilde, self.part, self.variable) = (false, None, None);
        if std::mem::take(&mut self.redirected) || assignment {
            return;
        }
        if self.command.is_none() && !BEFORE_COMMANDS.contains(&text.as_str()) {
            self.command = Some(text);
        }
    }

    fn finish(self, line: &str) -> Word {
        let quote = match (self.single, self.double) {
            (true, _) => Quote::Single,
            (_, true) => Quote::Double,
            _ => Quote::None,
        };
        let (start, text) = self.word.unwrap_or((line.len(), String::new()));
        if let Some((start, offset)) = self.variable
            && !self.single
        {
            let text = text.get(offset..).unwrap_or_default().to_owned();
            return Word { start, text, quote, kind: Kind::Variable, tilde: false };
        }
        if let Some((start, offset)) = self.part
            && quote == Quote::None
        {
            let text = text.get(offset..).unwrap_or_default().to_owned();
            let tilde = text.starts_with('~');
            return Word { start, text, quote, kind: Kind::Path, tilde };
        }
        let kind = match &self.command {
            _ if self.redirected => Kind::Path,
            None if text.contains('/') || self.tilde => Kind::Path,
            None => Kind::Command,
            Some(command) if OF_DIRECTORIES.contains(&command.as_str()) => Kind::Directory,
            Some(command) if quote == Quote::None && OF_VARIABLES.contains(&command.as_str()) => {
                Kind::Variable
            }
            Some(_) => Kind::Path,
        };
        Word { start, text, quote, kind, tilde: self.tilde }
    }
}

fn is_assignment(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// A text written so that a shell reads it as it is, in the quotes that are open already. `whole` closes them.
pub(super) fn written(text: &[u8], word: &Word, whole: bool) -> String {
    if word.kind == Kind::Variable {
        return String::from_utf8_lossy(text).into_owned();
    }
    let plain = std::str::from_utf8(text).ok().filter(|text| !text.chars().any(is_odd));
    let Some(plain) = plain else { return in_escapes(text) };
    match word.quote {
        Quote::Single => {
            let end = if whole { "'" } else { "" };
            format!("'{}{end}", plain.replace('\'', "'\\''"))
        }
        Quote::Double => {
            let mut out = String::from("\"");
            for c in plain.chars() {
                if "$`\"\\".contains(c) {
                    out.push('\\');
                }
                out.push(c);
            }
            if whole {
                out.push('"');
            }
            out
        }
        Quote::None => {
            let mut out = String::new();
            for (index, c) in plain.chars().enumerate() {
                let first = index == 0 && (c == '#' || c == '~' && !word.tilde);
                if first || " \t!\"$&'()*;<>?[\\]^`{|}".contains(c) {
                    out.push('\\');
                }
                out.push(c);
            }
            out
        }
    }
}

/// Characters that a terminal, or a person, would take for something else.
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// In the quotes of bash, zsh and POSIX.1-2024 for bytes that are no text.
fn in_escapes(text: &[u8]) -> String {
    let mut out = String::from("$'");
    for byte in text {
        match byte {
            b'\'' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' '..=b'~' => out.push(char::from(*byte)),
            // Three octal digits: what follows can't be taken for one more, as it could for a hexadecimal one.
            other => out.push_str(&format!("\\{other:03o}")),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> (usize, String, Quote, Kind) {
        let word = word_at_end(line);
        (word.start, word.text, word.quote, word.kind)
    }

    #[test]
    fn the_word_at_the_cursor_is_found_whatever_its_quotes() {
        use Kind::{Command, Directory, Path, Variable};
        use Quote::{Double, None, Single};
        let cases: &[(&str, usize, &str, Quote, Kind)] = &[
            ("", 0, "", None, Command),
            ("l", 0, "l", None, Command),
            ("ls", 0, "ls", None, Command),
            ("ls ", 3, "", None, Path),
            ("ls fo", 3, "fo", None, Path),
            ("ls 'a b", 3, "a b", Single, Path),
            ("ls \"a b", 3, "a b", Double, Path),
            ("ls \"a\\$", 3, "a$", Double, Path),
            ("ls \"a\\b", 3, "a\\b", Double, Path),
            ("ls a\\ b", 3, "a b", None, Path),
            ("ls 'a'b", 3, "ab", None, Path),
            ("ls; ca", 4, "ca", None, Command),
            ("ls | ca", 5, "ca", None, Command),
            ("ls && ca", 6, "ca", None, Command),
            ("echo $(ca", 7, "ca", None, Command),
            ("if te", 3, "te", None, Command),
            ("while true; do ec", 15, "ec", None, Command),
            ("A=1 ma", 4, "ma", None, Command),
            ("sudo vi", 5, "vi", None, Command),
            ("./ru", 0, "./ru", None, Path),
            ("/bin/l", 0, "/bin/l", None, Path),
            ("cd s", 3, "s", None, Directory),
            ("cd a; cd s", 9, "s", None, Directory),
            ("pushd ", 6, "", None, Directory),
            ("echo $HO", 6, "HO", None, Variable),
            ("export HO", 7, "HO", None, Variable),
            ("true; unset A HO", 14, "HO", None, Variable),
            ("printenv ", 9, "", None, Variable),
            ("export A=1 HO", 11, "HO", None, Variable),
            ("export A=/us", 9, "/us", None, Path),
            ("unset 'HO", 6, "HO", Single, Path),
            ("readonly > fi", 11, "fi", None, Path),
            ("echo \"$HO", 7, "HO", Double, Variable),
            ("echo ${HO", 7, "HO", None, Variable),
            ("echo '$HO", 5, "$HO", Single, Path),
            ("echo $HOME/x", 5, "$HOME/x", None, Path),
            ("cat < fi", 6, "fi", None, Path),
            ("cat 2> fi", 7, "fi", None, Path),
            ("> fi", 2, "fi", None, Path),
            ("make DESTDIR=/us", 13, "/us", None, Path),
            ("PATH=/bin:/us", 10, "/us", None, Path),
            ("ls ~/x", 3, "~/x", None, Path),
            ("~/bi", 0, "~/bi", None, Path),
            ("echo é 文", 8, "文", None, Path),
            ("cat a\nls b", 9, "b", None, Path),
        ];
        for (line, start, text, quote, kind) in cases {
            assert_eq!(at(line), (*start, (*text).to_owned(), *quote, *kind), "{line:?}");
        }
    }

    #[test]
    fn a_shell_reads_back_what_is_written() {
        let names: [&[u8]; 14] = [
            b"plain",
            b"a b",
            b"it's",
            b"$x",
            b"a\"b",
            b"back\\slash",
            b"*[?]",
            b"~",
            b"#x",
            b"new\nline",
            b"\xff\xfe7",
            "ü文".as_bytes(),
            b"{a,b}",
            b"\x1b[2J",
        ];
        for quote in [Quote::None, Quote::Single, Quote::Double] {
            for name in names {
                let word = Word { start: 0, text: String::new(), quote, kind: Kind::Path, tilde: false };
                let line = format!("printf %s {}", written(name, &word, true));
                assert!(!line.chars().any(char::is_control), "{line:?}");
                let done = std::process::Command::new("bash").arg("-c").arg(&line).output().unwrap();
                assert_eq!(done.stdout, name, "{line}");
            }
        }
    }

    #[test]
    fn the_home_directorys_sign_stays_one() {
        let word = word_at_end("ls ~/a");
        assert_eq!(written(b"~/a b", &word, true), "~/a\\ b");
        assert_eq!(written(b"~x", &word_at_end("ls "), true), "\\~x");
    }
}
