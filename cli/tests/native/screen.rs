//! A real terminal with somebody in front of it: tmux, its send-keys and its capture-pane.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use remora_testkit::eventually;
use tempfile::TempDir;

use crate::bench::Home;

/// Far above anything that happens; a test that reaches it shows what it saw instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// What stands before a line of the shell that a person starts things from.
pub(crate) const LOCAL: &str = "local$ ";

/// A terminal of 80 columns with a shell of this machine in it.
pub(crate) struct Screen {
    folder: TempDir,
    path: std::ffi::OsString,
}

impl Screen {
    /// Opens one. Its shell knows nothing of the tests' own environment but `PATH`, and has this home.
    pub(crate) fn open(home: &Home, rows: u32) -> Self {
        // A socket's path is short (unix(7)), which a build folder's may not be.
        let screen = Screen { folder: tempfile::tempdir().unwrap(), path: std::env::var_os("PATH").unwrap() };
        let shell = format!(
            "exec env -i HOME={} PATH='{}' TERM=tmux-256color LANG=C.UTF-8 PS1='{LOCAL}' bash --norc --noprofile --noediting",
            home.path("").display(),
            screen.path.to_str().unwrap(),
        );
        let rows = rows.to_string();
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", &rows, &shell]);
        screen.shows(LOCAL.trim_end());
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let socket = self.folder.path().join("tmux");
        let mut command = Command::new("tmux");
        command.env_clear().env("PATH", &self.path).env("LANG", "C.UTF-8").arg("-S").arg(socket);
        let done = command.args(arguments).stdin(Stdio::null()).output().expect("tmux is needed");
        assert!(done.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        done
    }

    /// Presses keys, by tmux's names for them.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a text as it is.
    pub(crate) fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Types a line.
    pub(crate) fn enter(&self, line: &str) {
        self.type_text(line);
        self.press(&["Enter"]);
    }

    pub(crate) fn resize(&self, columns: u32, rows: u32) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// What it shows, each line between two line ends, without what is empty before and behind.
    pub(crate) fn text(&self) -> String {
        let done = self.tmux(&["capture-pane", "-p", "-J"]);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        format!("\n{}\n", lines.join("\n").trim())
    }

    /// What it shows, in colours.
    pub(crate) fn coloured(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p", "-e"]).stdout).into_owned()
    }

    /// Whether the alternate screen, the cursor, its keys' mode, the keypad's and the mouse's are on, a digit each.
    pub(crate) fn modes(&self) -> String {
        let flags = "#{alternate_on}#{cursor_flag}#{keypad_cursor_flag}#{keypad_flag}#{mouse_any_flag}#{mouse_sgr_flag}";
        let done = self.tmux(&["display-message", "-p", flags]);
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut seen = String::new();
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            seen.clone_from(&self.text());
            if condition(&seen) {
                return seen;
            }
            assert!(std::time::Instant::now() < end, "not shown: {what}\n{seen}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it shows this.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) -> String {
        self.until(text, |seen| seen.contains(text))
    }

    /// Waits until its last line ends with this.
    #[track_caller]
    pub(crate) fn ends_with(&self, line: &str) -> String {
        self.until(line, |seen| seen.trim_end().ends_with(line.trim_end()))
    }

    /// Waits until it shows this and nothing else: for what follows a `clear`. Before that a prompt stands there as well, and
    /// what is typed then is typed into the command.
    #[track_caller]
    pub(crate) fn shows_only(&self, text: &str) -> String {
        self.until(text, |seen| seen.trim() == text)
    }

    /// The process in front.
    pub(crate) fn pid_of(&self, name: &str) -> i32 {
        let pane = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = String::from_utf8_lossy(&pane.stdout).trim().to_owned();
        let mut found = None;
        eventually(PATIENCE, &format!("{name} runs"), || {
            let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
            found = children.unwrap_or_default().split_whitespace().find_map(|pid| {
                let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                (comm.trim() == name).then(|| pid.parse().ok())?
            });
            found.is_some()
        });
        found.unwrap()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let socket = self.folder.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}
