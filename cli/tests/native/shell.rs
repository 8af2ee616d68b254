//! `remora shell`, on a real terminal: what a person sees, compared with the same keys typed into a shell of this machine. Its 800 lines are one person's day, and share one way to drive the terminal (screen.rs).

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use remora_testkit::eventually;

use crate::bench::{Home, REMORA, Server, own_name, run, run_with, signal};
use crate::screen::{LOCAL, PATIENCE, Screen};

/// A host, and somebody at a prompt of theirs there.
struct At {
    home: Home,
    server: Server,
    screen: Screen,
}

impl At {
    fn shell(options: &str) -> Self {
        let home = Home::with_key();
        let server = Server::start(&home);
        let screen = Screen::open(&home, 40);
        let at = At { home, server, screen };
        at.start(options);
        at
    }

    /// Starts a shell, and waits for its prompt.
    #[track_caller]
    fn start(&self, options: &str) {
        self.screen
            .enter(&format!("clear; {REMORA} shell {options} {}; echo left with $?", self.server.target()));
        self.screen.ends_with(&prompt("~"));
    }
}

/// The prompt in a directory.
fn prompt(place: &str) -> String {
    let user = own_name();
    let sign = if user == "root" { '#' } else { '$' };
    format!("{user}@127.0.0.1:{place}{sign}")
}

#[test]
fn the_same_keys_show_the_same_as_in_a_local_shell() {
    let at = At::shell("");
    let local = Screen::open(&at.home, 40);
    let user = own_name();
    let sign = if user == "root" { '#' } else { '$' };
    local.enter(&format!(
        "export HOME=~{user} PS1='$(s=$?; [ $s = 0 ] || echo \"$s \"){user}@127.0.0.1:\\w{sign} '; cd; exec bash --norc --noprofile"
    ));
    local.shows(&prompt("~"));
    for screen in [&at.screen, &local] {
        screen.enter("clear");
        screen.shows_only(&prompt("~"));
    }
    let steps: &[&[&str]] = &[
        &["echo hello", "Enter"],
        &["cd /usr", "Enter"],
        &["pwd; pwd", "Enter"],
        &["cd -", "Enter"],
        &["false", "Enter"],
        &["ls /no/such/file", "Enter"],
        &["(exit 9)", "Enter"],
        &["true", "Enter"],
        // Line editing.
        &["eco hello", "C-a", "Right", "Right", "h", "C-e", " you", "Enter"],
        &["echo one two three", "C-w", "C-w", "2", "Enter"],
        &["rm -rf /", "C-u", "echo kept", "Enter"],
        &["echo a b", "Left", "Left", "BSpace", "x", "Enter"],
        &["Up", "C-e", "!", "BSpace", "?", "Enter"],
        // Over several lines.
        &["echo 'one", "Enter", "two'", "Enter"],
        &["cat <<E", "Enter", "$((1+2))", "Enter", "E", "Enter"],
        &["for x in 1 2; do", "Enter", "echo $x", "Enter", "done", "Enter"],
        &["echo a &&", "Enter", "echo b", "Enter"],
        // What stays.
        &["export GREETING=hi; x=5", "Enter"],
        &["echo $GREETING", "Enter"],
        &["alias greet='echo greeting'", "Enter"],
        &["greet", "Enter"],
        &["f() { echo in f; return 3; }", "Enter"],
        &["f", "Enter"],
        &["cd /tmp; umask 027", "Enter"],
        &["umask", "Enter"],
        // Signals.
        &["echo begun; sleep 100", "Enter", "shows begun", "C-c"],
        &["printf no-end-of-line; echo", "Enter"],
        // It says that it runs: what is typed while bash still holds the terminal in raw mode is not echoed.
        &["echo begun; cat", "Enter", "shows begun", "typed", "Enter", "shows typed\ntyped", "C-d"],
    ];
    for keys in steps {
        for screen in [&at.screen, &local] {
            for key in *keys {
                match key.strip_prefix("shows ") {
                    Some(text) => drop(screen.ends_with(&format!("\n{text}"))),
                    None => screen.press(&[key]),
                }
            }
        }
        let mut seen = (String::new(), String::new());
        let end = Instant::now() + PATIENCE;
        loop {
            let again = (at.screen.text(), local.text());
            let done = again.0 == again.1 && again == seen && again.0.trim_end().ends_with(sign);
            if done {
                break;
            }
            assert!(Instant::now() < end, "{keys:?}\n--- remora\n{}\n--- local\n{}", again.0, again.1);
            seen = again;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    at.screen.press(&["C-d"]);
    at.screen.shows("left with 0");
}

#[test]
fn a_password_a_program_and_a_full_screen() {
    let at = At::shell("");
    let screen = &at.screen;
    screen.enter("read -rs -p 'Password: ' x </dev/tty; echo; echo \"it was $x\"");
    screen.ends_with("Password:");
    screen.enter("hunter2");
    let seen = screen.shows("it was hunter2");
    assert_eq!(seen.matches("hunter2").count(), 1, "{seen}");
    screen.enter("python3 -q");
    screen.ends_with(">>>");
    screen.enter("6*7");
    screen.shows("\n42\n");
    screen.press(&["C-d"]);
    screen.ends_with(&prompt("~"));
    let file = at.home.path("text");
    screen.enter(&format!("vim.tiny -u NONE {}", file.display()));
    screen.shows("[New File]");
    screen.type_text("ione two");
    screen.press(&["Escape"]);
    screen.enter(":wq");
    screen.ends_with(&prompt("~"));
    assert_eq!(at.home.text("text"), "one two\n");
    screen.enter("seq 1000 | less");
    screen.ends_with(":");
    screen.type_text("G");
    screen.shows("\n1000\n(END)");
    screen.type_text("q");
    screen.ends_with(&prompt("~"));
    screen.enter("top");
    screen.shows("PID");
    screen.type_text("q");
    screen.ends_with(&prompt("~"));
    screen.enter("sudo -k -p 'sudo asks: ' -u nobody id -un || true");
    // As root it asks for nothing.
    if own_name() == "root" {
        screen.shows("\nnobody\n");
    } else {
        screen.shows("sudo asks:");
        screen.press(&["C-c"]);
    }
    screen.ends_with(&prompt("~"));
}

#[test]
fn the_window_is_followed_at_the_prompt_and_in_a_command() {
    let at = At::shell("");
    at.screen.enter("stty size");
    at.screen.shows("\n40 80\n");
    at.screen.resize(100, 30);
    at.screen.enter("stty size");
    at.screen.shows("\n30 100\n");
    at.screen.enter("on=1; trap 'stty size; on=' WINCH; echo ready; while [ $on ]; do sleep 0.05; done");
    at.screen.shows("\nready\n");
    at.screen.resize(90, 35);
    at.screen.shows("\n35 90\n");
    at.screen.ends_with(&prompt("~"));
}

#[test]
fn what_was_typed_is_found_again_unless_it_began_with_a_space() {
    let at = At::shell("");
    let screen = &at.screen;
    screen.enter("echo first");
    screen.shows("\nfirst\n");
    screen.enter(" echo secret");
    screen.shows("\nsecret\n");
    screen.press(&["Up"]);
    screen.ends_with(&format!("{} echo first", prompt("~")));
    screen.press(&["C-u", "C-d"]);
    screen.shows("left with 0");
    at.start("");
    screen.press(&["Up"]);
    screen.ends_with(&format!("{} echo first", prompt("~")));
    screen.press(&["C-u", "C-r"]);
    screen.type_text("fir");
    screen.shows("echo first");
    screen.press(&["Enter", "Enter"]);
    screen.shows("\nfirst\n");
    screen.enter("history");
    let seen = screen.shows("1  echo first");
    assert!(!seen.contains("secret"), "{seen}");
    let folder = at.home.path(".local/state/remora/history");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files[0]), mode(&folder)), (0o600, 0o700));
    assert!(!std::fs::read_to_string(&files[0]).unwrap().contains("secret"));
    screen.enter("clear");
    screen.enter("echo '<\\n>'");
    screen.shows("\n<\\n>\n");
    screen.enter("history 2");
    let seen = screen.shows("echo '<\\n>'\n    5  history 2");
    assert!(!seen.contains("first"), "{seen}");
    screen.enter("history | tail -3");
    screen.shows("history: it is kept here, not on the host");
    screen.ends_with(&format!("\n1 {}", prompt("~")));
    screen.press(&["C-d"]);
    screen.shows("left with 1");
    at.start("");
    screen.press(&["Up", "Up", "Up"]);
    screen.ends_with(&format!("{} echo '<\\n>'", prompt("~")));
    screen.press(&["C-u"]);
    screen.enter("history -c");
    screen.ends_with(&prompt("~"));
    screen.press(&["C-d"]);
    screen.shows("left with 0");
    assert_eq!((std::fs::read_to_string(&files[0]).unwrap().as_str(), mode(&files[0])), ("", 0o600));
}

#[test]
fn tab_completes_what_the_host_has() {
    let at = At::shell("");
    let screen = &at.screen;
    let folder = at.home.path("tab");
    std::fs::create_dir_all(folder.join("only one")).unwrap();
    for name in ["it's", "two-1", "two-2"] {
        std::fs::write(folder.join(name), "text\n").unwrap();
    }
    screen.enter(&format!("cd {}; clear", folder.display()));
    screen.ends_with(&prompt(&folder.display().to_string()));
    screen.type_text("cd on");
    screen.press(&["Tab"]);
    screen.shows("cd only\\ one/");
    screen.press(&["C-u"]);
    screen.type_text("cat i");
    screen.press(&["Tab"]);
    screen.shows("cat it\\'s");
    screen.press(&["Enter"]);
    screen.shows("\ntext\n");
    screen.ends_with(&prompt(&folder.display().to_string()));
    screen.type_text("cat 't");
    screen.press(&["Tab"]);
    let seen = screen.shows("cat 'two-");
    assert!(seen.contains("two-1") && seen.contains("two-2"), "{seen}");
    screen.press(&["C-c"]);
    screen.type_text("echo $HOM");
    screen.press(&["Tab"]);
    screen.shows("echo $HOME");
    screen.press(&["C-u"]);
    screen.type_text("printenv HOM");
    screen.press(&["Tab"]);
    screen.shows("printenv HOME");
    screen.press(&["C-u"]);
    // What nothing goes on from is left as it is, with nothing said; a second Tab is no other key.
    screen.enter("clear");
    screen.shows_only(&prompt(&folder.display().to_string()));
    screen.type_text("cat nothing-like-it");
    screen.press(&["Tab", "Tab", "x"]);
    let seen = screen.ends_with("cat nothing-like-itx");
    assert_eq!(seen.trim().lines().count(), 1, "{seen}");
    screen.press(&["BSpace", "Enter"]);
    screen.shows("cat: nothing-like-it: No such file");
}

#[test]
fn what_is_typed_ahead_is_for_who_reads_it() {
    let at = At::shell("");
    let screen = &at.screen;
    screen.enter("clear; echo waits; sleep 1; echo done");
    screen.shows("\nwaits\n");
    // All of it while the first one sleeps: the next command reads what is behind it, and the rest is at the prompt.
    screen.enter("cat; echo after");
    screen.enter("for cat");
    screen.press(&["C-d"]);
    screen.enter("cat <<E");
    screen.enter("here");
    screen.enter("E");
    screen.type_text("echo not yet");
    let seen = screen.ends_with(&format!("{} echo not yet", prompt("~")));
    // A terminal shows what is typed when it comes: how often, depends on when the commands read it.
    let prompt = prompt("~");
    let (first, rest) = seen.split_once(&format!("{prompt} cat; echo after\n")).expect(&seen);
    let (second, third) = rest.split_once(&format!("{prompt} cat <<E\nhere\nE\n")).expect(&seen);
    assert!(first.trim_end().ends_with("done"), "{seen}");
    assert!(second.trim_end().ends_with("for cat\nafter"), "{seen}");
    assert_eq!(third.trim_end(), format!("here\n{prompt} echo not yet"), "{seen}");
    screen.press(&["Enter"]);
    screen.shows("\nnot yet\n");
    screen.enter("echo begun; sleep 0.5");
    screen.shows("\nbegun\n");
    screen.press(&["C-d"]);
    screen.shows("left with 0");
}

#[test]
fn lines_typed_as_fast_as_can_be_run_once_each_and_in_order() {
    let at = At::shell("");
    let file = at.home.path("lines");
    let lines: Vec<String> =
        (1..=60).map(|number| format!("echo line {number} >> {}", file.display())).collect();
    let keys: Vec<&str> = lines.iter().flat_map(|line| [line.as_str(), "Enter"]).collect();
    for keys in keys.chunks(20) {
        at.screen.press(keys);
    }
    let wanted: String = (1..=60).map(|number| format!("line {number}\n")).collect();
    let mut seen = String::new();
    let deadline = Instant::now() + PATIENCE;
    while seen.lines().count() < 60 && Instant::now() < deadline {
        seen = at.home.text("lines");
    }
    assert_eq!(seen, wanted);
    at.screen.ends_with(&prompt("~"));
    assert_eq!(at.home.text("lines"), wanted);
}

#[test]
fn jobs_are_stopped_and_go_on() {
    let at = At::shell("");
    let screen = &at.screen;
    screen.enter("fg");
    screen.shows("fg: no current job");
    // What is typed at once behind a Ctrl-Z is for the prompt.
    screen.enter("echo begun; sleep 1000");
    screen.shows("\nbegun\n");
    screen.press(&[
        "C-z", "k", "i", "l", "l", "Space", "%", "x", "C-u", "e", "c", "h", "o", "Space", "q", "Enter",
    ]);
    screen.shows("\nq\n");
    screen.enter("fg");
    screen.ends_with("sleep 1000");
    screen.press(&["C-c"]);
    screen.enter("clear");
    screen.enter("sleep 1000");
    at.server.wait_for_log("job started");
    screen.ends_with(&format!("{} sleep 1000", prompt("~")));
    screen.press(&["C-z"]);
    screen.shows("[1]+  Stopped                 sleep 1000");
    screen.ends_with(&format!("148 {}", prompt("~")));
    screen.enter("jobs");
    screen.enter("bg");
    screen.shows("[1]+ sleep 1000 &");
    screen.enter("jobs");
    screen.shows("[1]+  Running                 sleep 1000 &");
    screen.enter("fg %1");
    screen.ends_with("sleep 1000");
    screen.press(&["C-c"]);
    screen.ends_with(&format!("130 {}", prompt("~")));
    screen.enter("clear");
    let file = at.home.path("text");
    screen.enter(&format!("vim.tiny -u NONE {}", file.display()));
    screen.shows("[New File]");
    screen.type_text("ione");
    screen.press(&["Escape", "C-z"]);
    screen.shows("[1]+  Stopped                 vim.tiny");
    screen.enter("echo between; fg");
    screen.enter("fg");
    screen.shows("\none\n~");
    screen.enter(":wq");
    screen.shows("between");
    assert_eq!(at.home.text("text"), "one\n");
    screen.enter("clear");
    screen.enter("while sleep 0.2; do echo tick; done");
    screen.shows("\ntick\n");
    screen.press(&["C-z"]);
    screen.shows("Stopped");
    screen.enter("bg");
    screen.type_text("echo typing");
    screen.shows("tick\ntick\ntick\n");
    screen.ends_with(&format!("{} echo typing", prompt("~")));
    screen.press(&["C-c", "C-d"]);
    screen.shows("there are running jobs");
    screen.press(&["C-d"]);
    screen.shows("left with");
}

#[test]
fn what_is_started_in_the_background_stays_there() {
    let at = At::shell("");
    let screen = &at.screen;
    let file = at.home.path("go");
    screen.enter(&format!("(until test -e {}; do sleep 0.05; done; cd /; echo went) &", file.display()));
    screen.shows("[1] (until");
    screen.enter("jobs");
    screen.shows("[1]+  Running                 (until");
    screen.type_text("echo ty");
    std::fs::write(&file, "").unwrap();
    screen.shows("\nwent\n");
    screen.type_text("ped");
    screen.ends_with(&format!("{} echo typed", prompt("~")));
    screen.press(&["Enter"]);
    screen.shows("[1]+  Done                    (until");
    screen.ends_with(&prompt("~"));
}

#[test]
fn the_terminal_is_restored_whatever_happens() {
    let mut at = At::shell("");
    at.screen.press(&["C-d"]);
    at.screen.shows("left with 0");
    let modes = |screen: &Screen| {
        screen.enter("clear; stty -a; echo shown");
        screen.shows("\nshown\n");
        screen.text()
    };
    let before = modes(&at.screen);
    for line in ["", "sleep 1000"] {
        at.start("");
        at.screen.type_text(line);
        if !line.is_empty() {
            at.screen.press(&["Enter"]);
        }
        at.screen.ends_with(&format!("{} {line}", prompt("~")));
        signal(at.screen.pid_of("remora"), "TERM");
        let seen = at.screen.shows("left with 143");
        assert!(seen.contains("left on SIGTERM"), "{seen}");
        assert_eq!(modes(&at.screen), before);
    }
    for line in ["", "sleep 1000"] {
        at.start("--no-reconnect");
        at.screen.type_text(line);
        if !line.is_empty() {
            at.screen.press(&["Enter"]);
        }
        at.screen.ends_with(&format!("{} {line}", prompt("~")));
        at.server.kill();
        let seen = at.screen.shows("left with 198");
        assert_eq!(seen.matches("remora: 127.0.0.1").count(), 1, "{seen}");
        assert!(seen.contains("lost: the connection was lost"), "{seen}");
        assert_eq!(modes(&at.screen), before);
        at.server = Server::start(&at.home);
    }
}

/// What [`Screen::modes`] says of a terminal that nobody has asked for anything.
const PLAIN_MODES: &str = "010000";
/// What a full-screen program asks for, and how the terminal is then.
const FULL_SCREEN: &str = r"printf '\033[?1049h\033[?1h\033=\033[?1000;1006h\033[?25lfull%s' -screen";
const FULL_SCREEN_MODES: &str = "101111";

#[test]
fn what_a_program_asked_of_the_terminal_is_taken_back_when_it_cannot() {
    let mut at = At::shell("");
    at.screen.press(&["C-d"]);
    at.screen.shows("left with 0");
    assert_eq!(at.screen.modes(), PLAIN_MODES);
    let begin = |at: &At, verb: &str, then: &str| {
        let target = at.server.target();
        let line = format!("{FULL_SCREEN}; {then}");
        if verb == "shell" {
            at.start("--no-reconnect");
            at.screen.enter(&line);
        } else {
            let file = at.home.path("line");
            std::fs::write(&file, line).unwrap();
            let words = format!("{REMORA} {verb} {target} \"$(cat {})\"", file.display());
            at.screen.enter(&format!("clear; {words}; echo left with $?"));
        }
        at.screen.shows("full-screen");
        at.screen.modes()
    };
    for verb in ["shell", "exec -t --no-reconnect"] {
        assert_eq!(begin(&at, verb, "sleep 1000"), FULL_SCREEN_MODES);
        at.server.kill();
        let seen = at.screen.shows("left with 198");
        assert!(seen.contains("lost: the connection was lost"), "{seen}");
        assert_eq!(at.screen.modes(), PLAIN_MODES, "{verb}, the server killed");
        at.server = Server::start(&at.home);
    }
    assert_eq!(begin(&at, "shell", "sleep 1000"), FULL_SCREEN_MODES);
    signal(at.screen.pid_of("remora"), "TERM");
    at.screen.shows("left with 143");
    assert_eq!(at.screen.modes(), PLAIN_MODES, "the client told to end");
    assert_eq!(begin(&at, "exec -t", "sleep 1000"), FULL_SCREEN_MODES);
    at.screen.press(&["Enter", "~", "."]);
    at.screen.shows("left with 198");
    assert_eq!(at.screen.modes(), PLAIN_MODES, "left by an escape");
    begin(&at, "exec -t", "read x </dev/tty; kill -9 $$");
    at.screen.press(&["Enter"]);
    at.screen.shows("left with 137");
    assert_eq!(at.screen.modes(), PLAIN_MODES, "exec's program killed");
    begin(&at, "shell", "read x </dev/tty; kill -9 $$");
    at.screen.press(&["Enter"]);
    at.screen.ends_with(&format!("137 {}", prompt("~")));
    assert_eq!(at.screen.modes(), PLAIN_MODES, "the shell's program killed");
    // What ends as it wants to has left the terminal as it wants it.
    at.screen.enter("tput smcup; echo kept");
    at.screen.shows("\nkept\n");
    at.screen.ends_with(&prompt("~"));
    assert_eq!(&at.screen.modes()[..1], "1");
    at.screen.press(&["C-d"]);
    at.screen.shows("left with 0");
    assert_eq!(&at.screen.modes()[..1], "1");
}

#[test]
fn nothing_is_left_when_the_terminal_goes_without_a_word() {
    for target in ["native", "header"] {
        let home = Home::with_key();
        let mut command = Server::command(&home, &["host_key"]);
        home.make_key("host_key", "ed25519", "");
        command.args(["--listen", "native://127.0.0.1:0", "--listen", "header://127.0.0.1:0"]);
        command.arg("--allow-plaintext-root");
        let server = Server::spawn(&home, command);
        home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
        let url = server.listening().into_iter().find(|url| url.starts_with(target)).unwrap();
        let screen = Screen::open(&home, 20);
        let pid = home.path("pid");
        // In a session of its own it gets no SIGHUP, as under su.
        screen.enter(&format!(
            "clear; setsid -w sh -c 'echo $$ > {}; exec {REMORA} shell {url}'",
            pid.display()
        ));
        screen.shows(if target == "native" { "127.0.0.1:~" } else { ">>>:" });
        let process = format!("/proc/{}", home.text("pid").trim());
        assert!(std::path::Path::new(&process).exists());
        drop(screen);
        eventually(PATIENCE, "it ends", || {
            let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}

#[test]
fn typing_does_not_wait_for_a_host_that_is_stuck() {
    let at = At::shell("");
    let screen = &at.screen;
    signal(at.server.front(), "STOP");
    let start = Instant::now();
    screen.type_text("echo one");
    screen.press(&["C-a", "C-k"]);
    screen.type_text("ls /us");
    screen.press(&["Tab"]);
    screen.type_text("rx");
    screen.ends_with(&format!("{} ls /usrx", prompt("~")));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    screen.press(&["BSpace", "Enter"]);
    screen.enter("x");
    // A person looks on for a while, and has enough.
    eventually(PATIENCE, "one can leave", || {
        screen.press(&["Enter"]);
        screen.type_text("~.");
        screen.text().contains("you left by ~.")
    });
    screen.shows("left with 198");
    signal(at.server.front(), "CONT");
}

#[test]
fn without_a_terminal_for_the_commands_errors_are_tinted() {
    let at = At::shell("--no-pty");
    let screen = &at.screen;
    screen.enter("test -t 1 || echo none; cat; echo err >&2");
    screen.shows("\nnone\nerr\n");
    assert!(screen.coloured().contains("\x1b[31merr"), "{:?}", screen.coloured());
    screen.enter("echo begun; sleep 1000");
    screen.shows("\nbegun\n");
    screen.press(&["C-c"]);
    screen.ends_with(&format!("130 {}", prompt("~")));
    screen.enter("exit 4");
    screen.shows("left with 4");
}

#[test]
fn a_recording_is_what_was_shown() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let screen = Screen::open(&home, 40);
    let at = At { home, server, screen };
    let cast = at.home.path("cast");
    at.start(&format!("--record {}", cast.display()));
    at.screen.enter("echo naïve; cat <<E");
    at.screen.enter("文");
    at.screen.enter("E");
    at.screen.shows("\n文\n");
    at.screen.ends_with(&prompt("~"));
    at.screen.enter("exit 3");
    at.screen.shows("left with 3");
    let text = at.home.text("cast");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]),
        (&2.into(), &80.into(), &40.into())
    );
    let shown: String = lines[1..].iter().map(|line| line[2].as_str().unwrap()).collect();
    let prompt = prompt("~");
    assert_eq!(
        shown,
        format!("{prompt} echo naïve; cat <<E\r\n> 文\r\n> E\r\nnaïve\r\n文\r\n{prompt} exit 3\r\n")
    );
    at.screen.enter(&format!("clear; {REMORA} shell --record {} {}", cast.display(), at.server.target()));
    at.screen.shows("cast exists already");
}

#[test]
fn lines_from_a_pipe_run_one_after_the_other() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    let shell = |options: &[&str], input: &[u8]| {
        let mut command = home.remora();
        command.arg("shell").args(options).arg(&target);
        run_with(command, input)
    };
    let script = b"cd /usr\nexport A=1\nif true\nthen pwd\nfi\ncat; echo err >&2\n\n# nothing\nfalse\ncat <<E\n$A\nE\n(exit 5)";
    let done = shell(&[], script).ended(5);
    assert_eq!((done.out().as_str(), done.err().as_str()), ("/usr\n1\n", "err\n"));
    let done = shell(&["--exit-on-error"], script).ended(1);
    assert_eq!(done.out(), "/usr\n");
    assert_eq!(shell(&[], b"echo a\nexit 7\necho b\n").ended(7).out(), "a\n");
    assert_eq!(shell(&[], b"printf '\xff'; printf no-newline").ended(0).stdout, b"\xffno-newline");
    shell(&[], b"").ended(0);
    shell(&[], b"echo a\n\0\n").complained(
        193,
        "remora: usage: line 2 of standard input holds a NUL byte",
        "",
    );
    assert!(!shell(&[], b"echo 'a").ended(2).err().is_empty());
    // As exec tells it, and not within the output.
    let done = shell(&[], b"echo a; kill -9 $$\necho b\n").ended(0);
    assert_eq!(done.out(), "a\nb\n");
    let err = done.err();
    assert!(err.starts_with("remora: 127.0.0.1"), "{err}");
    assert!(
        err.ends_with(": signaled: the command was killed by SIGKILL\n") && err.lines().count() == 1,
        "{err}"
    );
    // Nothing is left of sessions that nobody can name.
    let mut sessions = home.remora();
    sessions.args(["sessions", "--json", &target]);
    let done = run(sessions).ended(0);
    let list: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(list["sessions"], serde_json::json!([]), "but for the one that NUL ended");
}

#[test]
fn a_named_session_is_shared_with_exec_and_kept() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    let mut shell = home.remora();
    shell.args(["shell", "--session", "build", &target]);
    run_with(shell, b"cd /usr\nexport A=1\n").ended(0);
    let done = run(home.exec(["--session", "build", &target, "pwd; echo $A"])).ended(0);
    assert_eq!(done.out(), "/usr\n1\n");
    let done =
        run(home.exec(["-v", "--session", "build", "-C", "lib", "-e", "A=2", &target, "pwd; echo $A"]))
            .ended(0);
    assert_eq!(done.out(), "/usr/lib\n2\n");
    let done = run(home.exec(["-v", "--session", "build", &target, "cd bin"])).ended(0);
    assert!(
        done.err().contains("session build: carried out by the host, no process; in /usr/bin"),
        "{}",
        done.err()
    );
    let done = run(home.exec(["--json", "--session", "build", &target, "echo $A"])).ended(0);
    let receipt: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&receipt["session"]["name"], &receipt["stdout"]["text"]), (&"build".into(), &"1\n".into()));
    let sessions = |options: &[&str]| {
        let mut command = home.remora();
        command.arg("sessions").args(options).arg(&target);
        run(command)
    };
    let list = sessions(&[]).ended(0).out();
    let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], row[2]), ("build", "/usr/bin", "0"));
    // What it tells of one names it: by name, and by id.
    let list: serde_json::Value = serde_json::from_slice(&sessions(&["--json"]).ended(0).stdout).unwrap();
    let id = list["sessions"][0]["id"].as_str().unwrap();
    assert_eq!(run(home.exec(["--session", id, &target, "pwd"])).ended(0).out(), "/usr/bin\n");
    sessions(&["--end", "build"]).ended(0);
    assert_eq!(sessions(&[]).ended(0).out().lines().count(), 1);
    sessions(&["--end", "build"]).complained(196, "remora: 127.0.0.1", "build");
    run(home.exec(["--session", "a/b", &target, "true"])).complained(193, "remora: usage: ", "64 letters");
    run(home.exec(["--session", "x", "local", "true"])).complained(
        193,
        "remora: usage: --session makes no sense for local: ",
        "",
    );
    let mut local = home.remora();
    local.args(["sessions", "local"]);
    run(local).complained(193, "remora: usage: local keeps no sessions", "");
}

#[test]
fn who_comes_back_to_a_session_that_is_gone_is_told() {
    let mut at = At::shell("--session build");
    assert!(
        at.screen.shows("remora: 127.0.0.1").contains(": session build is new\n"),
        "{}",
        at.screen.text()
    );
    at.screen.press(&["C-d"]);
    at.screen.shows("left with 0");
    at.start("--session build --no-reconnect");
    assert!(!at.screen.text().contains("is new"), "{}", at.screen.text());
    at.server.kill();
    at.screen.shows("back to its session: remora shell --session build");
    at.server = Server::start(&at.home);
    // It has outlived the server.
    let mut end = at.home.remora();
    end.args(["sessions", &at.server.target(), "--end", "build"]);
    run(end).ended(0);
    at.start("--session build");
    at.screen.shows(": session build is new\n");
    // One without a name is always new, and a script has its own -v.
    at.screen.press(&["C-d"]);
    at.screen.shows("left with 0");
    at.start("");
    assert!(!at.screen.text().contains("is new"), "{}", at.screen.text());
    let mut script = at.home.remora();
    script.args(["shell", "--session", "other", &at.server.target()]);
    let done = run_with(script, b"true\n").ended(0);
    assert_eq!(done.err(), "");
}

#[test]
fn a_directory_that_is_gone_is_left_by_cd() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    let gone = home.path("gone");
    std::fs::create_dir(&gone).unwrap();
    let line = |line: &str| run(home.exec(["--session", "s", &target, line]));
    line(&format!("cd {}", gone.display())).ended(0);
    std::fs::remove_dir(&gone).unwrap();
    let hint = "\nhint: cd elsewhere first, as cd ~\n";
    let err = line("exec true").err();
    assert!(err.contains("can't go to the working directory") && err.ends_with(hint), "{err}");
    let mut shell = home.remora();
    shell.args(["shell", "--session", "s", &target]);
    let done = run_with(shell, b"exec true\ncd ~\nexec echo back\n").ended(0);
    assert_eq!(done.out(), "back\n");
    assert!(done.err().ends_with(hint), "{}", done.err());
    // A directory that was asked for by name is named in the message.
    let err = run(home.exec(["--session", "s", "-C", "gone", &target, "true"])).err();
    assert!(err.contains("can't go to the working directory") && !err.contains("hint"), "{err}");
}

#[test]
fn who_is_not_accepted_gets_no_prompt_and_no_session() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    // The key that worked before, and is used first, doesn't any more; another one does.
    let mut shell = home.remora();
    shell.args(["shell", &target]);
    run_with(shell, b"true\n").ended(0);
    home.make_key(".ssh/id_ecdsa", "ecdsa", "");
    home.authorize(&[".ssh/id_ecdsa"]);
    let mut shell = home.remora();
    shell.args(["shell", &target]);
    assert_eq!(run_with(shell, b"echo in\n").ended(0).out(), "in\n");
    home.make_key("other", "ed25519", "");
    home.authorize(&["other"]);
    for verb in ["shell", "sessions"] {
        let mut command = home.remora();
        command.args([verb, &target]);
        run_with(command, b"echo in\n").complained(195, "remora: 127.0.0.1", "unauthenticated");
    }
    let mut command = home.remora();
    command.args(["shell", "127.0.0.1:1"]);
    run_with(command, b"").complained(194, "remora: 127.0.0.1:1: unreachable: ", "port 1 open");
}

#[test]
fn a_shell_on_this_machine_needs_no_server() {
    let home = Home::empty();
    let mut shell = home.remora();
    shell.args(["shell", "local"]);
    let done = run_with(shell, b"cd /usr\npwd\nfalse\n").ended(1);
    assert_eq!(done.out(), "/usr\n");
    let screen = Screen::open(&home, 20);
    screen.enter(&format!("clear; {REMORA} shell local; echo left with $?"));
    screen.shows(":~");
    screen.enter("cd /tmp");
    screen.shows(":/tmp");
    screen.press(&["C-d"]);
    screen.shows("left with 0");
    screen.ends_with(LOCAL);
}

#[test]
fn a_plain_wire_has_a_prompt_and_a_session_too() {
    let home = Home::with_key();
    let mut command = Server::command(&home, &[]);
    command.args(["--listen", "header://127.0.0.1:0", "--allow-plaintext-root"]);
    let mut server = Server::spawn(&home, command);
    let url = server.listening().remove(0);
    let screen = Screen::open(&home, 30);
    screen.enter(&format!("clear; {REMORA} shell {url}; echo left with $?"));
    screen.ends_with(">>>:");
    screen.press(&["Enter"]);
    screen.ends_with(">>>:\n>>>:");
    screen.enter("cd /usr");
    screen.enter("pwd");
    screen.shows("\n/usr\n>>>:");
    screen.enter("echo 'one");
    screen.ends_with(">");
    screen.enter("two'");
    screen.shows("\none\ntwo\n>>>:");
    screen.press(&["Up", "Up"]);
    screen.ends_with(">>>: pwd");
    screen.press(&["C-u"]);
    screen.enter("exit 3");
    screen.shows("left with 3");
    screen.enter(&format!("clear; {REMORA} shell {url}; echo left with $?"));
    screen.ends_with(">>>:");
    screen.type_text("ls");
    screen.ends_with(">>>: ls");
    server.kill();
    let seen = screen.shows("left with 198");
    assert!(seen.contains("lost: the peer closed the connection between two requests"), "{seen}");
}
