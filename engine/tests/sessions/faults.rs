//! Sessions that something is wrong with.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use remora_engine::Carried::{Captured, Lost, NotCaptured, Simulated};
use remora_engine::{JobRequest, Limits, Outcome, Step};

use super::common::Host;

#[tokio::test]
async fn a_directory_that_vanished_is_told_and_left() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        host.run(&session, "cd 'a b/c'").await;
        std::fs::remove_dir(host.home().join("a b/c")).unwrap();
        let Err(error) = host.start(&session, "ls") else { panic!("{shell}: it ran somewhere") };
        assert_eq!(error.step, Step::WorkingDirectory);
        assert!(error.to_string().contains("a b/c"), "{error}");
        // A line that goes elsewhere first is run there.
        let done = host.run(&session, "cd /usr && pwd | cat; (pwd)").await;
        assert_eq!(
            (done.status(), done.stdout.as_str(), done.carried()),
            (0, "/usr\n/usr\n", Captured),
            "{shell}"
        );
        let back = host.home().join("a b/c");
        std::fs::create_dir(&back).unwrap();
        host.run(&session, &format!("cd '{}'", back.display())).await;
        std::fs::remove_dir(&back).unwrap();
        let Err(_) = host.start(&session, "cd nope && ls; cd ..; ls") else {
            panic!("{shell}: it ran somewhere")
        };
        assert_eq!(host.run(&session, "cd ..").await.carried(), Simulated, "{shell}");
        assert_eq!(session.working_directory(), host.home().join("a b"));
        assert_eq!(host.run(&session, "ls; cd /usr").await.carried(), Captured);
    }
}

#[tokio::test]
async fn a_path_that_is_not_utf_8_is_a_path() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        std::fs::create_dir(host.home().join(name)).unwrap();
        let line = [b"cd caf\xe9 && export A=caf\xe9".as_slice()].concat();
        let request = JobRequest { session: Some(session.clone()), ..JobRequest::line(line) };
        let done = host.start_with(request, Limits::default()).unwrap().collect().await;
        assert_eq!((done.status(), done.carried()), (0, Captured), "{shell}: {done:?}");
        assert_eq!(session.working_directory(), host.home().join(name));
        assert_eq!(host.run(&session, "printf %s \"$A\" | od -An -tx1").await.stdout, " 63 61 66 e9\n");
        assert_eq!(host.run(&session, "cd ..").await.carried(), Simulated);
    }
}

#[tokio::test]
async fn ten_mebibytes_of_environment_are_refused_and_the_limit_is_named() {
    for shell in ["/bin/bash", "/bin/dash", "/bin/zsh"] {
        let host = Host::new(shell);
        let session = host.session("s");
        for (line, limit) in [
            ("export A=$(head -c 10485760 /dev/zero | tr '\\0' x); cd /usr", "1048576"),
            ("export A=$(head -c 200000 /dev/zero | tr '\\0' x); cd /usr", "131072"),
            (
                "i=0; while [ $i -lt 12 ]; do export N$i=$(head -c 100000 /dev/zero | tr '\\0' x); i=$((i+1)); done",
                "1048576",
            ),
        ] {
            let done = host.run(&session, line).await;
            assert_eq!((done.status(), done.carried()), (0, Lost), "{shell}: {line}");
            let note = &done.change().note;
            assert!(note.contains(limit), "{shell}: {note}");
        }
        // Where it went it is, and of use.
        assert_eq!(session.working_directory().to_str(), Some("/usr"));
        assert_eq!(host.run(&session, "echo ${A:-none}").await.stdout, "none\n");
        let big = "x".repeat(3000);
        let request =
            JobRequest { session: Some(session.clone()), ..JobRequest::line(format!("export B={big}")) };
        assert_eq!(host.start_with(request, Limits::default()).unwrap().collect().await.carried(), Simulated);
    }
}

#[tokio::test]
async fn a_shell_that_hangs_in_its_start_up_files_runs_into_the_commands_time_limit() {
    for (shell, file) in [("/bin/bash", ".bash_profile"), ("/bin/zsh", ".zshenv")] {
        let host = Host::new(shell);
        std::fs::write(host.home().join(file), "cd /usr; while :; do sleep 1; done\n").unwrap();
        let session = host.session("s");
        let request = JobRequest { session: Some(session.clone()), login: true, ..JobRequest::line(":") };
        let limits = Limits { wall: Some(Duration::from_millis(300)), ..Limits::default() };
        let done = host.start_with(request, limits).unwrap().collect().await;
        assert_eq!(done.ended.outcome(), Outcome::Deadline, "{shell}");
        assert_eq!(done.carried(), NotCaptured);
        assert_eq!(session.working_directory(), host.home());
    }
}

#[tokio::test]
async fn where_the_folder_is_not_ours_alone_nothing_is_captured_and_that_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new("/bin/bash");
    let folder = host.folder.path().join("capture");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let session = host.session("s");
    let done = host.run(&session, "cd /usr; true; echo ran").await;
    assert_eq!((done.stdout.as_str(), done.carried()), ("ran\n", Lost));
    assert!(done.change().note.contains("only this account"), "{}", done.change().note);
}

#[tokio::test]
async fn what_a_killed_server_left_is_removed() {
    let host = Host::new("/bin/bash");
    let folder = host.folder.path().join("capture");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    // A process id that is nobody's.
    let stale = folder.join("4194305-7");
    let made = std::process::Command::new("mkfifo").arg(&stale).status().unwrap();
    assert!(made.success());
    let session = host.session("s");
    assert_eq!(host.run(&session, "cd /usr; true").await.carried(), Captured);
    assert_eq!(host.captures().len(), 0);
}

#[tokio::test]
async fn a_job_that_is_ended_leaves_nothing_behind() {
    let host = Host::new("/bin/bash");
    let session = host.session("s");
    let running = host.start(&session, "cd /usr; sleep 100; true").unwrap();
    assert_eq!((session.info().jobs, host.captures().len()), (1, 1));
    running.job.close(remora_engine::EndReason::Stop);
    let done = running.collect().await;
    // bash has told its state by the time SIGTERM ended it, or has not: either is whole.
    assert!(matches!(done.carried(), Captured | NotCaptured));
    assert_eq!((session.info().jobs, host.captures().len()), (0, 0));
}
