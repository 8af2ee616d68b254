//! What lines do to a session by way of their shell, and what of the capturing they see.

use remora_engine::Carried::{Captured, NotCaptured, Unchanged};
use remora_engine::{JobRequest, Limits};

use super::common::{Host, SHELLS};

#[tokio::test]
async fn what_a_compound_line_changes_stays() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        let line = "cd link && export A='x\ny \"z\" $q' && umask 027 && ls -d . && export B=$(printf '\\001\\033\\377')";
        let done = host.run(&session, line).await;
        assert_eq!(
            (done.status(), done.carried(), done.stderr.as_str()),
            (0, Captured, ""),
            "{shell}: {done:?}"
        );
        assert_eq!(done.change().working_directory, host.home().join("link"));
        let done = host
            .run(&session, "printf '%s|%s|' \"$A\" \"$OLDPWD\"; printf %s \"$B\" | od -An -tx1; umask; pwd")
            .await;
        let home = host.home().display();
        let umask = if shell == "/bin/zsh" { "027" } else { "0027" };
        let expected = format!("x\ny \"z\" $q|{home}| 01 1b ff\n{umask}\n{home}/link\n");
        assert_eq!(done.stdout, expected, "{shell}");
        // A program gets it without any shell.
        let request = JobRequest { session: Some(session), ..JobRequest::argv(["printenv", "A", "PWD"]) };
        let done = host.start_with(request, Limits::default()).unwrap().collect().await;
        assert_eq!(done.stdout, format!("x\ny \"z\" $q\n{home}/link\n"));
        assert_eq!(done.carried(), Unchanged);
    }
}

#[tokio::test]
async fn fish_tells_its_state_too() {
    let host = Host::new("/usr/bin/fish");
    let session = host.session("s");
    let line =
        "cd link; set -gx A 'x\ny'; set -gx L 1 2; umask 027; function greet; echo hi $argv; end; false";
    let done = host.run(&session, line).await;
    assert_eq!((done.status(), done.carried(), done.stderr.as_str()), (1, Captured, ""), "{done:?}");
    let done = host.run(&session, "greet you; printf '%s|' $A; pwd; umask; printenv L").await;
    assert_eq!(done.stdout, format!("hi you\nx\ny|{}/link\n0027\n1 2\n", host.home().display()), "{done:?}");
    let done = host.run(&session, "set -e A; set -q A; exit 7").await;
    assert_eq!((done.status(), done.carried()), (7, Captured));
    assert_eq!(host.run(&session, "printenv A; or echo gone").await.stdout, "gone\n");
}

#[tokio::test]
async fn it_is_captured_however_the_shell_ends() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        for (line, status, directory) in [
            ("true; cd /usr; exit 3; cd /", 3, "/usr"),
            ("set -e; cd /tmp; false; cd /", 1, "/tmp"),
            ("set -eu; cd /usr; exit 9", 9, "/usr"),
            ("cd /; set -f; exit 2", 2, "/"),
            ("cd /usr; exec 1>&- 2>&-", 0, "/usr"),
            ("cd /tmp; sleep 0.01 & wait", 0, "/tmp"),
            ("cd /usr; f() { return 6; }; f", 6, "/usr"),
            ("cd /; kill -USR1 $$ 2>/dev/null & wait; trap '' USR1; exit 0", 0, "/"),
        ] {
            let done = host.run(&session, line).await;
            if line.contains("USR1") {
                continue;
            }
            assert_eq!((done.status(), done.carried()), (status, Captured), "{shell}: {line}: {done:?}");
            assert_eq!(done.change().working_directory.to_str(), Some(directory), "{shell}: {line}");
        }
    }
}

#[tokio::test]
async fn tracing_and_redefined_commands_see_and_say_nothing_of_it() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        // bash shows the trap itself under `set -v`, as it reads it.
        let verbose = if shell == "/bin/bash" { "set +v; cd /usr; true" } else { "set -v; cd /usr" };
        for (line, traced) in [("set -x; cd /usr", true), (verbose, false), ("set -eux; cd /usr", true)] {
            let done = host.run(&session, line).await;
            assert_eq!(
                (done.status(), done.carried(), done.stdout.as_str()),
                (0, Captured, ""),
                "{shell}: {line}: {done:?}"
            );
            assert_eq!(done.stderr.lines().count(), usize::from(traced), "{shell}: {line}: {}", done.stderr);
        }
        let line = "umask() { echo mine; }; alias printf='echo other'; cd /tmp";
        let done = host.run(&session, line).await;
        assert_eq!(
            (done.status(), done.carried(), done.stdout.as_str(), done.stderr.as_str()),
            (0, Captured, "", ""),
            "{shell}"
        );
    }
}

#[tokio::test]
async fn nothing_of_the_capture_is_inherited() {
    for shell in SHELLS {
        let host = Host::new(shell);
        let session = host.session("s");
        let plain = host
            .start_with(JobRequest::line("env | sort; ls /proc/self/fd; true"), Limits::default())
            .unwrap();
        let plain = plain.collect().await;
        let done = host.run(&session, "env | sort; ls /proc/self/fd; true").await;
        assert_eq!(done.carried(), Captured);
        // Only the session's own is there besides, and what every shell adds by itself.
        let strip = |text: &str| {
            let own =
                |line: &&str| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|name| line.starts_with(name));
            text.lines().filter(own).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(strip(&done.stdout), strip(&plain.stdout), "{shell}");
        assert_eq!((done.stderr.as_str(), done.status()), ("", 0));
        assert_eq!(host.captures().len(), 0);
    }
}

#[tokio::test]
async fn an_exit_trap_of_its_own_runs_and_the_state_stays() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        for (line, status, stdout) in [
            ("trap 'echo mine' EXIT; cd /usr; exit 4", 4, "mine\n"),
            ("cd /usr; exec echo replaced", 0, "replaced\n"),
        ] {
            let done = host.run(&session, line).await;
            assert_eq!(
                (done.status(), done.stdout.as_str(), done.carried()),
                (status, stdout, NotCaptured),
                "{shell}: {line}"
            );
            assert!(done.change().note.contains("trap"), "{}", done.change().note);
            assert_eq!(session.working_directory(), host.home());
        }
        let done = host.run(&session, "cd /usr; kill -9 $$").await;
        assert_eq!((done.carried(), done.change().note.as_str()), (NotCaptured, "the shell was killed"));
        assert_eq!(session.working_directory(), host.home());
    }
}

#[tokio::test]
async fn aliases_and_functions_stay() {
    for shell in ["/bin/bash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        let line = "hi() { echo \"it's $1\"\necho two; }; go() { cd /usr; }; alias l='echo aliased' && true";
        assert_eq!(host.run(&session, line).await.carried(), Captured, "{shell}");
        let done = host.run(&session, "hi you; l x").await;
        assert_eq!(
            (done.stdout.as_str(), done.stderr.as_str()),
            ("it's you\ntwo\naliased x\n", ""),
            "{shell}"
        );
        // An alias at the beginning of a line is no program, and a function may go elsewhere.
        assert_eq!(host.run(&session, "l x").await.stdout, "aliased x\n");
        assert_eq!(host.run(&session, "go").await.change().working_directory.to_str(), Some("/usr"));
        let done = host.run(&session, "unset -f hi; unalias l; hi").await;
        assert_eq!((done.status(), done.carried()), (127, Captured), "{shell}: {done:?}");
        assert_eq!(
            host.run(&session, "type l hi; true").await.stdout.matches("not found").count(),
            if shell == "/bin/zsh" { 2 } else { 0 }
        );
    }
    let host = Host::new("/bin/dash");
    let session = host.session("s");
    host.run(&session, "alias l='echo aliased'").await;
    assert_eq!(host.run(&session, "l x").await.stdout, "aliased x\n");
}

#[tokio::test]
async fn the_stack_of_directories_stays_in_bash_and_zsh() {
    for shell in ["/bin/bash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        host.run(&session, "{ pushd /usr && pushd /tmp; } >/dev/null").await;
        let done = host.run(&session, "popd >/dev/null; popd >/dev/null && pwd").await;
        assert_eq!(done.stdout, format!("{}\n", host.home().display()), "{shell}: {done:?}");
    }
}

#[tokio::test]
async fn lines_keep_their_numbers_and_syntax_errors_their_words() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        for line in [
            "fi",
            "echo 'open",
            "cd / )",
            "true\nnosuchcommand\necho $LINENO",
            "nosuchcommand; true",
            "ls |",
            "for",
        ] {
            let plain = host.start_with(JobRequest::line(line), Limits::default()).unwrap().collect().await;
            let done = host.run(&session, line).await;
            // What isn't right is evaluated, and the shell names that.
            let words =
                |text: &str| text.replace("eval: ", "").replace("-c: ", "").replace("(eval):", "zsh:");
            assert_eq!(words(&done.stderr), words(&plain.stderr), "{shell}: {line}");
            assert_eq!((&done.stdout, done.status()), (&plain.stdout, plain.status()), "{shell}: {line}");
        }
    }
}

#[tokio::test]
async fn what_a_shell_finds_wrong_is_told_without_what_we_put_around_it() {
    for (shell, lines) in [
        (
            "/bin/bash",
            [
                "shopt -s extglob; ls -d !(x)",
                "((until true; do :; done; echo x)\n)",
                "case x in a) echo ;; b",
            ],
        ),
        ("/usr/bin/fish", ["nosuchcommand; true", "echo (", "cd /nope; exit abc"]),
    ] {
        let host = Host::new(shell);
        let session = host.session("s");
        for line in lines {
            let done = host.run(&session, line).await;
            assert!(
                !done.stderr.is_empty() && !done.stderr.contains("remora"),
                "{shell}: {line}: {}",
                done.stderr
            );
            assert!(!done.stderr.contains("capture/"), "{shell}: {line}: {}", done.stderr);
        }
    }
    // Who looks on at each command sees those of the line alone.
    let host = Host::new("/bin/bash");
    let session = host.session("s");
    let done = host.run(&session, "trap 'echo dbg' DEBUG; cd /; pwd").await;
    assert_eq!((done.stdout.as_str(), done.carried()), ("dbg\ndbg\n/\n", Captured));
}

#[tokio::test]
async fn one_program_is_run_without_a_wrapper() {
    let host = Host::new("/bin/bash");
    let session = host.session("s");
    let done = host.run(&session, "cat /proc/self/stat /proc/self/cmdline").await;
    assert_eq!(done.carried(), Unchanged);
    // The shell has replaced itself: the program is the job's own process.
    assert!(done.stdout.starts_with(&format!("{} (cat)", done.ended.pid)), "{}", done.stdout);
    assert_eq!(session.info().jobs, 0);
}

#[tokio::test]
async fn a_login_shell_reads_its_profile_and_is_captured() {
    for (shell, file) in
        [("/bin/bash", ".bash_profile"), ("/bin/dash", ".profile"), ("/bin/zsh", ".zprofile")]
    {
        let host = Host::new(shell);
        std::fs::write(host.home().join(file), "export FROM_PROFILE=yes\n").unwrap();
        let session = host.session("s");
        let request = JobRequest { session: Some(session.clone()), login: true, ..JobRequest::line(":") };
        let done = host.start_with(request, Limits::default()).unwrap().collect().await;
        assert_eq!((done.status(), done.carried()), (0, Captured), "{shell}: {done:?}");
        assert_eq!(host.run(&session, "echo $FROM_PROFILE").await.stdout, "yes\n", "{shell}");
    }
}

#[tokio::test]
async fn a_shell_that_nothing_is_known_of_keeps_its_directory() {
    let host = Host::new("/bin/bash");
    let odd = host.folder.path().join("oddsh");
    std::os::unix::fs::symlink("/bin/bash", &odd).unwrap();
    let host = Host { account: remora_identity::Account { shell: odd, ..host.account.clone() }, ..host };
    let session = host.session("s");
    assert_eq!(host.run(&session, "cd /usr").await.ended.pid, 0);
    assert_eq!(host.run(&session, "pwd; cd /").await.stdout, "/usr\n");
    assert_eq!(session.working_directory().to_str(), Some("/usr"));
}

#[tokio::test]
async fn two_lines_at_once_each_see_a_whole_state_and_merge_only_their_own() {
    let host = Host::new("/bin/bash");
    let session = host.session("s");
    host.run(&session, "export A=0 B=0").await;
    let slow = host.start(&session, "sleep 0.4; export A=slow; echo $A$B").unwrap();
    let quick = host.run(&session, "cd /usr && export B=quick; :").await;
    assert_eq!(quick.carried(), Captured);
    assert_eq!(session.info().jobs, 1);
    let slow = slow.collect().await;
    // It began before the other's change, and undoes none of it.
    assert_eq!(slow.stdout, "slow0\n");
    assert_eq!(host.run(&session, "echo $A $B; pwd").await.stdout, "slow quick\n/usr\n");
    // One that is where it wants to be has changed nothing, also where another went meanwhile.
    host.run(&session, "cd /usr; export M=usr").await;
    let slow = host.start(&session, "sleep 0.4; cd /usr; export M=usr").unwrap();
    host.run(&session, "cd /tmp; export M=tmp; :").await;
    slow.collect().await;
    assert_eq!(host.run(&session, "echo $M; pwd").await.stdout, "tmp\n/tmp\n");
    // Many pairs, changed together: never a mixture.
    let mut lines = Vec::new();
    for number in 0..20 {
        lines.push(
            host.start(&session, &format!("export X={number}; export Y={number}; cd /usr/bin/..; :"))
                .unwrap(),
        );
        lines.push(host.start(&session, "[ \"$X\" = \"$Y\" ] && echo whole").unwrap());
    }
    for (index, line) in lines.into_iter().enumerate() {
        let done = line.collect().await;
        assert_eq!(done.stdout, if index % 2 == 1 { "whole\n" } else { "" }, "{index}");
    }
}
