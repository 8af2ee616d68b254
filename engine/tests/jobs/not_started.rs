//! Every reason not to start has its own name, and none is guessed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use remora_engine::{Blame, JobRequest, Limits, NotStarted, Program, Step};

use crate::common::{Host, quick};

async fn refused(request: JobRequest) -> NotStarted {
    let host = Host::new(quick());
    let error = host.start(request, Limits::default()).map(|_| ()).unwrap_err();
    assert_eq!(host.engine.running(), 0);
    error
}

fn script(folder: &Path, name: &str, text: &str, mode: u32) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_missing_command_is_not_found() {
    for command in ["no-such-command", "/no/such/command", "./no-such-command", ""] {
        let error = refused(JobRequest::argv([command])).await;
        assert_eq!(
            (error.step, error.errno, error.blame()),
            (Step::NotFound, Some(libc::ENOENT), Blame::NotFound),
            "{command}"
        );
        assert_eq!(error.what, command);
    }
}

#[tokio::test]
async fn a_missing_working_directory_says_so() {
    let mut request = JobRequest::argv(["true"]);
    request.cwd = Some("/no/such/folder".into());
    let error = refused(request.clone()).await;
    assert_eq!((error.step, error.errno), (Step::WorkingDirectory, Some(libc::ENOENT)));
    assert_eq!(error.blame(), Blame::CannotExec);
    assert_eq!(error.what, "/no/such/folder");
    request.cwd = Some("/etc/passwd".into());
    assert_eq!(refused(request).await.errno, Some(libc::ENOTDIR));
}

#[tokio::test]
async fn what_is_there_and_cannot_be_executed_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let plain = script(folder.path(), "plain", "#!/bin/sh\n", 0o644);
    let garbage = script(folder.path(), "garbage", "neither a program nor a script\n", 0o755);
    let lost = script(folder.path(), "lost", "#!/no/such/interpreter -x\n", 0o755);
    let as_folder = folder.path().to_str().unwrap().to_owned();

    let error = refused(JobRequest::argv([plain.clone()])).await;
    assert_eq!((error.step, error.errno), (Step::NotExecutable, Some(libc::EACCES)));
    assert_eq!(error.what, plain.as_str());
    let error = refused(JobRequest::argv([garbage])).await;
    assert_eq!((error.step, error.errno), (Step::NotExecutable, Some(libc::ENOEXEC)));
    let error = refused(JobRequest::argv([as_folder])).await;
    assert_eq!((error.step, error.errno), (Step::NotExecutable, Some(libc::EACCES)));
    let error = refused(JobRequest::argv([lost])).await;
    assert_eq!((error.step, error.errno), (Step::InterpreterMissing, Some(libc::ENOENT)));
    assert_eq!(error.what, "/no/such/interpreter");
    assert_eq!(error.blame(), Blame::CannotExec);
}

#[tokio::test]
async fn commands_are_looked_up_in_the_path_of_the_job() {
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    script(first.path(), "tool", "#!/bin/sh\necho first\n", 0o644);
    script(second.path(), "tool", "#!/bin/sh\necho second\n", 0o755);
    script(first.path(), "denied", "#!/bin/sh\n", 0o644);
    let path = format!("/no/such:{}:{}", first.path().display(), second.path().display());
    let with_path = |command: &str, path: &str| {
        let mut request = JobRequest::argv([command]);
        request.env = vec![(b"PATH".to_vec(), path.as_bytes().to_vec())];
        request
    };
    // One that can't be executed is passed over for one that can, and remembered where there is none.
    assert_eq!(Host::new(quick()).run(with_path("tool", &path)).await.text(), "second\n");
    let error = refused(with_path("denied", &path)).await;
    assert_eq!((error.step, error.errno), (Step::NotExecutable, Some(libc::EACCES)));
    assert_eq!(refused(with_path("sh", "/no/such")).await.step, Step::NotFound);
    // An empty entry is the working directory.
    let mut here = with_path("tool", ":/no/such");
    here.cwd = Some(second.path().to_owned());
    assert_eq!(Host::new(quick()).run(here).await.text(), "second\n");
}

#[tokio::test]
async fn a_list_of_arguments_that_is_too_long_says_so() {
    let error = refused(JobRequest::argv(["true".to_owned(), "x".repeat(1 << 20)])).await;
    assert_eq!((error.step, error.errno), (Step::ArgumentListTooLong, Some(libc::E2BIG)));
}

#[tokio::test]
async fn bytes_no_system_call_can_carry_are_refused_before_anything() {
    let nul = |request| async move { refused(request).await.step };
    assert_eq!(nul(JobRequest::argv(["echo", "a\0b"])).await, Step::NulByte);
    assert_eq!(nul(JobRequest::line("echo a\0b")).await, Step::NulByte);
    let with = |name: &str, value: &str| {
        let mut request = JobRequest::argv(["true"]);
        request.env = vec![(name.into(), value.into())];
        request
    };
    assert_eq!(nul(with("A", "b\0")).await, Step::NulByte);
    assert_eq!(nul(with("A\0", "b")).await, Step::NulByte);
    assert_eq!(nul(with("A=B", "c")).await, Step::EnvironmentName);
    assert_eq!(nul(with("", "c")).await, Step::EnvironmentName);
    let mut cwd = JobRequest::argv(["true"]);
    cwd.cwd = Some("/tmp\0".into());
    assert_eq!(nul(cwd).await, Step::NulByte);
    assert_eq!(nul(JobRequest::new(Program::Argv(Vec::new()))).await, Step::EmptyArgv);
}

#[tokio::test]
async fn a_missing_shell_is_not_a_missing_command() {
    let mut request = JobRequest::line("true");
    request.shell = Some("/no/such/shell".into());
    let error = refused(request).await;
    assert_eq!((error.step, error.blame()), (Step::Shell, Blame::CannotExec));
    // The shell's own 127 is an exit status.
    let done = Host::new(quick()).run(JobRequest::line("no-such-command")).await;
    assert_eq!(done.outcome(), remora_engine::Outcome::Exited(127));
}

#[tokio::test]
async fn another_account_is_refused() {
    let mut host = Host::new(quick());
    host.account.uid += 1;
    let error = host.start(JobRequest::argv(["true"]), Limits::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.step, Step::Account);
}

#[test]
fn without_a_runtime_nothing_is_started() {
    let host = Host::new(quick());
    let error = host.start(JobRequest::argv(["true"]), Limits::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.step, Step::Runtime);
}

#[tokio::test]
async fn messages_are_one_line_whatever_the_names_hold() {
    let error = refused(JobRequest::argv([b"no\n\x1b[31m\xff".to_vec()])).await;
    let text = error.to_string();
    assert!(!text.contains(['\n', '\x1b']), "{text:?}");
    assert!(text.starts_with("command not found: no"), "{text}");
}
