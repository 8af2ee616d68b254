//! Whether what was typed is a whole command, or goes on in the next line. In doubt it is whole: the host's shell says what is wrong.

use brush_parser::ast::{CompoundListItem, Program, SeparatorOperator};
use brush_parser::{ParseError, Parser, ParserOptions};
use reedline::{ValidationResult, Validator};

/// Which shell will run a line, as far as that decides where it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    /// bash, dash, sh: parsed.
    #[default]
    Posix,
    /// zsh: parsed, and an empty line ends what it has more forms for than the parser knows.
    Zsh,
    /// fish: its blocks are counted, which all end by the same word.
    Fish,
    /// Other grammars: quotes and backslashes alone.
    Other,
}

impl Dialect {
    /// By a shell's path.
    pub(super) fn of(shell: &[u8]) -> Self {
        match shell.rsplit(|byte| *byte == b'/').next().unwrap_or_default() {
            b"zsh" => Dialect::Zsh,
            b"fish" => Dialect::Fish,
            b"bash" | b"dash" | b"sh" | b"ash" | b"ksh" | b"mksh" | b"busybox" => Dialect::Posix,
            _ => Dialect::Other,
        }
    }
}

/// Longest text that is parsed, bytes.
const PARSED: usize = 256 * 1024;
/// Deepest nesting that is parsed. The parser goes deeper on its stack with each step, and its time doubles with each that begins by
/// what could be two things: `(` may be a subshell or arithmetic, `case` has patterns with brackets and without.
const DEPTH: usize = 40;
const DOUBLING: usize = 9;

/// Whether a text is a whole command.
pub(super) fn is_whole(text: &str, dialect: Dialect) -> bool {
    if text.trim().is_empty() {
        return true;
    }
    if ends_in_backslash(text) {
        return false;
    }
    match parsed(text, dialect) {
        None if dialect == Dialect::Fish => !is_open_quote(text) && !is_open_in_fish(text),
        None => !is_open_quote(text),
        Some(Ok(_)) => true,
        Some(Err(ParseError::Tokenizing { inner, .. })) => !inner.is_incomplete(),
        Some(Err(ParseError::ParsingAtEndOfInput)) => dialect == Dialect::Zsh && text.ends_with("\n\n"),
        Some(Err(ParseError::ParsingNear(_))) => true,
    }
}

/// What the parser says; none of what it isn't for.
fn parsed(text: &str, dialect: Dialect) -> Option<Result<Program, ParseError>> {
    let (depth, doubling) = nesting(text);
    let other = matches!(dialect, Dialect::Other | Dialect::Fish);
    if other || text.len() > PARSED || depth > DEPTH || doubling > DOUBLING {
        return None;
    }
    let mut whole = text.to_owned();
    whole.push('\n');
    Some(Parser::new(whole.as_bytes(), &ParserOptions::default()).parse_program())
}

/// The command of a line that is one command for the background, `COMMAND &`.
pub(super) fn for_background(text: &str, dialect: Dialect) -> Option<&str> {
    let command = text.trim().strip_suffix('&')?.trim_end();
    let Some(Ok(program)) = parsed(text, dialect) else { return None };
    match program.complete_commands.as_slice() {
        [list] => match list.0.as_slice() {
            [CompoundListItem(_, SeparatorOperator::Async)] => Some(command),
            _ => None,
        },
        _ => None,
    }
}

/// How deep a text is nested at most, in all and by what doubles: at a glance, quotes and all.
fn nesting(text: &str) -> (usize, usize) {
    // Apart, since the bracket behind a pattern closes nothing.
    let (mut blocks, mut cases, mut brackets) = (0_usize, 0_usize, 0_usize);
    let mut deepest = (0, 0);
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphabetic() {
            word.push(c);
            continue;
        }
        match word.as_str() {
            "case" => cases += 1,
            "esac" => cases = cases.saturating_sub(1),
            "if" | "do" | "while" | "until" | "time" | "coproc" => blocks += 1,
            "fi" | "done" => blocks = blocks.saturating_sub(1),
            _ => {}
        }
        word.clear();
        match c {
            '(' => brackets += 1,
            ')' => brackets = brackets.saturating_sub(1),
            '{' => blocks += 1,
            '}' => blocks = blocks.saturating_sub(1),
            _ => {}
        }
        deepest = (deepest.0.max(blocks + cases + brackets), deepest.1.max(cases + brackets));
    }
    deepest
}

/// Whether the last line goes on by a backslash. Not within single quotes, nor in a comment, where it would be nothing special;
/// there the parser knows better, and a quote that is open asks for more anyway.
fn ends_in_backslash(text: &str) -> bool {
    let count = text.bytes().rev().take_while(|byte| *byte == b'\\').count();
    let comment = text.lines().next_back().is_some_and(|line| line.trim_start().starts_with('#'));
    count % 2 == 1 && !comment
}

/// Whether a quote is open at the end, in the way of every shell.
fn is_open_quote(text: &str) -> bool {
    let mut open = None;
    let mut escaped = false;
    for c in text.chars() {
        match (open, c) {
            _ if std::mem::take(&mut escaped) => {}
            (Some('\''), '\'') | (Some('"'), '"') => open = None,
            (Some('\''), _) => {}
            (_, '\\') => escaped = true,
            (None, '\'' | '"') => open = Some(c),
            _ => {}
        }
    }
    open.is_some()
}

/// Whether a block is open at the end, or a list goes on. Words in quotes are taken for what they look like.
fn is_open_in_fish(text: &str) -> bool {
    let mut open = 0_u32;
    let mut command = true;
    let spaced = text.replace([';', '|', '\n', '(', '&'], " ; ");
    for word in spaced.split_whitespace() {
        match word {
            ";" | "and" | "or" | "not" | "!" | "else" => {
                command = true;
                continue;
            }
            "begin" | "if" | "for" | "while" | "function" | "switch" if command => open += 1,
            "end" if command => open = open.saturating_sub(1),
            _ => {}
        }
        // What is behind these is a command again.
        command = command && matches!(word, "begin" | "if" | "while");
    }
    let tail = text.trim_end();
    open > 0 || tail.ends_with('|') || tail.ends_with("&&")
}

/// [`is_whole`] for the line editor.
pub(super) struct Whole(pub(super) Dialect);

impl Validator for Whole {
    fn validate(&self, line: &str) -> ValidationResult {
        if is_whole(line, self.0) { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unfinished_goes_on() {
        for text in [
            "echo 'a",
            "echo \"a",
            "echo \"a 'b'",
            "echo $(ls",
            "echo ${x",
            "echo `ls",
            "ls |",
            "ls &&",
            "ls ||",
            "ls \\",
            "ls | \\",
            "if true",
            "if true; then",
            "if true\nthen\necho",
            "for x in 1 2",
            "for x in 1 2; do",
            "while read x; do echo $x",
            "until false; do",
            "case x in",
            "case x in\nx) echo;;",
            "{",
            "{ ls;",
            "( ls",
            "f() {",
            "f()",
            "cat <<EOF",
            "cat <<EOF\na",
            "cat <<'EOF'\na\nEO",
            "cat <<-EOF\n\ta",
            "cat <<A <<B\na\nA\nb",
            "cat <<EOF | wc -l",
            "echo $((1 +",
            "cat <<EOF > x && cat x",
        ] {
            assert!(!is_whole(text, Dialect::Posix), "{text:?}");
        }
    }

    #[test]
    fn what_is_whole_or_wrong_is_sent() {
        for text in [
            "",
            "  ",
            "ls",
            "ls # it's",
            "# a comment \\",
            "echo 'a\nb'",
            "echo \\\\",
            "echo a\\ b",
            "ls &",
            "sleep 1 & sleep 2",
            "if true; then echo; fi",
            "for x in 1 2; do echo $x; done",
            "case x in x) echo;; esac",
            "cat <<EOF\na\nEOF",
            "cat <<EOF\n$(x\nEOF",
            "cat <<-EOF\n\ta\n\tEOF",
            "cat <<'EOF'\nit's\nEOF",
            "cat <<< 'x'",
            "{ ls; }",
            "f() { ls; }",
            "[[ a == b ]]",
            "echo $((1 + 2))",
            "ls )",
            "fi",
            "done",
            "x=(a b)",
            "echo a;b",
            "! true",
            "time ls",
            "echo é 文字",
            "diff <(ls) <(ls -a)",
            "echo !!",
        ] {
            assert!(is_whole(text, Dialect::Posix), "{text:?}");
        }
    }

    #[test]
    fn a_command_for_the_background_is_told_from_others() {
        for (text, command) in [
            ("sleep 5 &", Some("sleep 5")),
            (" make -j && make test& ", Some("make -j && make test")),
            ("ls | wc &", Some("ls | wc")),
            ("sleep 5", None),
            ("sleep 5 & sleep 6 &", None),
            ("a & b", None),
            ("a &&", None),
            ("echo a \\&", None),
            ("echo 'a &", None),
            ("# a &", None),
            ("cat <<E &\nx\nE", None),
        ] {
            assert_eq!(for_background(text, Dialect::Posix), command, "{text:?}");
        }
        assert_eq!(for_background("sleep 5 &", Dialect::Other), None);
    }

    #[test]
    fn another_grammar_is_left_to_its_shell() {
        assert!(is_whole("if true; echo; end", Dialect::Other));
        assert!(!is_whole("echo 'a", Dialect::Other));
        assert!(is_whole("echo 'it''s' \\'", Dialect::Other));
        assert!(!is_whole("for x in a b; do", Dialect::Zsh));
        assert!(is_whole("for x in a b; do\n\n", Dialect::Zsh));
        assert_eq!(Dialect::of(b"/usr/bin/zsh"), Dialect::Zsh);
        assert_eq!(Dialect::of(b"/bin/bash"), Dialect::Posix);
        assert_eq!(Dialect::of(b"/usr/bin/fish"), Dialect::Fish);
        assert_eq!(Dialect::of(b"/usr/bin/nu"), Dialect::Other);
    }

    #[test]
    fn blocks_of_fish_end_by_one_word() {
        for text in [
            "if true",
            "if test -e x; echo",
            "for x in a b\necho $x",
            "begin; if true; end",
            "echo 'a",
            "ls |",
            "function f",
        ] {
            assert!(!is_whole(text, Dialect::Fish), "{text:?}");
        }
        for text in [
            "echo if",
            "if true; echo; end",
            "for x in a b\necho $x\nend",
            "begin; if true; end; end",
            "echo for while",
            "grep end f",
        ] {
            assert!(is_whole(text, Dialect::Fish), "{text:?}");
        }
    }

    #[test]
    fn what_is_deep_or_long_takes_no_time_and_no_stack() {
        let units = [
            "(",
            "$(",
            "( ",
            "((",
            "{ ",
            "if x; then ",
            "while ",
            "case x in x) ",
            "case x in (x) ",
            "time ",
            "f() { ",
            "`",
            "a ",
        ];
        for text in units.iter().flat_map(|unit| [1, 9, 10, 39, 40, 200, 100_000].map(|n| unit.repeat(n))) {
            let start = std::time::Instant::now();
            let _ = is_whole(&text, Dialect::Posix);
            assert!(start.elapsed() < std::time::Duration::from_secs(2), "{:?}", text.get(..20));
        }
    }
}
