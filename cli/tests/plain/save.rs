//! `--save`.

use std::path::Path;

use crate::bench::{framed, remora, sending, status, stderr, stdout};

fn save(folder: &Path, options: &[&str], json: &str, payload: &[u8]) -> std::process::Output {
    let url = format!("header://{}", sending(framed(json, payload)));
    remora(&[&["exec", "--save", folder.to_str().unwrap()], options, &[&url, "x"]].concat())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_payload_is_stored_under_a_safe_name() {
    for (given, stored) in [
        ("report.txt", "report.txt"),
        ("../../etc/passwd", "passwd"),
        ("/abs/olute", "olute"),
        (".ssh", "ssh"),
        ("-rf", "rf"),
        ("C:\\\\x\\\\a.doc", "a.doc"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let output = save(&inner, &[], &format!("{{\"total_size\":2,\"filename\":\"{given}\"}}"), b"\xff\0");
        assert_eq!((status(&output), stdout(&output).as_str()), (0, ""), "{}", stderr(&output));
        assert_eq!(names(&inner), [stored]);
        assert_eq!(std::fs::read(inner.join(stored)).unwrap(), b"\xff\0");
        assert_eq!(names(folder.path()), ["inner"]);
        assert!(stderr(&output).contains(stored));
    }
}

#[test]
fn an_existing_file_is_kept_unless_told_otherwise_and_so_is_the_reply() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "old").unwrap();
    let json = "{\"total_size\":3,\"filename\":\"a.txt\",\"exit_code\":4,\"signal\":null}";
    for (number, payload) in [(1, b"one"), (2, b"two")] {
        let output = save(folder.path(), &[], json, payload);
        // The status stays the command's.
        assert_eq!(status(&output), 4, "{}", stderr(&output));
        let next = folder.path().join(format!("a.{number}.txt"));
        assert_eq!(
            stderr(&output),
            format!("remora: stored 3 bytes in {}; {} exists already\n", next.display(), file.display())
        );
        assert_eq!(std::fs::read(&next).unwrap(), payload);
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"old");
    let output = save(folder.path(), &["--overwrite"], json, b"new");
    assert_eq!(status(&output), 4, "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a.1.txt", "a.2.txt", "a.txt"]);
}

#[test]
fn a_reply_without_a_name_that_can_be_used_is_stored_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (at, (members, why)) in [
        ("", "the reply names no file"),
        (",\"filename\":\"\"", "the reply names no file"),
        (",\"filename\":7", "the reply names no file"),
        (",\"filename\":\"..\"", "no file can be called '..'"),
        (",\"filename\":\"..\",\"exit_code\":null", "no file can be called '..'"),
    ]
    .into_iter()
    .enumerate()
    {
        let output = save(folder.path(), &[], &format!("{{\"total_size\":1{members}}}"), &[b'0' + at as u8]);
        // How it ended being unknown is no reason to lose what came.
        assert_eq!(status(&output), if at == 4 { 198 } else { 0 }, "{}", stderr(&output));
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
        let name = if at == 0 { "reply".to_owned() } else { format!("reply.{at}") };
        assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), [b'0' + at as u8]);
    }
}

#[test]
fn what_was_not_announced_is_not_stored_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let json = format!("{{\"total_size\":2,\"filename\":\"a.txt\",\"md5\":\"{}\"}}", "0".repeat(32));
    let output = save(folder.path(), &[], &json, b"he");
    assert_eq!(status(&output), 198, "{}", stderr(&output));
    let part = folder.path().join("a.txt.part");
    let words = format!("md5 digest differs; stored 2 bytes in {}, not under its name\n", part.display());
    assert!(stderr(&output).ends_with(&words), "{}", stderr(&output));
    assert_eq!(names(folder.path()), ["a.txt.part"]);
}

#[test]
fn nothing_is_stored_of_a_reply_that_is_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let output = save(folder.path(), &[], "{\"total_size\":5,\"filename\":\"a.txt\"}", b"he");
    assert_eq!(status(&output), 198, "{}", stderr(&output));
    assert!(stderr(&output).contains("; nothing is stored"), "{}", stderr(&output));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_folder_that_is_not_there_is_found_out_before_anything_is_sent() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (folder, why) in [
        ("/nonexistent/folder", "No such file or directory"),
        (file.path().to_str().unwrap(), "it is no directory"),
    ] {
        // Nobody listens there.
        let output = remora(&["exec", "--save", folder, "header://127.0.0.1:1", "x"]);
        assert_eq!(status(&output), 193);
        let text = stderr(&output);
        assert!(text.contains(&format!("usage: can't store a file in {folder}: {why}")), "{text}");
        assert!(!text.contains(".remora-"), "{text}");
    }
}
