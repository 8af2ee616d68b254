//! The committed Rust code is what the `.proto` file says.

#[test]
fn committed_code_matches_the_proto_file() {
    let committed = std::fs::read_to_string(remora_protogen::committed()).unwrap();
    let generated = remora_protogen::generate().unwrap();
    assert!(committed == generated, "run `cargo run -p remora-protogen` and commit wire/src/native/proto.rs");
}
