//! Jobs on a terminal that can be stopped and continued, and what was typed ahead for whoever comes next.

use std::time::{Duration, Instant};

use bytes::Bytes;
use remora_engine::{
    EndReason, How, JobRequest, Limits, Outcome, Output, PeakMemory, Program, Signal, Step, Terminal,
};
use remora_testkit::{eventually_async, group_members, is_alive, session_members};

use crate::common::{Host, PATIENCE, Running, leader, odd, quick};

/// Without echo and without the translation of line ends, so that what is printed comes as it is.
fn terminal() -> Terminal {
    Terminal { modes: vec![(53, 0), (72, 0)], job_control: true, ..Terminal::default() }
}

fn on_terminal(request: JobRequest) -> JobRequest {
    JobRequest { terminal: Some(terminal()), ..request }
}

fn start(host: &Host, line: &str) -> Running {
    host.start(on_terminal(JobRequest::line(line)), Limits::default()).unwrap()
}

fn signal(name: &str) -> Signal {
    Signal::from_name(name).unwrap()
}

/// Waits until the job says that this stopped it, or that it goes on; no more than its bell wakes us.
async fn becomes(job: &Running, stopped: Option<Signal>) {
    tokio::time::timeout(PATIENCE, async {
        while job.job.stopped() != stopped {
            job.bell.notified().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never {stopped:?} but {:?}", job.job.stopped()));
}

fn state(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('-')
}

/// Waits until the shell has executed a command: before that its new child may stop while the shell, in vfork(2), can't.
async fn executes(job: &Running, command: &str) {
    let pid = job.job.pid();
    let is_it = |member: &i32| {
        std::fs::read_to_string(format!("/proc/{member}/comm")).is_ok_and(|name| name.trim() == command)
    };
    eventually_async(PATIENCE, "it executes", || group_members(pid).iter().any(is_it)).await;
}

#[tokio::test]
async fn ctrl_z_stops_a_command_and_cont_has_it_go_on() {
    let host = Host::new(quick());
    let job = start(&host, "echo ready; cat; echo end");
    let mut said = job.expect(b"ready\n").await;
    let pid = job.job.pid();
    assert_eq!(job.job.stopped(), None);
    executes(&job, "cat").await;
    for round in 0..3 {
        job.job.write(round * 6, Bytes::from_static(b"\x1a")).unwrap();
        becomes(&job, Some(signal("TSTP"))).await;
        assert_eq!(state(pid), 'T');
        assert_eq!(job.job.finished(), None);
        job.job.signal(Signal::CONT);
        becomes(&job, None).await;
        job.job.write(round * 6 + 1, Bytes::from_static(b"more\n")).unwrap();
        let wanted = [&b"ready\n"[..], &b"more\n".repeat(round as usize + 1)].concat();
        eventually_async(PATIENCE, "it goes on", || {
            job.take(Output::Stdout, &mut said);
            said == wanted
        })
        .await;
    }
    // Stopped by others it is told too.
    job.job.signal(signal("STOP"));
    becomes(&job, Some(signal("STOP"))).await;
    job.job.signal(Signal::CONT);
    becomes(&job, None).await;
    job.job.write(18, Bytes::from_static(b"\x04")).unwrap();
    let done = job.collect_after(said).await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    assert!(done.text().ends_with("more\nend\n"));
}

#[tokio::test]
async fn without_job_control_nothing_is_stopped_and_nothing_handed_back() {
    let host = Host::new(quick());
    let terminal = Terminal { job_control: false, ..terminal() };
    let request =
        JobRequest { terminal: Some(terminal), ..JobRequest::line("echo ready; sleep 0.3; exit 3") };
    let job = host.start(request, Limits::default()).unwrap();
    let said = job.expect(b"ready\n").await;
    let pid = job.job.pid();
    assert_eq!(leader(pid), i32::try_from(std::process::id()).unwrap());
    job.job.write(0, Bytes::from_static(b"\x1aahead\n")).unwrap();
    let done = job.collect_after(said).await;
    assert_eq!(done.outcome(), Outcome::Exited(3));
    assert_eq!(done.ended.unread_input, b"");
    assert_eq!(done.ended.pid, pid);
}

#[tokio::test]
async fn statuses_and_deaths_come_back_as_they_are() {
    let host = Host::new(quick());
    for status in [0, 1, 42, 126, 127, 199, 255] {
        let done = host.run(on_terminal(odd(&["exit", &status.to_string()]))).await;
        assert_eq!(done.ended.how, How::Exited(status));
    }
    assert_eq!(
        host.run(on_terminal(JobRequest::line("sleep 0.2; exit 3"))).await.outcome(),
        Outcome::Exited(3)
    );
    for name in ["KILL", "TERM", "SEGV", "HUP", "INT", "QUIT"] {
        let done = host.run(on_terminal(odd(&["die", &signal(name).number().to_string()]))).await;
        match done.outcome() {
            Outcome::Signaled { signal: told, by: None, .. } => assert_eq!(told, signal(name)),
            other => panic!("{name}: {other:?}"),
        }
    }
    let done = host.run(on_terminal(JobRequest::line("kill -34 $$"))).await;
    assert_eq!(
        done.ended.how,
        How::Signaled { signal: Signal::from_number(34).unwrap(), core_dumped: false }
    );
}

#[tokio::test]
async fn what_cannot_be_started_is_told_as_ever() {
    let host = Host::new(quick());
    let refused =
        |request: JobRequest| host.start(on_terminal(request), Limits::default()).map(drop).unwrap_err();
    let error = refused(JobRequest::argv(["no-such-command"]));
    assert_eq!((error.step, error.errno), (Step::NotFound, Some(libc_enoent())));
    let error = refused(JobRequest { cwd: Some("/no/such/place".into()), ..JobRequest::line("true") });
    assert_eq!(error.step, Step::WorkingDirectory);
    let error = refused(JobRequest::argv(["/etc/passwd"]));
    assert_eq!(error.step, Step::NotExecutable);
    assert_eq!(host.engine.running(), 0);
    assert_eq!(host.run(on_terminal(JobRequest::line("exit 5"))).await.outcome(), Outcome::Exited(5));
}

fn libc_enoent() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

#[tokio::test]
async fn a_program_that_tidies_up_before_it_stops_can_do_so() {
    let host = Host::new(quick());
    let script = "trap 'echo away; trap - TSTP; kill -TSTP 0; echo back; exit 4' TSTP
        echo ready; while :; do read -t 0.02 x; done";
    let job = host.start(on_terminal(JobRequest::argv(["bash", "-c", script])), Limits::default()).unwrap();
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b"\x1a")).unwrap();
    becomes(&job, Some(signal("TSTP"))).await;
    job.job.signal(Signal::CONT);
    let done = job.collect_after(said).await;
    assert_eq!(done.text(), "ready\naway\nback\n");
    assert_eq!(done.outcome(), Outcome::Exited(4));
}

#[tokio::test]
async fn a_shell_has_its_own_job_control() {
    let host = Host::new(quick());
    let request = JobRequest { shell: Some("/bin/bash".into()), ..JobRequest::new(Program::LoginShell) };
    let request = JobRequest { env: vec![(b"PS1".to_vec(), b"> ".to_vec())], ..on_terminal(request) };
    let job = host.start(request, Limits::default()).unwrap();
    let mut said = Vec::new();
    let mut given = 0;
    let mut given_and = async |input: &'static [u8], wanted: &str| {
        job.job.write(given, Bytes::from_static(input)).unwrap();
        given += input.len() as u64;
        let mut seen = String::new();
        let found = tokio::time::timeout(PATIENCE, async {
            while !seen.contains(wanted) {
                job.bell.notified().await;
                job.take(Output::Stdout, &mut said);
                seen = String::from_utf8_lossy(&said).into_owned();
            }
        });
        assert!(found.await.is_ok(), "{wanted}: {seen}");
    };
    given_and(b"unset PROMPT_COMMAND; PS1=; echo $((40 + 1)) begun; cat\n", "41 begun").await;
    given_and(b"in a cat\n", "in a cat\n").await;
    given_and(b"\x1a", "Stopped").await;
    given_and(b"echo $((40 + 2)) stopped; fg\n", "42 stopped").await;
    assert_eq!(job.job.stopped(), None);
    given_and(b"again\n\x04", "again\n").await;
    given_and(b"echo $((40 + 3)) after\n", "43 after").await;
    job.job.write(given, Bytes::from_static(b"exit 6\n")).unwrap();
    assert_eq!(job.collect_after(said).await.outcome(), Outcome::Exited(6));
}

#[tokio::test]
async fn a_stopped_job_that_is_closed_ends_in_time_and_leaves_nothing() {
    let host = Host::new(quick());
    let job = start(&host, "echo ready; sleep 100000; exit 1");
    let said = job.expect(b"ready\n").await;
    executes(&job, "sleep").await;
    let (pid, leader) = (job.job.pid(), leader(job.job.pid()));
    job.job.write(0, Bytes::from_static(b"\x1a")).unwrap();
    becomes(&job, Some(signal("TSTP"))).await;
    let since = Instant::now();
    job.job.close(EndReason::Linger);
    let done = job.collect_after(said).await;
    assert_eq!(
        done.outcome(),
        Outcome::Signaled { signal: Signal::TERM, core_dumped: false, by: Some(EndReason::Linger) }
    );
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    eventually_async(PATIENCE, "nobody is left", || {
        session_members(leader).is_empty() && group_members(pid).is_empty() && !is_alive(leader)
    })
    .await;
}

#[tokio::test]
async fn who_ignores_sigterm_is_killed_and_his_children_too() {
    let host = Host::new(quick());
    let job = start(&host, "trap '' TERM; echo ready; sleep 100000; sleep 100000");
    let said = job.expect(b"ready\n").await;
    let leader = leader(job.job.pid());
    job.job.close(EndReason::Stop);
    let done = job.collect_after(said).await;
    assert_eq!(done.ended.how, How::Signaled { signal: Signal::KILL, core_dumped: false });
    eventually_async(PATIENCE, "nobody is left", || session_members(leader).is_empty()).await;

    // The command itself dies of SIGTERM. Its child, in the same group, does not, and is not forgotten.
    let job = host.start(on_terminal(odd(&["ignore-term-too", "1000000"])), Limits::default()).unwrap();
    let mut said = Vec::new();
    eventually_async(PATIENCE, "it says so", || {
        job.take(Output::Stdout, &mut said);
        said.ends_with(b"\n")
    })
    .await;
    // Hung up is not what it ends by.
    let child: i32 = std::str::from_utf8(&said).unwrap().trim().parse().unwrap();
    assert!(is_alive(child));
    job.job.close(EndReason::Stop);
    let done = job.collect_after(said).await;
    assert_eq!(done.ended.how, How::Signaled { signal: Signal::TERM, core_dumped: false });
    eventually_async(PATIENCE, "the child is dead", || !is_alive(child)).await;
}

#[tokio::test]
async fn dropping_the_last_handle_of_a_stopped_job_kills_it() {
    let host = Host::new(quick());
    let job = start(&host, "echo ready; sleep 100000; exit 1");
    job.expect(b"ready\n").await;
    executes(&job, "sleep").await;
    let leader = leader(job.job.pid());
    job.job.signal(signal("STOP"));
    becomes(&job, Some(signal("STOP"))).await;
    drop(job);
    eventually_async(PATIENCE, "it is killed and reaped", || {
        host.engine.running() == 0
            && session_members(leader).is_empty()
            && !std::path::Path::new(&format!("/proc/{leader}")).exists()
    })
    .await;
}

#[tokio::test]
async fn the_time_limit_of_a_stopped_job_holds() {
    let host = Host::new(quick());
    let limits = Limits { wall: Some(Duration::from_millis(800)), ..Limits::default() };
    let job = host.start(on_terminal(JobRequest::line("echo ready; sleep 100000; exit 1")), limits).unwrap();
    executes(&job, "sleep").await;
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b"\x1a")).unwrap();
    becomes(&job, Some(signal("TSTP"))).await;
    let done = job.collect_after(said).await;
    assert_eq!(done.outcome(), Outcome::Deadline);
    assert!(done.ended.wall < Duration::from_secs(10), "{:?}", done.ended.wall);
}

#[tokio::test]
async fn a_leader_that_is_killed_takes_its_command_along() {
    let host = Host::new(quick());
    let job = start(&host, "trap '' HUP TERM INT; echo ready; while :; do sleep 0.05; done");
    let said = job.expect(b"ready\n").await;
    let (pid, leader) = (job.job.pid(), leader(job.job.pid()));
    let as_pid = rustix::process::Pid::from_raw(leader).unwrap();
    rustix::process::kill_process(as_pid, rustix::process::Signal::KILL).unwrap();
    let done = job.collect_after(said).await;
    assert_eq!(done.ended.how, How::Signaled { signal: Signal::KILL, core_dumped: false });
    eventually_async(PATIENCE, "the command is dead", || group_members(pid).is_empty()).await;
}

#[tokio::test]
async fn a_leader_that_somebody_stopped_does_not_hold_the_end_up() {
    let host = Host::new(quick());
    for ended_by in [Signal::TERM, Signal::KILL] {
        let job = start(&host, "echo ready; sleep 100000; exit 1");
        let said = job.expect(b"ready\n").await;
        let as_pid = rustix::process::Pid::from_raw(leader(job.job.pid())).unwrap();
        rustix::process::kill_process(as_pid, rustix::process::Signal::STOP).unwrap();
        match ended_by {
            Signal::TERM => job.job.close(EndReason::Stop),
            signal => job.job.signal(signal),
        }
        let done = job.collect_after(said).await;
        assert_eq!(done.ended.how, How::Signaled { signal: ended_by, core_dumped: false });
    }
}

#[tokio::test]
async fn other_signals_than_its_own_do_not_end_a_leader() {
    let host = Host::new(quick());
    let job = start(&host, "echo ready; read x; exit 9");
    let said = job.expect(b"ready\n").await;
    let as_pid = rustix::process::Pid::from_raw(leader(job.job.pid())).unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::USR1]
    {
        rustix::process::kill_process(as_pid, signal).unwrap();
    }
    job.job.write(0, Bytes::from_static(b"\n")).unwrap();
    assert_eq!(job.collect_after(said).await.outcome(), Outcome::Exited(9));
}

#[tokio::test]
async fn a_leader_holds_no_descriptor_it_does_not_need() {
    let host = Host::new(quick());
    let folder = tempfile::tempdir().unwrap();
    let _open = std::fs::File::create(folder.path().join("open")).unwrap();
    let other = start(&host, "sleep 100000; exit 1");
    let job = start(&host, "echo ready; sleep 100000; exit 1");
    job.expect(b"ready\n").await;
    let leader = leader(job.job.pid());
    assert_eq!(std::fs::read_to_string(format!("/proc/{leader}/comm")).unwrap(), "remora-leader\n");
    let targets = || -> Vec<String> {
        let fds = std::fs::read_dir(format!("/proc/{leader}/fd")).unwrap().flatten();
        let mut fds: Vec<_> =
            fds.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.display().to_string())).collect();
        fds.sort();
        fds
    };
    eventually_async(PATIENCE, "it holds what it needs", || targets().len() == 5).await;
    let targets = targets();
    assert_eq!(targets.iter().filter(|target| *target == "/dev/null").count(), 3, "{targets:?}");
    assert!(targets.iter().any(|target| target.starts_with("/dev/pts/")), "{targets:?}");
    assert!(targets.iter().any(|target| target.starts_with("socket:")), "{targets:?}");
    drop(other);
}

#[tokio::test]
async fn limits_place_and_mask_hold_as_ever_and_signals_are_not_blocked() {
    let host = Host::new(quick());
    let limits = Limits { open_files: Some(64), memory: Some(1 << 30), ..Limits::default() };
    let request = JobRequest {
        cwd: Some("/usr".into()),
        umask: Some(0o027),
        ..JobRequest::line(
            "ulimit -n; ulimit -v; pwd; umask; grep -E 'Sig(Blk|Ign)' /proc/self/status; tty > /dev/tty",
        )
    };
    let done = host.start(on_terminal(request), limits).unwrap().collect().await;
    let text = done.text();
    let none = "0000000000000000";
    let expected = format!("64\n1048576\n/usr\n0027\nSigBlk:\t{none}\nSigIgn:\t{none}\n/dev/pts/");
    assert!(text.starts_with(&expected), "{text}");
    let done = host.run(on_terminal(odd(&["fds"]))).await;
    assert_eq!(done.text(), "0\n1\n2\n");
    // Its own group, in the leader's session.
    let done = host.run(on_terminal(odd(&["ids"]))).await;
    let ids: Vec<&str> = done.text().split_whitespace().collect();
    assert_eq!((ids[0], ids[0], "tty"), (ids[1], done.ended.pid.to_string().as_str(), ids[3]));
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn use_of_time_and_memory_is_told() {
    let host = Host::new(quick());
    let done = host.run(on_terminal(odd(&["burn", "300", "64"]))).await;
    assert!(done.ended.user >= Duration::from_millis(200), "{:?}", done.ended.user);
    match done.ended.peak_memory {
        PeakMemory::Measured(bytes) => assert!((64 << 20..200 << 20).contains(&bytes), "{bytes}"),
        other => panic!("{other:?}"),
    }
    // The leader is smaller than almost any command.
    match host.run(on_terminal(JobRequest::argv(["true"]))).await.ended.peak_memory {
        PeakMemory::Measured(bytes) => assert!(bytes < 16 << 20, "{bytes}"),
        PeakMemory::AtMost(bytes) => assert!(bytes < 4 << 20, "{bytes}"),
    }
}

#[tokio::test]
async fn what_was_typed_ahead_is_handed_back() {
    let host = Host::new(quick());
    let job = start(&host, "echo ready; read x; echo got $x; sleep 0.4; exit 3");
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b"read\rls -l\rha lf\x7f")).unwrap();
    let done = job.collect_after(said).await;
    assert_eq!(done.text(), "ready\ngot read\n");
    assert_eq!(done.outcome(), Outcome::Exited(3));
    assert_eq!(done.ended.unread_input, b"ls -l\nha l", "{}", done.ended.unread_input.escape_ascii());

    // Keys as they are, where the command had made the terminal raw.
    let job = start(&host, "stty raw -echo; echo ready; sleep 0.4");
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b":q\r\x03\x1a\x00")).unwrap();
    assert_eq!(job.collect_after(said).await.ended.unread_input, b":q\r\x03\x1a\x00");

    // Nothing typed, nothing handed back; what was read neither.
    let job = start(&host, "echo ready; cat");
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b"all of it\n")).unwrap();
    job.job.end_input(10).unwrap();
    let done = job.collect_after(said).await;
    assert_eq!(done.text(), "ready\nall of it\n");
    assert_eq!(done.ended.unread_input, b"");
}

#[tokio::test]
async fn a_paste_for_several_commands_loses_nothing_between_them() {
    let host = Host::new(quick());
    let lines = |numbers: std::ops::Range<u32>| -> Vec<u8> {
        numbers.flat_map(|number| format!("line {number:06}\n").into_bytes()).collect()
    };
    for round in 0..20 {
        // Far more than a terminal holds, and less than is handed back. Each line is asked for by a read of its own, which takes no
        // more.
        let pasted = lines(0..4_000);
        let job = start(&host, &format!("echo ready; read a; read b; sleep 0.0{round}; exit 0"));
        let said = job.expect(b"ready\n").await;
        job.job.write(0, Bytes::from(pasted)).unwrap();
        let done = job.collect_after(said).await;
        assert_eq!(done.outcome(), Outcome::Exited(0));
        let unread = &done.ended.unread_input;
        assert!(
            *unread == lines(2..4_000),
            "{} bytes, {:?}",
            unread.len(),
            unread.escape_ascii().to_string()
        );
    }
    // What is more is cut there.
    let job = start(&host, "echo ready; read a; sleep 0.1");
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from(lines(0..20_000))).unwrap();
    let done = job.collect_after(said).await;
    assert_eq!(done.ended.unread_input, lines(1..20_000)[..64 * 1024]);
}

#[tokio::test]
async fn what_is_typed_in_the_moment_of_the_end_is_handed_back_too() {
    let host = Host::new(quick());
    let line = |number: u64| format!("line {number:06}\n").into_bytes();
    for _ in 0..100 {
        let job = start(&host, "echo ready; read a");
        let said = job.expect(b"ready\n").await;
        // Typed on until it is over, as nobody knows when that is. Once it is, whoever typed keeps the rest.
        let mut typed = 0;
        while job.job.finished().is_none() && typed < 5_000 {
            let line = line(typed);
            job.job.write(typed * 12, Bytes::from(line)).unwrap();
            typed += 1;
            tokio::task::yield_now().await;
        }
        let done = job.collect_after(said).await;
        let wanted: Vec<u8> = (1..typed).flat_map(line).collect();
        let unread = &done.ended.unread_input;
        assert!(*unread == wanted, "{} of {} bytes", unread.len(), wanted.len());
    }
}

#[tokio::test]
async fn the_first_that_is_typed_may_come_in_the_moment_of_the_end() {
    let host = Host::new(quick());
    let mut in_time = 0;
    for round in 0..300 {
        let job = start(&host, "exit 0");
        let since = Instant::now();
        while since.elapsed() < Duration::from_micros(round % 100 * 20) {
            tokio::task::yield_now().await;
        }
        let is_in_time = job.job.finished().is_none();
        job.job.write(0, Bytes::from_static(b"line\n")).unwrap();
        let done = job.collect().await;
        let wanted: &[u8] = if is_in_time { b"line\n" } else { b"" };
        assert_eq!(done.ended.unread_input, wanted, "round {round}");
        in_time += u32::from(is_in_time);
    }
    assert!(in_time > 0);
}

#[tokio::test]
async fn type_ahead_does_not_hold_up_a_job_that_is_ended() {
    let host = Host::new(quick());
    let job = start(&host, "trap '' HUP; (sleep 3) & echo ready; exec sleep 100000");
    let said = job.expect(b"ready\n").await;
    job.job.write(0, Bytes::from_static(b"ahead\n")).unwrap();
    let since = Instant::now();
    job.job.signal(Signal::KILL);
    let done = job.collect_after(said).await;
    assert_eq!(done.ended.how, How::Signaled { signal: Signal::KILL, core_dumped: false });
    assert_eq!(done.ended.unread_input, b"ahead\n");
    assert!(since.elapsed() < Duration::from_millis(800), "{:?}", since.elapsed());
}
