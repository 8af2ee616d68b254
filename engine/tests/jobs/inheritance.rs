//! What a command starts with, and nothing else.

use std::os::fd::AsRawFd;

use remora_engine::{JobRequest, Limits, Stdin};

use crate::common::{Host, odd, quick};

#[tokio::test]
async fn nothing_is_inherited_but_descriptors_0_1_and_2() {
    // One that is not close-on-exec, as a careless library leaves them.
    let careless = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    assert!(careless.as_raw_fd() > 2);
    let host = Host::new(quick());
    for stdin in [Stdin::Null, Stdin::Piped] {
        let mut request = odd(&["fds"]);
        request.stdin = stdin;
        assert_eq!(host.run(request).await.text(), "0\n1\n2\n");
    }
}

#[tokio::test]
async fn no_signal_is_ignored_blocked_or_pending() {
    let done = Host::new(quick()).odd(&["signals"]).await;
    // A Rust program ignores SIGPIPE (bit 12) itself, and nothing else; a shell shows what it was given.
    let by_shell =
        Host::new(quick()).run(JobRequest::argv(["grep", "^Sig[BIP][lgn][knd]", "/proc/self/status"])).await;
    let zero = "0000000000000000";
    for name in ["SigPnd", "SigBlk", "SigIgn"] {
        assert!(by_shell.text().contains(&format!("{name}:\t{zero}\n")), "{}", by_shell.text());
    }
    assert!(done.text().contains("SigIgn:\t0000000000001000\n"), "{}", done.text());
    assert!(done.text().contains(&format!("SigBlk:\t{zero}\n")), "{}", done.text());
}

#[tokio::test]
async fn a_job_leads_a_session_and_a_group_of_its_own_without_a_terminal() {
    let done = Host::new(quick()).odd(&["ids"]).await;
    let pid = done.ended.pid;
    assert_eq!(done.text(), format!("{pid} {pid} {pid} no tty\n"));
}

#[tokio::test]
async fn the_environment_is_the_base_and_what_was_asked_for() {
    let host = Host::new(quick());
    let mut request = odd(&["environment"]);
    request.env = vec![
        (b"A".to_vec(), b"1".to_vec()),
        (b"HOME".to_vec(), b"/elsewhere".to_vec()),
        (b"A".to_vec(), b"=\xff\n2".to_vec()),
    ];
    let done = host.run(request).await;
    let mut entries: Vec<&[u8]> =
        done.stdout.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).collect();
    entries.sort();
    let name = &host.account.name;
    let path = match host.account.uid {
        0 => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        _ => "/usr/local/bin:/usr/bin:/bin",
    };
    let expected = [
        b"A==\xff\n2".to_vec(),
        b"HOME=/elsewhere".to_vec(),
        format!("LOGNAME={name}").into_bytes(),
        format!("PATH={path}").into_bytes(),
        b"SHELL=/bin/sh".to_vec(),
        format!("USER={name}").into_bytes(),
    ];
    assert_eq!(entries, expected.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_working_directory_is_the_home_or_taken_from_it() {
    let mut host = Host::new(quick());
    host.account.home = "/usr".into();
    for (cwd, expected) in
        [(None, "/usr"), (Some("bin/.."), "/usr"), (Some("lib"), "/usr/lib"), (Some("/"), "/")]
    {
        let mut request = odd(&["cwd"]);
        request.cwd = cwd.map(Into::into);
        let done = host.run(request).await;
        assert_eq!(
            done.stdout,
            [std::path::Path::new(expected).canonicalize().unwrap().to_str().unwrap(), "\0"]
                .concat()
                .as_bytes()
        );
    }
}

#[tokio::test]
async fn an_argument_vector_arrives_byte_for_byte() {
    let host = Host::new(quick());
    let odd_arguments: [&[u8]; 6] = [b"", b"a b", b"$x `y` \"z\"", b"\xff\xfe\n\x01", b"*", b"-n"];
    let mut request = odd(&["argv"]);
    if let remora_engine::Program::Argv(argv) = &mut request.program {
        argv.extend(odd_arguments.iter().map(|argument| argument.to_vec()));
    }
    let done = host.run(request).await;
    let arguments: Vec<&[u8]> = done.stdout.split(|byte| *byte == 0).collect();
    assert_eq!(arguments[2..8], odd_arguments);
}

#[tokio::test]
async fn the_umask_is_the_one_asked_for() {
    let host = Host::new(quick());
    let mut request = odd(&["umask"]);
    request.umask = Some(0o027);
    assert_eq!(host.run(request).await.text(), "027\n");
}

#[tokio::test]
async fn open_files_are_limited() {
    let host = Host::new(quick());
    let limits = Limits { open_files: Some(33), ..Limits::default() };
    let done = host.start(odd(&["limits"]), limits).unwrap().collect().await;
    let line = done.text().lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["33", "33"]);
}

#[tokio::test]
async fn without_a_home_a_job_runs_in_the_root_unless_it_asked_for_a_place() {
    let mut host = Host::new(quick());
    host.account.home = "/nonexistent".into();
    let job = host.start(JobRequest::argv(["pwd"]), Limits::default()).unwrap();
    assert!(job.job.is_in_root());
    assert_eq!(job.collect().await.text(), "/\n");
    let request = JobRequest { cwd: Some("elsewhere".into()), ..JobRequest::argv(["pwd"]) };
    assert_eq!(
        host.start(request, Limits::default()).unwrap_err().step,
        remora_engine::Step::WorkingDirectory
    );
    let request = JobRequest { cwd: Some("/usr".into()), ..JobRequest::argv(["pwd"]) };
    let job = host.start(request, Limits::default()).unwrap();
    assert!(!job.job.is_in_root());
    assert_eq!(job.collect().await.text(), "/usr\n");
}
