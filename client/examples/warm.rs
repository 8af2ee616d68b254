//! Times `true` over one open connection, beside the same command spawned here: `warm TARGET_SOCKET|HOST:PORT RUNS`.
//!
//! Prints one line: medians in microseconds of the local spawn and of the remote job, taken in turn.

#![allow(clippy::print_stdout, reason = "its output is the measurement")]

use std::process::{Command, Stdio};
use std::time::Instant;

use remora_client::{HostTrust, Options, Request, Signer, UserKey, connect, connect_unix};
use remora_identity::KeyFile;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, user, key, runs] = arguments.as_slice() else {
        return Err("usage: warm SOCKET|ADDRESS:PORT USER KEYFILE|- RUNS".into());
    };
    let runs: usize = runs.parse()?;
    let opened = if let Some((host, port)) = target.rsplit_once(':') {
        let file = KeyFile::parse(&std::fs::read(key)?)?;
        let public = file.public.clone();
        let signer = Signer::Key(file.into_plain().ok_or("the key is under a passphrase")?);
        let options = Options {
            user: user.clone(),
            // The server is the measurement's own, on loopback.
            trust: HostTrust { accept_new: true, ..HostTrust::default() },
            keys: vec![UserKey { public, signer, source: key.clone() }],
            sure: true,
            connect_timeout: std::time::Duration::from_secs(10),
            observer: None,
            tap: None,
        };
        connect(host, port.parse()?, options).await?
    } else {
        connect_unix(target.as_ref(), user, None).await?
    };
    let (mut local, mut remote) = (Vec::new(), Vec::new());
    for run in 0..runs + 20 {
        let start = Instant::now();
        let status = Command::new("/bin/sh")
            .args(["-c", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .output()?;
        let spawned = start.elapsed();
        let start = Instant::now();
        let mut id = [0; 16];
        id.iter_mut().zip(run.to_be_bytes()).for_each(|(to, from)| *to = from);
        let mut job = opened.connection.start(id, Request::argv(["/bin/sh", "-c", "true"]))?;
        let (mut stdout, mut stderr) = (job.stdout().ok_or("taken")?, job.stderr().ok_or("taken")?);
        let (out, err, finished) = tokio::join!(stdout.next(), stderr.next(), job.wait());
        let finished = finished?;
        let ran = start.elapsed();
        if !status.status.success() || out.is_some() || err.is_some() || finished.receipt.outcome.is_none() {
            return Err("true failed".into());
        }
        // The first ones warm caches and allocators.
        if run >= 20 {
            local.push(spawned.as_secs_f64() * 1e6);
            remote.push(ran.as_secs_f64() * 1e6);
        }
    }
    println!("{:.1} {:.1}", median(&mut local), median(&mut remote));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
