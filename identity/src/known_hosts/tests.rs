//! Verdicts: who is trusted, unknown, refused.

use super::*;
use crate::private_key::PrivateKey;

fn key() -> PublicKey {
    PrivateKey::generate_ed25519().unwrap().public().clone()
}

fn known(lines: &[(&str, &PublicKey)]) -> KnownHosts {
    let text: String = lines.iter().map(|(names, key)| format!("{names} {}\n", key.to_text())).collect();
    let known = KnownHosts::parse("known_hosts", text.as_bytes()).unwrap();
    assert!(known.problems().is_empty(), "{:?}", known.problems());
    known
}

fn judge(lines: &[(&str, &PublicKey)], presented: &PublicKey) -> Verdict {
    known(lines).lookup("web3", 7366).judge(presented)
}

fn line_of(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Trusted { by } | Verdict::Revoked { by } => by.line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_key_recorded_for_this_port_is_trusted() {
    let (a, b) = (key(), key());
    assert_eq!(line_of(&judge(&[("web3", &b), ("[web3]:7366", &a)], &a)), 2);
    assert_eq!(line_of(&judge(&[("other,[WEB3]:7366,x", &a)], &a)), 1);
}

#[test]
fn any_of_several_keys_of_a_host_is_trusted() {
    let (a, b) = (key(), key());
    assert_eq!(line_of(&judge(&[("[web3]:7366", &a), ("[web3]:7366", &b)], &b)), 2);
}

#[test]
fn another_key_than_the_one_recorded_for_this_port_is_refused() {
    let (a, b) = (key(), key());
    let verdict = judge(&[("[web3]:7366", &a)], &b);
    assert!(matches!(&verdict, Verdict::Mismatch { recorded } if recorded[0].line == 1), "{verdict:?}");
    assert!(!verdict.may_accept_new());
}

#[test]
fn where_this_port_has_a_key_the_plain_name_does_not_help_another() {
    let (a, b) = (key(), key());
    assert!(matches!(judge(&[("[web3]:7366", &a), ("web3", &b)], &b), Verdict::Mismatch { .. }));
    assert!(matches!(judge(&[("web3", &b), ("[web3]:7366", &a)], &b), Verdict::Mismatch { .. }));
}

#[test]
fn the_plain_name_is_trusted_where_this_port_has_no_key() {
    let (a, b) = (key(), key());
    assert_eq!(line_of(&judge(&[("[web3]:2222", &b), ("web3", &a)], &a)), 2);
}

#[test]
fn another_key_under_the_plain_name_is_unknown_and_not_accepted_as_new() {
    let (a, b) = (key(), key());
    let verdict = judge(&[("web3", &a)], &b);
    assert_eq!(verdict, Verdict::Unknown { plain_name_differs: true });
    assert!(!verdict.may_accept_new());
}

#[test]
fn a_host_never_seen_is_unknown_and_may_be_accepted() {
    let (a, b) = (key(), key());
    let verdict = judge(&[("web4", &a), ("[web3]:7367", &a), ("xweb3", &a), ("web", &a)], &b);
    assert_eq!(verdict, Verdict::Unknown { plain_name_differs: false });
    assert!(verdict.may_accept_new());
}

#[test]
fn a_revoked_key_is_refused_wherever_else_it_stands() {
    let a = key();
    for revoked in ["@revoked web3", "@revoked [web3]:7366", "@revoked *"] {
        assert_eq!(line_of(&judge(&[("[web3]:7366", &a), (revoked, &a)], &a)), 2, "{revoked}");
        assert!(matches!(judge(&[(revoked, &a)], &a), Verdict::Revoked { .. }));
    }
    assert!(matches!(judge(&[("web3", &a), ("@revoked web4", &a)], &a), Verdict::Trusted { .. }));
    // A revoked line for a host is no record of a key that it has.
    assert_eq!(
        judge(&[("@revoked [web3]:7366", &a)], &key()),
        Verdict::Unknown { plain_name_differs: false }
    );
}

#[test]
fn at_port_22_the_plain_name_is_the_exact_one() {
    let (a, b) = (key(), key());
    let known = known(&[("web3", &a), ("[web3]:22", &b)]);
    let keys = known.lookup("Web3", 22);
    assert_eq!((keys.exact.len(), keys.plain.len()), (1, 0));
    assert!(matches!(keys.judge(&b), Verdict::Mismatch { .. }));
}

#[test]
fn hashed_names_are_found_by_host_and_port_only() {
    let a = key();
    let salt = [3; 20];
    let text = new_line("Web3", 7366, &a, Some(&salt)).unwrap();
    assert!(text.starts_with("|1|AwMDAwMDAwMDAwMDAwMDAwMDAwM=|"), "{text}");
    let known = KnownHosts::parse("known_hosts", text.as_bytes()).unwrap();
    assert!(matches!(known.lookup("wEB3", 7366).judge(&a), Verdict::Trusted { .. }));
    for (host, port) in [("web3", 22), ("web3", 7367), ("web4", 7366)] {
        assert!(known.lookup(host, port).is_empty(), "{host} {port}");
    }
}

#[test]
fn a_recorded_key_of_a_kind_unknown_here_still_makes_another_one_a_mismatch() {
    let text = "[web3]:7366 ssh-dss AAAAB3NzaC1kc3MAAAAA\n";
    let known = KnownHosts::parse("known_hosts", text.as_bytes()).unwrap();
    let Verdict::Mismatch { recorded } = known.lookup("web3", 7366).judge(&key()) else { panic!() };
    assert_eq!((recorded[0].key_type.as_str(), &recorded[0].key), ("ssh-dss", &None));
}

#[test]
fn malformed_lines_are_reported_and_match_nothing() {
    let a = key();
    let text = format!(
        "web3\nweb3 ssh-ed25519\nweb3 ssh-ed25519 %%%\n|1|x web3 {a}\n|2|a|b {a}\n@other web3 {a}\n@cert-authority * {a}\n# web3 {a}\n \tweb3\t{a} me@home\r\n",
        a = a.to_text()
    );
    let known = KnownHosts::parse("/etc/ssh/ssh_known_hosts", text.as_bytes()).unwrap();
    let keys = known.lookup("web3", 22);
    assert_eq!(keys.exact.iter().map(|recorded| recorded.line).collect::<Vec<_>>(), [9]);
    let problems = &known.problems()[0];
    assert_eq!(&*problems.source, "/etc/ssh/ssh_known_hosts");
    assert_eq!(problems.lines.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn several_files_count_together_and_are_told_apart() {
    let (a, b) = (key(), key());
    let mut known = KnownHosts::parse("user", format!("[web3]:7366 {}", a.to_text()).as_bytes()).unwrap();
    known.read("system", format!("[web3]:7366 {}", b.to_text()).as_bytes()).unwrap();
    let Verdict::Trusted { by } = known.lookup("web3", 7366).judge(&b) else { panic!() };
    assert_eq!((&*by.source, by.line), ("system", 1));
    assert!(known.read("big", &vec![b'\n'; KNOWN_HOSTS_MAX + 1]).is_err());
}

#[test]
fn the_kinds_on_record_are_asked_for_best_first() {
    let ed = key();
    let p256 = PublicKey::from_material(crate::public_key::Material::Ecdsa {
        curve: crate::public_key::Curve::P256,
        point: vec![4; 65],
    })
    .unwrap();
    let known = known(&[("web3", &p256), ("web3", &ed), ("web3", &p256), ("[web3]:9", &p256)]);
    let both = vec![KeyAlgorithm::Ed25519, KeyAlgorithm::EcdsaP256];
    assert_eq!(
        known.lookup("web3", 22).host_key_kinds(),
        HostKeyKinds { preferred: both.clone(), only: true }
    );
    assert_eq!(known.lookup("web3", 7366).host_key_kinds(), HostKeyKinds { preferred: both, only: false });
    let only = HostKeyKinds { preferred: vec![KeyAlgorithm::EcdsaP256], only: true };
    assert_eq!(known.lookup("web3", 9).host_key_kinds(), only);
    assert_eq!(known.lookup("web5", 9).host_key_kinds(), HostKeyKinds::default());
}
