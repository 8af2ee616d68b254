//! Every line that a session may carry out itself, in a real shell and in a session: output, error text, status, and what the
//! next line finds.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use remora_engine::Carried::{Captured, Simulated};
use remora_engine::Session;

use super::common::{Done, Host};

/// Prints directory, mask and variables, as a line of any of these shells.
const STATE: &str = "pwd; umask; env";

/// What a line came to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    stdout: String,
    stderr: String,
    status: i32,
    /// Printed by the next line.
    state: BTreeMap<String, String>,
}

/// What [`STATE`] printed, without what every shell keeps to itself.
fn state(text: &str) -> BTreeMap<String, String> {
    let mut lines = text.lines();
    let mut all = BTreeMap::from([
        ("pwd".to_owned(), lines.next().unwrap_or_default().to_owned()),
        ("umask".to_owned(), lines.next().unwrap_or_default().to_owned()),
    ]);
    all.extend(
        lines
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    for own in ["_", "SHLVL"] {
        all.remove(own);
    }
    all
}

fn real(host: &Host, shell: &str, before: &str, line: &str) -> Came {
    let environment = [
        ("HOME", host.home().to_str().unwrap()),
        ("USER", &host.account.name),
        ("LOGNAME", &host.account.name),
        ("SHELL", shell),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("PWD", host.home().to_str().unwrap()),
    ];
    let path = if host.account.uid == 0 { environment[4].1 } else { "/usr/local/bin:/usr/bin:/bin" };
    let run = |text: String| {
        let mut command = Command::new(shell);
        // As a session calls it: messages begin with that.
        command.arg0(std::path::Path::new(shell).file_name().unwrap());
        command.arg("-c").arg(text).env_clear().envs(environment).env("PATH", path);
        command.current_dir(host.home()).stdin(Stdio::null()).output().unwrap()
    };
    // The line on a line of its own: its number in messages is that of the first. What comes before it says nothing.
    let set = if before.is_empty() { String::new() } else { format!("{before}; ") };
    let alone = run(format!("{set}{line}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let both = run(format!("{set}exec 3>&1 >/dev/null 2>&1; {line}\nexec >&3; {STATE}"));
    // An error that ends the shell itself leaves all as it was.
    let both = if both.stdout.is_empty() { run(format!("{set}{STATE}")) } else { both };
    Came {
        stdout: text(&alone.stdout),
        stderr: text(&alone.stderr),
        status: alone.status.code().unwrap(),
        state: state(&text(&both.stdout)),
    }
}

async fn in_session(host: &Host, session: &Session, before: &str, line: &str) -> (Came, Done) {
    if !before.is_empty() {
        let set = host.run(session, before).await;
        assert_eq!((set.stdout.as_str(), set.stderr.as_str()), ("", ""), "{before}");
    }
    let done = host.run(session, line).await;
    let after = host.run(session, STATE).await;
    let came = Came {
        stdout: done.stdout.clone(),
        stderr: done.stderr.clone(),
        status: done.status(),
        state: state(&after.stdout),
    };
    (came, done)
}

/// What comes before, the line, and whether no process is needed.
type Case = (&'static str, &'static str, bool);

const EVERYWHERE: &[Case] = &[
    ("", "cd", true),
    ("", "cd /usr", true),
    ("", "cd 'a b'", true),
    ("", "cd a\\ b/c/..", true),
    ("", "cd \"a b\"//./c", true),
    ("", "cd ..", true),
    ("", "cd ../../..", true),
    ("", "cd link", true),
    ("", "cd link/..", true),
    ("", "cd -P link", true),
    ("cd link", "cd -P ..", true),
    ("cd link/c", "cd -P ../..", true),
    ("", "cd -P link/..", true),
    ("cd /bin", "cd -P ..", true),
    ("umask 222", "umask", true),
    ("umask 777", "umask", true),
    ("", "cd -L link/c", true),
    ("", "cd -- -dash", true),
    ("", "cd ~", true),
    ("", "cd ~/link", true),
    ("", "cd ~root", true),
    ("", "cd \"$HOME/a b\"", true),
    ("", "cd ${HOME}", true),
    ("cd /usr", "cd ~+/bin", false),
    ("", "cd /nope", false),
    ("", "cd file", false),
    ("", "cd ''", false),
    ("", "cd /usr /tmp", false),
    ("", "cd -Z", false),
    ("cd /usr", "cd $NOTSET", false),
    ("", "cd /u?r", false),
    ("", "cd $(echo /usr)", false),
    ("", "cd nope/..", false),
    ("", "pwd", true),
    ("cd link", "pwd", true),
    ("cd link", "pwd -P", true),
    ("cd link", "pwd -L", true),
    ("", "pwd -Z", false),
    ("", "export A=1", true),
    ("", "export A='x  y' B=\"$HOME/z\" C=", true),
    ("", "export A=1 && export B=\"$A\"2", true),
    ("export A=1", "export A", true),
    ("", "export A=~/x", false),
    ("", "export A='new\nline'", false),
    ("export A=1", "unset A", true),
    ("export A=1", "unset -v A", true),
    ("", "unset NOTSET", true),
    ("", "umask", true),
    ("", "umask 077", true),
    ("", "umask 7", true),
    ("umask 027", "umask -S", true),
    ("umask 027", "umask u=rwx,g=rx,o=", true),
    ("umask 027", "umask g+w,o+r", true),
    ("umask 0", "umask a-w", true),
    ("", "umask 999", false),
    ("", "umask q", false),
    ("", "cd /usr; pwd", true),
    ("", "cd /usr && pwd || cd /tmp", true),
    ("", "cd /nope && pwd", false),
    ("", "cd /nope; pwd", false),
    ("", "cd /nope || cd /usr", false),
    ("", "cd /usr > out", false),
    ("", "A=1 cd /usr", false),
    ("", "cd link && export A=1 && ls -d .", false),
    ("", "(cd /usr; export A=1)", false),
    ("", "export A=$((1+2)); cd \"$HOME\"", false),
    ("", "if cd /usr; then export A=1; fi", false),
    ("", "cd /usr; nosuchcommand", false),
    ("", "false; umask 011", false),
];

const BASH_AND_DASH: &[Case] = &[
    // zsh gives up without a word to its EXIT trap.
    ("", "unset HOME", false),
    ("", "export 1x=1", false),
    ("", "cd ~nobody-of-that-name", false),
    ("cd /usr", "cd -", true),
    ("cd /usr; cd /", "cd - && pwd", true),
    ("", "cd -", false),
    ("cd link", "cd -P -", false),
    ("cd /usr; unset OLDPWD", "cd -", false),
    ("", "export NOTSET", true),
    ("export NOTSET", "NOTSET=5", false),
    ("export NOTSET", "unset NOTSET; NOTSET=5", false),
    ("export NOTSET=1; export OTHER", "unset NOTSET", true),
    ("export CDPATH=/usr", "cd bin", true),
    ("export CDPATH=/nope:/usr", "cd share", true),
    ("export CDPATH=/usr", "cd ./link", true),
    ("export CDPATH=/usr", "cd link", false),
    ("export CDPATH=:/usr", "cd bin", false),
    ("", "alias l='ls -l' m=cd", true),
    ("alias l='ls -l'", "unalias l", true),
    ("alias l='ls -l'", "unalias -a", true),
    ("alias l='ls -l'", "alias l", false),
    ("", "unalias nope", false),
    ("alias a=1 b='it'\\''s'", "alias", false),
];

const BASH: &[Case] = &[
    ("", "pushd /usr", true),
    ("", "pushd link && pushd /", true),
    ("pushd /usr >/dev/null", "pushd", true),
    ("pushd /usr >/dev/null; pushd / >/dev/null", "popd", true),
    ("pushd /usr >/dev/null; pushd / >/dev/null", "dirs", true),
    ("pushd /usr >/dev/null; pushd / >/dev/null", "dirs -v", false),
    ("pushd /usr >/dev/null; pushd / >/dev/null", "pushd +1", false),
    ("pushd /usr >/dev/null", "dirs -c", true),
    ("", "popd", false),
    ("", "pushd", false),
    ("", "pushd /nope", false),
    ("export A=1", "export -n A", false),
    ("", "export -p | head -1", false),
    ("", "declare -x A=5", false),
    ("", "export UID=5", false),
];

async fn compare(shell: &str, cases: &[&[Case]]) {
    for (before, line, simulated) in cases.iter().copied().flatten() {
        let host = Host::new(shell);
        let session = host.session("s");
        // A real shell prints where it is when it changes by CDPATH or `-`; what comes before is to be silent.
        let expected = real(&host, shell, before, line);
        std::fs::remove_file(host.home().join("out")).ok();
        let (came, done) = in_session(&host, &session, before, line).await;
        assert_eq!(came, expected, "{shell}: {before}: {line}");
        let way = if *simulated { Simulated } else { Captured };
        assert_eq!(done.carried(), way, "{shell}: {line}: {}", done.change().note);
        assert_eq!(done.ended.pid == 0, *simulated, "{shell}: {line}");
        assert_eq!(host.captures(), Vec::<std::path::PathBuf>::new());
    }
}

#[tokio::test]
async fn bash_lines_are_answered_as_bash_answers() {
    compare("/bin/bash", &[EVERYWHERE, BASH_AND_DASH, BASH]).await;
}

#[tokio::test]
async fn dash_lines_are_answered_as_dash_answers() {
    compare("/bin/dash", &[EVERYWHERE, BASH_AND_DASH]).await;
}

#[tokio::test]
async fn zsh_lines_are_answered_as_zsh_answers() {
    compare("/bin/zsh", &[EVERYWHERE]).await;
}

#[tokio::test]
async fn exit_ends_with_its_status_and_says_that_it_leaves() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh", "/usr/bin/fish"] {
        let host = Host::new(shell);
        let session = host.session("s");
        for (line, status, left) in [
            ("exit", 0, true),
            ("exit 3", 3, true),
            ("false", 1, false),
            ("exit", 1, true),
            ("cd /usr && exit 4; pwd", 4, true),
            ("false || exit 5", 5, true),
            ("true || exit 6", 0, false),
            ("echo exit", 0, false),
            ("ls -d / >/dev/null; exit 44", 44, true),
            ("sh -c 'exit 7'", 7, false),
        ] {
            let done = host.run(&session, line).await;
            assert_eq!((done.status(), done.change().left), (status, left), "{shell}: {line}: {done:?}");
        }
        assert_eq!(session.working_directory().to_str(), Some("/usr"));
        if shell == "/usr/bin/fish" {
            continue;
        }
        for (line, status, left) in [
            ("(exit 5)", 5, false),
            ("test -e /nosuch || { exit 3; }", 3, true),
            ("if true; then exit 2; fi; echo no", 2, true),
            ("exit $((1+2))", 3, true),
            ("exit 300", 44, true),
            ("cat <<E; false\nexit\nE", 1, false),
            ("cat <<E\nexit", 0, false),
            ("echo exit \\", 0, false),
            ("false # exit", 1, false),
            ("set -e; false; echo exit", 1, true),
        ] {
            let done = host.run(&session, line).await;
            assert_eq!((done.status(), done.change().left), (status, left), "{shell}: {line}: {done:?}");
        }
        if shell != "/bin/dash" {
            host.run(&session, "die() { exit 9; }; :").await;
            let done = host.run(&session, "die now").await;
            assert_eq!((done.status(), done.change().left), (9, true), "{shell}");
        }
    }
}

#[tokio::test]
async fn the_next_line_is_told_how_the_last_one_ended() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        for (line, status) in [
            ("false", "1"),
            ("cd /usr", "0"),
            ("sh -c 'exit 77'", "77"),
            ("kill -9 $$", "137"),
            ("true", "0"),
        ] {
            host.run(&session, line).await;
            assert_eq!(host.run(&session, "echo $?").await.stdout, format!("{status}\n"), "{shell}: {line}");
            assert_eq!(host.run(&session, "echo $?").await.stdout, "0\n", "{shell}: {line}");
        }
        host.run(&session, "alias x=y; (exit 4)").await;
        assert_eq!(host.run(&session, "[ $? = 4 ] && echo yes").await.stdout, "yes\n", "{shell}");
        host.run(&session, "(exit 4)").await;
        assert_eq!(
            host.run(&session, "printenv \"A$?\" || echo $?; (exit 3)").await.stdout,
            "1\n",
            "{shell}"
        );
        assert_eq!(host.run(&session, "exit $?").await.status(), 3, "{shell}");
    }
    let host = Host::new("/usr/bin/fish");
    let session = host.session("s");
    host.run(&session, "false; sh -c 'exit 6'").await;
    assert_eq!(host.run(&session, "echo $status").await.stdout, "6\n");
}

#[tokio::test]
async fn fish_goes_where_it_is_told() {
    let host = Host::new("/usr/bin/fish");
    let session = host.session("s");
    for (line, carried) in
        [("cd link", Simulated), ("pwd", Simulated), ("cd -", Captured), ("cd a\\ b/c", Simulated)]
    {
        let done = host.run(&session, line).await;
        assert_eq!((done.status(), done.carried()), (0, carried), "{line}: {done:?}");
    }
    assert_eq!(session.working_directory(), host.home().join("a b/c"));
    let done = host.run(&session, "exit 3").await;
    assert_eq!((done.status(), done.carried(), done.change().left), (3, Simulated, true));
}
