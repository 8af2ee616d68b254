//! Measures starting and reading beside the local floor, interleaved in one run: `cargo run --release -p remora-engine
//! --example measure [ROUNDS] [MEBIBYTES]`. Prints medians and ratios.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measuring program: it prints, and ends at the first surprise"
)]

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_engine::sys::{AccountKey, account};
use remora_engine::{Engine, EngineConfig, JobRequest, Limits, Output, Stdin, Terminal};
use remora_identity::{Account, Authenticated, Policy};
use tokio::sync::Notify;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let rounds = arguments.next().unwrap_or(500);
    let mebibytes = arguments.next().unwrap_or(2048);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let me = account(AccountKey::Uid(rustix::process::geteuid().as_raw())).unwrap().unwrap();
    let me = Account { shell: "/bin/sh".into(), ..me };

    let mut times: [Vec<Duration>; 10] = Default::default();
    for _ in 0..rounds {
        times[0].push(timed(|| {
            assert!(Command::new("/bin/sh").args(["-c", "true"]).status().unwrap().success())
        }));
        times[1].push(timed(|| {
            drop(Command::new("/bin/sh").args(["-c", "true"]).stdin(Stdio::null()).output().unwrap());
        }));
        times[2].push(timed(|| runtime.block_on(run(&engine, &me, JobRequest::line("true"), &[]))));
        times[3].push(timed(|| drop(Command::new("/bin/true").stdin(Stdio::null()).output().unwrap())));
        times[4].push(timed(|| runtime.block_on(run(&engine, &me, JobRequest::argv(["/bin/true"]), &[]))));
        let start = Instant::now();
        let job = runtime.block_on(async {
            start_job(&engine, &me, JobRequest::argv(["/bin/true"]), Arc::new(Notify::new()))
        });
        times[5].push(start.elapsed());
        runtime.block_on(job.wait());
        for job_control in [false, true] {
            let which = 6 + 2 * usize::from(job_control);
            let terminal = Some(Terminal { job_control, ..Terminal::default() });
            let request = JobRequest { terminal, ..JobRequest::argv(["/bin/true"]) };
            times[which].push(timed(|| runtime.block_on(run(&engine, &me, request.clone(), &[]))));
            let start = Instant::now();
            let job = runtime.block_on(async { start_job(&engine, &me, request, Arc::new(Notify::new())) });
            times[which + 1].push(start.elapsed());
            runtime.block_on(job.wait());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let [bare, piped, ours, true_piped, true_ours, start, terminal, terminal_start, led, led_start] =
        &mut times;
    let (bare, piped, ours) = (median(bare), median(piped), median(ours));
    println!("sh -c true: std status {bare:?}, std output {piped:?}, engine {ours:?}");
    println!("  ratio to status {:.2}, to output {:.2}", ratio(ours, bare), ratio(ours, piped));
    let (true_piped, true_ours, start) = (median(true_piped), median(true_ours), median(start));
    println!("/bin/true: std output {true_piped:?}, engine {true_ours:?}, start alone {start:?}");
    println!("  ratio {:.2}", ratio(true_ours, true_piped));
    let (terminal, terminal_start) = (median(terminal), median(terminal_start));
    let (led, led_start) = (median(led), median(led_start));
    println!("on a terminal: {terminal:?}, start alone {terminal_start:?}");
    println!("  with job control: {led:?}, start alone {led_start:?}");

    let line = format!("exec dd if=/dev/zero bs=128K count={} status=none", mebibytes * 8);
    let mut bulk: [Vec<Duration>; 5] = Default::default();
    let input = bytes::Bytes::from(vec![7; 1 << 20]);
    for _ in 0..3 {
        bulk[0].push(timed(|| {
            let mut child =
                Command::new("/bin/sh").args(["-c", &line]).stdout(Stdio::piped()).spawn().unwrap();
            read_all(child.stdout.as_mut().unwrap(), None);
            child.wait().unwrap();
        }));
        bulk[1].push(timed(|| {
            let mut child =
                Command::new("/bin/sh").args(["-c", &line]).stdout(Stdio::piped()).spawn().unwrap();
            read_all(child.stdout.as_mut().unwrap(), Some(blake3::Hasher::new()));
            child.wait().unwrap();
        }));
        bulk[2].push(timed(|| runtime.block_on(run(&engine, &me, JobRequest::line(line.as_str()), &[]))));
        bulk[3].push(timed(|| {
            let mut child = Command::new("/bin/sh")
                .args(["-c", "exec cat >/dev/null"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            for _ in 0..mebibytes {
                stdin.write_all(&input).unwrap();
            }
            drop(stdin);
            child.wait().unwrap();
        }));
        bulk[4].push(timed(|| {
            let mut request = JobRequest::line("exec cat >/dev/null");
            request.stdin = Stdin::Piped;
            runtime.block_on(run(&engine, &me, request, &vec![input.clone(); mebibytes]));
        }));
    }
    let rate = |times: &mut Vec<Duration>| mebibytes as f64 / median(times).as_secs_f64();
    let [plain, hashed, ours, stdin, stdin_ours] = &mut bulk;
    let (plain, hashed, ours, stdin, stdin_ours) =
        (rate(plain), rate(hashed), rate(ours), rate(stdin), rate(stdin_ours));
    println!(
        "stdout: pipe {plain:.0} MiB/s, with a digest {hashed:.0}, engine {ours:.0}: {:.2}",
        ours / plain
    );
    println!("stdin: pipe {stdin:.0} MiB/s, engine {stdin_ours:.0}: {:.2}", stdin_ours / stdin);
}

fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn ratio(ours: Duration, floor: Duration) -> f64 {
    ours.as_secs_f64() / floor.as_secs_f64()
}

fn read_all(from: &mut impl Read, mut digest: Option<blake3::Hasher>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => break,
            n => {
                if let Some(digest) = &mut digest {
                    digest.update(&buffer[..n]);
                }
            }
        }
    }
}

fn start_job(engine: &Engine, me: &Account, request: JobRequest, bell: Arc<Notify>) -> remora_engine::Job {
    let who = Authenticated::by_peer_uid(me.uid, me, &me.name).unwrap();
    let permitted = Policy::serving(me.clone()).permit(&who, request).unwrap();
    engine.start(permitted, Limits::default(), Arc::new(move || bell.notify_one())).unwrap()
}

/// Runs a job to its end, giving input and acknowledging output as it comes.
async fn run(engine: &Engine, me: &Account, request: JobRequest, input: &[bytes::Bytes]) {
    let bell = Arc::new(Notify::new());
    let job = start_job(engine, me, request, Arc::clone(&bell));
    let mut given = 0;
    let mut pieces =
        input.iter().flat_map(|piece| piece.chunks(256 * 1024).map(|part| piece.slice_ref(part))).peekable();
    loop {
        while let Some(piece) = pieces.next_if(|piece| given + piece.len() as u64 <= job.input_limit()) {
            let end = given + piece.len() as u64;
            job.write(given, piece).unwrap();
            given = end;
        }
        if pieces.peek().is_none() {
            job.end_input(given).unwrap();
        }
        let finished = job.finished();
        for which in Output::ALL {
            let produced = job.produced(which);
            job.acknowledge(which, produced);
        }
        match finished {
            Some(_) => return,
            None => bell.notified().await,
        }
    }
}
