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
fn an_existing_file_is_kept_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "old").unwrap();
    let json = "{\"total_size\":3,\"filename\":\"a.txt\"}";
    let output = save(folder.path(), &[], json, b"new");
    // What came was whole: the fault is this machine's.
    assert_eq!(status(&output), 199);
    let name = file.to_str().unwrap();
    assert!(
        stderr(&output).contains(&format!("internal: the reply is not stored: {name} exists already")),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("hint: --overwrite replaces it"), "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).unwrap(), b"old");
    let output = save(folder.path(), &["--overwrite"], json, b"new");
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn nothing_is_stored_of_a_reply_that_is_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = "0".repeat(32);
    for (json, payload) in [
        ("{\"total_size\":5,\"filename\":\"a.txt\"}".to_owned(), &b"he"[..]),
        (format!("{{\"total_size\":2,\"filename\":\"a.txt\",\"md5\":\"{wrong}\"}}"), b"he"),
    ] {
        let output = save(folder.path(), &[], &json, payload);
        assert_eq!(status(&output), 198, "{}", stderr(&output));
        assert_eq!(names(folder.path()), [""; 0]);
    }
    for json in
        ["{\"total_size\":2}", "{\"total_size\":2,\"filename\":\"..\"}", "{\"total_size\":2,\"filename\":7}"]
    {
        let output = save(folder.path(), &[], json, b"he");
        assert_eq!(status(&output), 197, "{}", stderr(&output));
        assert_eq!(names(folder.path()), [""; 0]);
    }
}

#[test]
fn a_folder_that_is_not_there_is_found_out_before_anything_is_sent() {
    let output = remora(&["exec", "--save", "/nonexistent/folder", "header://127.0.0.1:1", "x"]);
    assert_eq!(status(&output), 193);
}
