//! `remora receipt verify`: whether a receipt, and saved output, are what a known host has signed.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use remora_client::{DEFAULT_PORT, PublicKey, Target, exit_status};
use remora_identity::known_hosts::{KnownAs, Recorded, Verdict};
use remora_identity::sshsig::SshsigError;
use remora_identity::statement::{Statement, Stream, VerifyStatementError, verify};
use remora_identity::{KnownHosts, sshsig};
use serde_json::{Value, json};

use super::super::folder;
use super::read::{Wrong, open, open_regular, read, unreadable};
use crate::arguments::Verify;
use crate::host_keys;
use crate::printable::{chain, escape};
use crate::terminal::{Failure, print, say};

/// Exit status of a receipt that isn't good.
const NOT_GOOD: u8 = 1;
/// Names of hosts that are told at the most.
const NAMES: usize = 5;

/// Checks, tells, and gives the process' exit status.
pub(crate) fn run(arguments: &Verify) -> u8 {
    let judged = match judge(arguments) {
        Ok(judged) => judged,
        Err(failure) => {
            failure.print();
            return exit_status(&failure.outcome, false);
        }
    };
    if let Err(wrong) = &judged {
        wrong.print(&arguments.file);
    }
    let text = if arguments.json {
        object(arguments, &judged).to_string() + "\n"
    } else {
        judged.as_ref().map(Good::told).unwrap_or_default()
    };
    if let Err(error) = print(&text) {
        say(&format!("can't write standard output: {error}"));
        return exit_status(&remora_client::Outcome::Failed(remora_client::Class::Internal), false);
    }
    if judged.is_ok() { 0 } else { NOT_GOOD }
}

/// What was found good.
struct Good {
    key: PublicKey,
    /// Under which names, and where.
    known: Vec<String>,
    /// Stream, file and length of saved output.
    output: Vec<(&'static str, String, u64)>,
}

impl Good {
    fn told(&self) -> String {
        let (kind, fingerprint) = (self.key.algorithm(), self.key.fingerprint());
        let mut text =
            format!("good: signed with the {kind} key {fingerprint} of {}\n", self.known.join("; "));
        for (stream, file, length) in &self.output {
            text.push_str(&format!("good: {file} is its {stream}, {length} bytes\n"));
        }
        text
    }
}

fn object(arguments: &Verify, judged: &Result<Good, Wrong>) -> Value {
    let file = arguments.file.display().to_string();
    match judged {
        Ok(good) => json!({
            "schema": super::SCHEMA,
            "file": file,
            "good": true,
            "host_key": good.key.fingerprint(),
            "known_as": good.known,
            "output": good.output.iter().map(|(stream, ..)| *stream).collect::<Vec<_>>(),
        }),
        Err(wrong) => json!({
            "schema": super::SCHEMA,
            "file": file,
            "good": false,
            "text": wrong.text,
            "hint": wrong.hint,
        }),
    }
}

fn judge(arguments: &Verify) -> Result<Result<Good, Wrong>, Failure> {
    let host = arguments.host.as_deref().map(named).transpose()?;
    let files = host_keys::files(arguments.known_hosts.as_deref());
    if let Some(path) = &arguments.known_hosts {
        // One that was named and isn't there knows nobody, which would be told as if the host were unknown.
        open(path)?;
    }
    let known_hosts = host_keys::read(&files)?;
    let Files { receipt, stdout, stderr } = Files::of(arguments);
    if arguments.file.is_dir() && !receipt.is_file() {
        return Ok(Err(Wrong::new("it holds no whole command: there is no receipt in it")));
    }
    let (file, statement) = match read(&receipt)? {
        Ok(read) => read,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let Some(signature) = &file.sshsig else {
        return Ok(Err(unsigned(&statement)));
    };
    let key = match sshsig::claimed_key(signature) {
        Ok(key) => key,
        Err(error) => return Ok(Err(Wrong::new(format!("its signature is damaged: {}", chain(&error))))),
    };
    match verify(&file.statement, signature, &key) {
        Ok(_) => {}
        Err(VerifyStatementError::Signature(SshsigError::Signature(_))) => {
            let text = "its signature is not good: it was changed after it was signed, or is no host's";
            return Ok(Err(Wrong::new(text)));
        }
        Err(error) => return Ok(Err(Wrong::new(chain(&error)))),
    }
    let known = match host {
        Some((host, port)) => known_to_be(&known_hosts, &key, &host, port),
        None => known_at_all(&known_hosts, &key),
    };
    let known = match known {
        Ok(known) => known,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let mut output = Vec::new();
    let streams = [("stdout", &stdout, &statement.stdout), ("stderr", &stderr, &statement.stderr)];
    for (name, path, stream) in streams {
        let Some(path) = path else { continue };
        match compare(name, path, stream.as_ref(), !arguments.file.is_dir())? {
            Ok(length) => output.push((name, escape(&path.display().to_string()), length)),
            Err(wrong) => return Ok(Err(kept_less(wrong, &statement))),
        }
    }
    Ok(Ok(Good { key, known, output }))
}

/// What is shorter than it should be may be so by what the receipt says itself.
fn kept_less(wrong: Wrong, statement: &Statement) -> Wrong {
    match &statement.spool {
        Some(spool) if spool.lost.is_some() || spool.stdout_start > 0 || spool.stderr_start > 0 => wrong
            .with_hint(format!("the receipt says that the host kept less than was printed: spool {spool}")),
        _ => wrong,
    }
}

/// What is to be checked.
struct Files {
    receipt: PathBuf,
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
}

impl Files {
    /// Of a command that was kept in a folder: all that is in there.
    fn of(arguments: &Verify) -> Self {
        let Verify { file, stdout, stderr, .. } = arguments;
        let (mut receipt, mut stdout, mut stderr) = (file.clone(), stdout.clone(), stderr.clone());
        if file.is_dir() {
            receipt = file.join(folder::RECEIPT);
            stdout = stdout.or_else(|| Some(file.join(folder::STDOUT)));
            stderr = stderr.or_else(|| Some(file.join(folder::STDERR)));
        }
        Files { receipt, stdout, stderr }
    }
}

fn unsigned(statement: &Statement) -> Wrong {
    match &statement.host_key {
        None => Wrong::new(
            "it is not signed: its connection had no host key (local, unix:), so it proves nothing to others",
        ),
        Some(_) => Wrong::new("its signature is missing"),
    }
}

/// The host that a person names.
fn named(text: &str) -> Result<(String, u16), Failure> {
    match text.parse() {
        Ok(Target::Native { user: None, host, port }) => Ok((host, port.unwrap_or(DEFAULT_PORT))),
        Ok(_) => Err(Failure::usage(format!("--host: '{}' is no host with a key", escape(text)))),
        Err(error) => Err(Failure::usage(format!("--host: {}", chain(&error)))),
    }
}

fn place(recorded: &Recorded) -> String {
    format!("{} line {}", escape(&recorded.source), recorded.line)
}

/// The key must be this host's.
fn known_to_be(known: &KnownHosts, key: &PublicKey, host: &str, port: u16) -> Result<Vec<String>, Wrong> {
    let name = match port {
        DEFAULT_PORT => escape(host),
        port => format!("{}:{port}", escape(host)),
    };
    let fingerprint = key.fingerprint();
    let others = names(&known.known_as(key));
    let others = match others.is_empty() {
        true => "no other host is known by it either".to_owned(),
        false => format!("it is the key of {}", others.join("; ")),
    };
    match known.lookup(host, port).judge(key) {
        Verdict::Trusted { by } => Ok(vec![format!("{name} ({})", place(&by))]),
        Verdict::Revoked { by } => Err(Wrong::new(format!(
            "it is signed with the key {fingerprint}, which is revoked ({})",
            place(&by)
        ))),
        Verdict::Mismatch { recorded } => Err(Wrong::new(format!(
            "it is signed with the key {fingerprint}, which is not the key of {name}{}",
            recorded.first().map(|first| format!(" ({})", place(first))).unwrap_or_default()
        ))
        .with_hint(others)),
        Verdict::Unknown { .. } => Err(Wrong::new(format!(
            "it is signed with the key {fingerprint}, and no such key is known for {name}"
        ))
        .with_hint(others)),
    }
}

/// The key must be any host's.
fn known_at_all(known: &KnownHosts, key: &PublicKey) -> Result<Vec<String>, Wrong> {
    let fingerprint = key.fingerprint();
    let all = known.known_as(key);
    if let Some(revoked) = all.iter().find(|line| line.revoked) {
        return Err(Wrong::new(format!(
            "it is signed with the key {fingerprint}, which is revoked ({})",
            place(&revoked.recorded)
        )));
    }
    if all.is_empty() {
        return Err(Wrong::new(format!(
            "it is signed with the key {fingerprint}, and no host is known by that"
        ))
        .with_hint("compare it with the host's (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub), or name the file that has it with --known-hosts"));
    }
    Ok(names(&all))
}

/// Under which names a key is known, and where.
fn names(all: &[KnownAs]) -> Vec<String> {
    let mut names: Vec<String> = all
        .iter()
        .take(NAMES)
        .map(|line| {
            let name = line.names.as_deref().map_or_else(|| "a host whose name is hashed".to_owned(), escape);
            format!("{name} ({})", place(&line.recorded))
        })
        .collect();
    if all.len() > NAMES {
        names.push(format!("{} more", all.len() - NAMES));
    }
    names
}

/// Whether a file holds what passed on a stream; its length where it does.
pub(in crate::commands) fn compare(
    name: &str,
    path: &Path,
    stream: Option<&Stream>,
    may_flow: bool,
) -> Result<Result<u64, Wrong>, Failure> {
    let mut file = match open_regular(path) {
        Ok(file) => file,
        // A pipe or a device that was named as what was saved is read as it comes.
        Err(_) if may_flow => open(path)?,
        Err(error) => {
            let shown = escape(&path.display().to_string());
            return Ok(Err(Wrong::new(format!("{shown} can't be its {name}: {error}"))));
        }
    };
    let told = stream.map_or(0, |stream| stream.length);
    let counted = count(&mut file, told).map_err(|error| unreadable(path, &error))?;
    let is_same = |digest: blake3::Hash| stream.is_none_or(|stream| stream.blake3 == *digest.as_bytes());
    let Counted { length, digest } = counted;
    let why = match length.cmp(&told) {
        std::cmp::Ordering::Equal if is_same(digest) => return Ok(Ok(length)),
        std::cmp::Ordering::Equal => format!("it is as long, {told} bytes, and differs"),
        std::cmp::Ordering::Less => format!("it is shorter: {length} bytes, the receipt says {told}"),
        std::cmp::Ordering::Greater if told > 0 && is_same(digest) => {
            format!("it is longer: {length} bytes, the receipt says {told}; the first {told} are right")
        }
        std::cmp::Ordering::Greater => {
            let more = if told > 0 { "; these differ, too" } else { "" };
            format!("it is longer: {length} bytes, the receipt says {told}{more}")
        }
    };
    let wrong = Wrong::new(format!("{} is not its {name}: {why}", escape(&path.display().to_string())));
    Ok(Err(match stream {
        Some(stream) if stream.closed_early => wrong.with_hint(format!(
            "{name} was closed before its end: not all that the receipt tells of was taken"
        )),
        _ => wrong,
    }))
}

struct Counted {
    /// Of all.
    length: u64,
    /// Of the first bytes, as many as were asked about.
    digest: blake3::Hash,
}

fn count(file: &mut impl Read, upto: u64) -> io::Result<Counted> {
    let mut hasher = blake3::Hasher::new();
    let mut length: u64 = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(Counted { length, digest: hasher.finalize() }),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let asked = usize::try_from(upto.saturating_sub(length)).unwrap_or(usize::MAX).min(count);
        hasher.update(buffer.get(..asked).unwrap_or_default());
        length += count as u64;
    }
}
