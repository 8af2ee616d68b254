//! What a statement looks like, that nothing in it can be forged, and that every change is found.

use proptest::prelude::*;

use super::*;
use crate::private_key::PrivateKey;

fn statement() -> Statement {
    let stream = |length| Some(Stream { length, blake3: [7; 32], held_open: false, closed_early: true });
    Statement {
        host: Statement::text(b"web1"),
        host_key: Some("SHA256:".to_owned() + &"a".repeat(43)),
        boot_id: [1; 16],
        job_id: [0xab; 16],
        user: Statement::text(b"ada"),
        session: Some((Statement::text(b"build"), Statement::text(b"/srv"))),
        directory: Statement::text("/srv/naïve\n".as_bytes()),
        command: Command::argv(&[b"ls".to_vec(), b"a \"b\"".to_vec(), Vec::new()]),
        outcome: Outcome::Exited(3),
        ended_by: Some(EndedBy::OutputLimit),
        pid: Some(4242),
        started_unix_ns: Some(1_764_061_308_123_456_789),
        ended_unix_ns: Some(1_764_061_309_000_000_001),
        wall_ns: 876_543_212,
        user_us: 1_500_000,
        system_us: 12,
        peak_memory_bytes: Some(65536),
        memory_limit: Some(MemoryLimit::Cgroup),
        stdin: None,
        stdout: stream(12),
        stderr: stream(0),
        spool: Some(Spool {
            on_full: OnFull::DropOldest,
            limit: 4096,
            stdout_start: 8192,
            stderr_start: 0,
            was_full: true,
            disk_was_full: false,
            lost: Some((7, 0)),
        }),
    }
}

/// The bytes are the specification (docs/RECEIPTS.md): a change here is a change of the version.
#[test]
fn this_is_how_a_statement_looks() {
    let digest = "07".repeat(32);
    let key = "a".repeat(43);
    let expected = format!(
        r#"remora-receipt-v1
host "web1"
host-key SHA256:{key}
boot-id 01010101010101010101010101010101
job abababababababababababababababab
user "ada"
session "build"
session-directory "/srv"
directory "/srv/na\xc3\xafve\n"
argv "ls" "a \"b\"" ""
outcome exited 3
step -
errno -
reason -
ended-by limit output
pid 4242
started 1764061308.123456789
ended 1764061309.000000001
wall 0.876543212
user-time 1.500000
system-time 0.000012
peak-memory 65536
memory-limit cgroup
stdin -
stdout 12 {digest} closed-early
stderr 0 {digest} closed-early
spool drop-oldest 4096 8192 0 reached lost 7 0
"#
    );
    assert_eq!(statement().compose(), expected);
    assert_eq!(Statement::parse(expected.as_bytes()), Ok(statement()));
}

#[test]
fn no_command_forges_a_line() {
    for hostile in [
        &b"x\"\noutcome exited 0\nline \""[..],
        b"\\\"\n",
        b"\r\noutcome exited 0",
        b"\0\x1b[2J\x7f\xff\xc2\x85\xe2\x80\xa8",
        b"-",
        b"",
        b"length 3 blake3 00",
        b"-----BEGIN SSH SIGNATURE-----\n",
    ] {
        for command in [Command::line(hostile), Command::argv(&[hostile.to_vec(), hostile.to_vec()])] {
            let whole = Statement { command, directory: Statement::text(hostile), ..statement() };
            let text = whole.compose();
            assert_eq!(text.lines().count(), statement().compose().lines().count(), "{text}");
            assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text:?}");
            assert!(text.lines().all(|line| !line.starts_with('-')), "{text}");
            assert_eq!(Statement::parse(text.as_bytes()), Ok(whole));
        }
    }
}

#[test]
fn what_is_long_is_told_by_length_and_digest() {
    let long = vec![b'\n'; 40_000];
    let digest = blake3::hash(&long).to_hex();
    let whole = Statement { command: Command::line(&long), ..statement() };
    let text = whole.compose();
    assert!(text.contains(&format!("\nline length 40000 blake3 {digest}\n")), "{text}");
    assert_eq!(Statement::parse(text.as_bytes()), Ok(whole));

    let arguments = vec![b"x".to_vec(); 20_000];
    let digest = blake3::hash(&b"x\0".repeat(20_000)).to_hex();
    let whole = Statement { command: Command::argv(&arguments), ..statement() };
    let text = whole.compose();
    assert!(text.contains(&format!("\nargv count 20000 length 40000 blake3 {digest}\n")), "{text}");
    assert_eq!(Statement::parse(text.as_bytes()), Ok(whole));

    // All that can be long at once still fits.
    let odd = vec![0xff; 511];
    let text = || Statement::text(&odd);
    let reason =
        Outcome::NotStarted { class: NotStarted::Internal, step: text(), errno: Some(-1), reason: text() };
    let whole = Statement {
        host: text(),
        user: text(),
        directory: text(),
        session: Some((text(), text())),
        command: Command::line(&[0xff; 4095]),
        outcome: reason,
        ..statement()
    };
    assert!(whole.command != Command::line(&[0xff; 5000]) && text().bytes().is_some());
    assert_eq!(Statement::parse(whole.compose().as_bytes()), Ok(whole));
}

#[test]
fn every_change_is_found() {
    let key = ReceiptKey::new(PrivateKey::generate_ed25519().unwrap());
    let signed = key.sign(statement()).unwrap();
    let verified = verify(signed.text.as_bytes(), &signed.sshsig, key.public()).unwrap();
    assert_eq!(verified, Statement { host_key: Some(key.public().fingerprint()), ..statement() });

    let lines: Vec<&str> = signed.text.split_inclusive('\n').collect();
    for index in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(index);
        let mut twice = lines.clone();
        twice.insert(index, lines[index]);
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let byte = changed[index].pop().map(|_| if changed[index].ends_with('0') { "1\n" } else { "0\n" });
        changed[index].pop();
        changed[index].push_str(byte.unwrap());
        for text in [without.concat(), twice.concat(), changed.concat()] {
            assert!(
                matches!(
                    verify(text.as_bytes(), &signed.sshsig, key.public()),
                    Err(VerifyStatementError::Signature(_))
                ),
                "{text}"
            );
        }
        // Unsigned, lines that are missing or doubled are no statement either.
        for text in [without.concat(), twice.concat()] {
            assert!(Statement::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
    let other = ReceiptKey::new(PrivateKey::generate_ed25519().unwrap());
    assert!(verify(signed.text.as_bytes(), &signed.sshsig, other.public()).is_err());
}

#[test]
fn a_statement_that_names_another_key_than_its_signer_does_not_count() {
    let key = PrivateKey::generate_ed25519().unwrap();
    for host_key in [None, statement().host_key] {
        let text = Statement { host_key, ..statement() }.compose();
        let sshsig = crate::sshsig::sign(&key, NAMESPACE, text.as_bytes()).unwrap();
        assert_eq!(verify(text.as_bytes(), &sshsig, key.public()), Err(VerifyStatementError::OtherKey));
    }
}

#[test]
fn a_signature_in_another_namespace_does_not_count() {
    let key = PrivateKey::generate_ed25519().unwrap();
    let text = Statement { host_key: Some(key.public().fingerprint()), ..statement() }.compose();
    let sshsig = crate::sshsig::sign(&key, "remora-auth-v1", text.as_bytes()).unwrap();
    assert_eq!(
        verify(text.as_bytes(), &sshsig, key.public()),
        Err(VerifyStatementError::Signature(crate::sshsig::SshsigError::Namespace))
    );
}

#[test]
fn other_spellings_of_the_same_are_no_statement() {
    let text = statement().compose();
    for (from, to) in [
        ("pid 4242", "pid 04242"),
        ("pid 4242", "pid +4242"),
        ("exited 3", "exited 03"),
        ("\"web1\"", "\"\\x77eb1\""),
        ("abab\n", "abAB\n"),
        ("wall 0.", "wall 00."),
        ("closed-early\n", "closed-early closed-early\n"),
        ("pid 4242", "pid  4242"),
        ("step -", "step \"x\""),
        ("session-directory \"/srv\"", "session-directory -"),
        ("remora-receipt-v1", "remora-receipt-v2"),
        ("\n", "\r\n"),
        ("\"web1\"", "\"wéb1\""),
        ("\"web1\"", "\"web1"),
        ("\"web1\"", "web1"),
        ("user-time 1.500000", "user-time 1.5"),
        ("started 1764061308", "started 99999999999999999999"),
        ("argv \"ls\" ", "argv \"ls\"  "),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(Statement::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
    assert!(Statement::parse((text.clone() + "\n").as_bytes()).is_err());
    assert!(Statement::parse(text.trim_end().as_bytes()).is_err());
    assert!(Statement::parse(&vec![b'a'; 1 << 20]).is_err());
}

#[test]
fn a_file_goes_there_and_back_and_damage_is_found() {
    let key = ReceiptKey::new(PrivateKey::generate_ed25519().unwrap());
    let SignedStatement { text, sshsig } = key.sign(statement()).unwrap();
    let file = ReceiptFile { statement: text.clone().into_bytes(), sshsig: Some(sshsig) };
    let bytes = file.compose();
    assert_eq!(ReceiptFile::parse(&bytes), Ok(file));
    for cut in text.len() + 40..bytes.len() {
        assert_eq!(ReceiptFile::parse(&bytes[..cut]), Err(ReceiptFileError::Armor), "{cut}");
    }
    assert_eq!(ReceiptFile::parse(&[&bytes[..], b"x"].concat()), Err(ReceiptFileError::Armor));
    assert_eq!(ReceiptFile::parse(&vec![0; 1 << 20]), Err(ReceiptFileError::TooLong));
    let unsigned = ReceiptFile { statement: text.into_bytes(), sshsig: None };
    assert_eq!(ReceiptFile::parse(&unsigned.compose()), Ok(unsigned));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        proptest::collection::vec(any::<u8>(), 600..700),
        "[\"\\\\\n\t -]{0,9}".prop_map(String::into_bytes),
    ]
}

fn word<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(proptest::sample::select(all))
}

fn stream() -> impl Strategy<Value = Option<Stream>> {
    let parts = (any::<u64>(), any::<[u8; 32]>(), any::<bool>(), any::<bool>());
    proptest::option::of(parts.prop_map(|(length, blake3, held_open, closed_early)| Stream {
        length,
        blake3,
        held_open,
        closed_early,
    }))
}

fn spool() -> impl Strategy<Value = Option<Spool>> {
    let parts = (
        proptest::sample::select(OnFull::ALL),
        any::<[u64; 3]>(),
        any::<[bool; 2]>(),
        any::<Option<(u64, u64)>>(),
    );
    let spool = parts.prop_map(|(on_full, [limit, stdout_start, stderr_start], [was, disk], lost)| Spool {
        on_full,
        limit,
        stdout_start,
        stderr_start,
        was_full: was,
        disk_was_full: disk,
        lost,
    });
    proptest::option::of(spool)
}

prop_compose! {
    fn any_statement()(
        texts in proptest::collection::vec(bytes(), 7),
        command in prop_oneof![
            bytes().prop_map(|line| Command::line(&line)),
            proptest::collection::vec(bytes(), 0..60).prop_map(|argv| Command::argv(&argv)),
            Just(Command::LoginShell),
        ],
        ids in any::<([u8; 16], [u8; 16])>(),
        has_session in any::<bool>(),
        ran in proptest::option::of(any::<(u8, Option<bool>)>()),
        (class, errno) in (proptest::sample::select(NotStarted::ALL), any::<Option<i32>>()),
        ended_by in word(EndedBy::ALL),
        memory_limit in word(MemoryLimit::ALL),
        optional in any::<(Option<u64>, Option<u64>, Option<u64>, Option<u64>)>(),
        numbers in any::<(u64, u64, u64)>(),
        streams in (stream(), stream(), stream()),
        spool in spool(),
    ) -> Statement {
        let text = |index: usize| Statement::text(&texts[index]);
        Statement {
            host: text(0),
            host_key: None,
            boot_id: ids.0,
            job_id: ids.1,
            user: text(1),
            session: has_session.then(|| (text(2), text(3))),
            directory: text(4),
            command,
            outcome: match ran {
                Some((status, None)) => Outcome::Exited(status),
                Some((signal, Some(core_dumped))) => Outcome::Signaled { signal, core_dumped },
                None => Outcome::NotStarted { class, step: text(5), errno, reason: text(6) },
            },
            ended_by,
            pid: optional.0,
            started_unix_ns: optional.1,
            ended_unix_ns: optional.2,
            wall_ns: numbers.0,
            user_us: numbers.1,
            system_us: numbers.2,
            peak_memory_bytes: optional.3,
            memory_limit,
            stdin: streams.0,
            stdout: streams.1,
            stderr: streams.2,
            spool,
        }
    }
}

proptest! {
    #[test]
    fn a_statement_goes_there_and_back(statement in any_statement()) {
        let text = statement.compose();
        prop_assert!(text.len() <= crate::limits::STATEMENT_MAX);
        prop_assert_eq!(Statement::parse(text.as_bytes()), Ok(statement));
    }

    #[test]
    fn what_parses_is_what_was_composed(text in "(?s).{0,200}", at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        prop_assert!(Statement::parse(text.as_bytes()).is_err());
        let mut changed = statement().compose().into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Ok(parsed) = Statement::parse(&changed) {
            prop_assert_eq!(parsed.compose().into_bytes(), changed);
        }
    }
}
