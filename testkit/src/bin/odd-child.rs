//! A child process with the habits that tests need: `remora-odd-child MODE…`.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

const HELP: &str = "\
exit STATUS              end with a status
die SIGNAL               die by a signal's number
ignore-term MILLIS       ignore SIGTERM, print `ready`, sleep
ignore-term-too MILLIS   leave a child in the group that ignores SIGTERM and holds nothing open; print its pid, sleep
grandchild FILE DELAY BYTES
                         leave a child that holds stdout, prints BYTES of the pattern after DELAY ms, then notes in
                         FILE how that went; end at once
hold MILLIS              leave a child that holds stdout and stderr for that long; print its pid, end at once
close-stdout TEXT        print `out`, close stdout, wait 50 ms, print TEXT on stderr
flood OUT ERR            print so many bytes of the pattern on stdout, then on stderr
drip COUNT               print so many bytes of the pattern, one a write
fds                      list open descriptors, one a line
environment, cwd, argv   print them, each entry ended by NUL
signals                  print the SigBlk, SigIgn and SigPnd lines of /proc/self/status
ids                      print pid, process group, session and `tty` or `no tty`
limits                   print /proc/self/limits
umask                    print the umask in octal
sleep MILLIS             print `ready`, sleep
echo                     copy stdin to stdout
count                    read stdin to its end, print how many bytes it was
close-stdin MILLIS       close stdin, print `closed`, sleep
burn MILLIS MEBIBYTES    use so much processor time and memory
";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(io::stderr(), "odd-child: {error}");
            ExitCode::from(99)
        }
    }
}

fn run(arguments: &[OsString]) -> io::Result<u8> {
    let mode = arguments.first().and_then(|mode| mode.to_str()).unwrap_or_default();
    let number = |index: usize| -> u64 {
        arguments.get(index).and_then(|text| text.to_str()).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let mut out = io::stdout().lock();
    match mode {
        "exit" => return Ok(number(1) as u8),
        "die" => {
            if let Some(signal) = rustix::process::Signal::from_named_raw(number(1) as i32) {
                // Twice: the first SIGSEGV only takes away the handler that Rust installs against stack overflows.
                rustix::process::kill_process(rustix::process::getpid(), signal)?;
                rustix::process::kill_process(rustix::process::getpid(), signal)?;
            }
            sleep(10_000);
        }
        "ignore-term" => {
            let trap = r#"trap "" TERM; exec "$0" sleep "$1""#;
            let millis = number(1).to_string();
            return Err(Command::new("/bin/sh").args(["-c", trap]).arg(own()?).arg(millis).exec());
        }
        "ignore-term-too" => {
            let millis = number(1).to_string();
            let mut child = Command::new(own()?);
            child.args(["ignore-term", &millis]).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = child.stderr(Stdio::null()).spawn()?;
            // Its `ready` says that it ignores the signal by now.
            if let Some(ready) = &mut child.stdout {
                ready.read_exact(&mut [0; 5])?;
            }
            writeln!(out, "{}", child.id())?;
            out.flush()?;
            sleep(number(1));
        }
        "grandchild" => {
            let mut child = Command::new(own()?);
            child.arg("report").args(arguments.get(1..).unwrap_or_default());
            child.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        }
        "report" => {
            sleep(number(2));
            let result = flood(&mut out, number(3));
            let report = result.map_or_else(|error| error.to_string(), |()| "written".to_owned());
            let file = Path::new(arguments.get(1).map_or("", |file| file.to_str().unwrap_or_default()));
            let draft = file.with_extension("draft");
            std::fs::write(&draft, report)?;
            std::fs::rename(draft, file)?;
        }
        "hold" => {
            let millis = number(1).to_string();
            let child = Command::new(own()?).args(["quiet", &millis]).stdin(Stdio::null()).spawn()?;
            writeln!(out, "{}", child.id())?;
        }
        "quiet" => sleep(number(1)),
        "close-stdout" => {
            out.write_all(b"out")?;
            out.flush()?;
            rustix::stdio::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
            sleep(50);
            io::stderr().write_all(arguments.get(1).map(|text| text.as_bytes()).unwrap_or_default())?;
        }
        "flood" => {
            flood(&mut out, number(1))?;
            flood(&mut io::stderr(), number(2))?;
        }
        "drip" => {
            let bytes = remora_testkit::pattern(number(1) as usize);
            for byte in bytes.chunks(1) {
                rustix::io::write(rustix::stdio::stdout(), byte)?;
            }
        }
        "fds" => {
            let entries = std::fs::read_dir("/proc/self/fd")?.flatten();
            let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
            names.retain(|name| Path::new("/proc/self/fd").join(name).read_link().is_ok());
            names.sort();
            for name in names {
                writeln!(out, "{}", name.display())?;
            }
        }
        "environment" => {
            for (name, value) in std::env::vars_os() {
                out.write_all(&[name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat())?;
            }
        }
        "cwd" => out.write_all(&[std::env::current_dir()?.into_os_string().into_vec(), vec![0]].concat())?,
        "argv" => {
            for argument in std::env::args_os() {
                out.write_all(&[argument.as_bytes(), b"\0"].concat())?;
            }
        }
        "signals" => {
            let status = std::fs::read_to_string("/proc/self/status")?;
            for line in status
                .lines()
                .filter(|line| ["SigBlk", "SigIgn", "SigPnd"].iter().any(|name| line.starts_with(name)))
            {
                writeln!(out, "{line}")?;
            }
        }
        "ids" => {
            let tty = std::fs::File::open("/dev/tty").is_ok();
            let id = |pid: rustix::process::Pid| pid.as_raw_nonzero();
            writeln!(
                out,
                "{} {} {} {}",
                id(rustix::process::getpid()),
                id(rustix::process::getpgrp()),
                id(rustix::process::getsid(None)?),
                if tty { "tty" } else { "no tty" }
            )?;
        }
        "limits" => out.write_all(&std::fs::read("/proc/self/limits")?)?,
        "umask" => {
            let mask = rustix::process::umask(rustix::fs::Mode::empty());
            writeln!(out, "{:03o}", mask.bits())?;
        }
        "sleep" => {
            out.write_all(b"ready\n")?;
            out.flush()?;
            sleep(number(1));
        }
        "echo" => {
            io::copy(&mut io::stdin().lock(), &mut out)?;
        }
        "count" => {
            let count = io::copy(&mut io::stdin().lock(), &mut io::sink())?;
            writeln!(out, "{count}")?;
        }
        "close-stdin" => {
            rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
            out.write_all(b"closed\n")?;
            out.flush()?;
            sleep(number(1));
        }
        "burn" => burn(number(1), number(2)),
        _ => {
            out.write_all(HELP.as_bytes())?;
            return Ok(98);
        }
    }
    out.flush()?;
    Ok(0)
}

fn own() -> io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

fn flood(to: &mut impl Write, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut done = 0;
    while done < length {
        let step = buffer.len().min((length - done) as usize);
        let piece = buffer.get_mut(..step).unwrap_or_default();
        remora_testkit::fill_pattern(done, piece);
        to.write_all(piece)?;
        done += step as u64;
    }
    to.flush()
}

/// Uses processor time in user mode, and touches memory.
fn burn(millis: u64, mebibytes: u64) {
    let mut memory = vec![1_u8; (mebibytes as usize) << 20];
    let page = 4096;
    for byte in memory.iter_mut().step_by(page) {
        *byte = 2;
    }
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let end = used() + Duration::from_millis(millis);
    let mut sum = 0_u64;
    while used() < end {
        for byte in memory.iter().take(1 << 16) {
            sum = std::hint::black_box(sum.wrapping_add(u64::from(*byte)));
        }
    }
    std::hint::black_box(memory);
}
