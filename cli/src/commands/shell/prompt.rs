//! What stands before a line: the last status, who, where. Nothing of the host's reaches the terminal unescaped.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

use reedline::{Color, Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus};

use crate::printable::escape;

/// What stands before each further line of a command.
pub(super) const CONTINUED: &str = "> ";

/// Colours, where they are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    /// As the environment says: `NO_COLOR` (no-color.org), `TERM`, and whether there is a terminal.
    pub(super) fn of_environment() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Style { colour: !set("NO_COLOR") && !dumb && std::io::stderr().is_terminal() }
    }

    pub(super) fn is_coloured(self) -> bool {
        self.colour
    }

    pub(super) fn red(self, text: &str) -> String {
        self.painted("31", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.painted("2", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A prompt, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    text: String,
    colour: bool,
}

impl Shown {
    /// One that is always the same.
    pub(super) fn fixed(text: &str) -> Self {
        Shown { text: text.to_owned(), colour: false }
    }

    /// `[status ]user@host:dir$ `.
    pub(super) fn of(
        status: u8,
        user: &str,
        host: &str,
        directory: &[u8],
        home: &[u8],
        style: Style,
    ) -> Self {
        let status = match status {
            0 => String::new(),
            status => style.red(&status.to_string()) + " ",
        };
        let sign = if user == "root" { '#' } else { '$' };
        let (user, host, place) = (escape(user), escape(host), place(directory, home));
        Shown { text: format!("{status}{user}@{host}:{place}{sign} "), colour: style.colour }
    }

    /// As it is shown.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// A directory, short where it is in the home directory.
fn place(directory: &[u8], home: &[u8]) -> String {
    let within = Some(home).filter(|home| home.len() > 1).and_then(|home| directory.strip_prefix(home));
    match within {
        Some([]) => "~".to_owned(),
        Some(rest @ [b'/', ..]) => format!("~{}", escape(&String::from_utf8_lossy(rest))),
        _ => escape(&String::from_utf8_lossy(directory)),
    }
}

/// How long a command took, for a person.
pub(super) fn took(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("took {:.1} s", time.as_secs_f64()),
        (0, m, s) => format!("took {m} min {s} s"),
        (h, m, _) => format!("took {h} h {m} min"),
    }
}

impl Prompt for Shown {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.text)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed(CONTINUED)
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "failing ",
        };
        Cow::Owned(format!("({failing}reverse-i-search)`{}': ", escape(&search.term)))
    }

    fn get_prompt_color(&self) -> Color {
        Color::Default
    }

    fn get_prompt_multiline_color(&self) -> Color {
        Color::Default
    }

    fn get_indicator_color(&self) -> Color {
        Color::Default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_tells_status_user_host_and_place() {
        let plain = Style { colour: false };
        let text = |status, user, place: &[u8], home: &[u8], style| {
            Shown::of(status, user, "web1", place, home, style).text
        };
        assert_eq!(text(0, "ada", b"/home/ada", b"/home/ada", plain), "ada@web1:~$ ");
        assert_eq!(text(0, "ada", b"/home/ada/x", b"/home/ada", plain), "ada@web1:~/x$ ");
        assert_eq!(text(0, "ada", b"/home/adam", b"/home/ada", plain), "ada@web1:/home/adam$ ");
        assert_eq!(text(3, "root", b"/", b"/", plain), "3 root@web1:/# ");
        assert_eq!(text(0, "root", b"/srv", b"/", plain), "root@web1:/srv# ");
        let colour = Style { colour: true };
        assert_eq!(text(3, "ada", b"/", b"/home/ada", colour), "\x1b[31m3\x1b[0m ada@web1:/$ ");
    }

    #[test]
    fn nothing_of_the_hosts_controls_the_terminal() {
        let shown = Shown::of(
            0,
            "a\u{1b}[1m",
            "h\u{9b}2J",
            b"/home/ada/\x1b]0;x\x07\n\xff",
            b"/home/ada",
            Style { colour: false },
        );
        assert!(!shown.text.chars().any(char::is_control), "{:?}", shown.text);
    }

    #[test]
    fn times_are_short() {
        for (seconds, text) in [(3.24, "took 3.2 s"), (61.0, "took 1 min 1 s"), (7260.0, "took 2 h 1 min")] {
            assert_eq!(took(Duration::from_secs_f64(seconds)), text);
        }
    }
}
