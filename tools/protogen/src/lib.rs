//! Makes `wire/src/native/proto.rs` from `wire/proto/remora.proto`.
//!
//! The result is committed, so that building remora needs neither this tool nor `protoc`; a test here compares the two.

use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the generated file is committed.
pub fn committed() -> PathBuf {
    root().join("wire/src/native/proto.rs")
}

/// The Rust source made from the `.proto` file.
///
/// # Errors
/// What the compiler says of the file, or an I/O error.
pub fn generate() -> Result<String, Box<dyn std::error::Error>> {
    let folder = root().join("wire/proto");
    let descriptors = protox::compile([folder.join("remora.proto")], [&folder])?;
    let mut config = prost_build::Config::new();
    let module = prost_build::Module::from_protobuf_package_name("remora.v1");
    let requests = descriptors.file.into_iter().map(|file| (module.clone(), file)).collect();
    let code = config.generate(requests)?.remove(&module).unwrap_or_default();
    Ok(format!(
        "// Made by tools/protogen from wire/proto/remora.proto; `./check` compares. Don't edit. It is as long as its messages are many.\n{code}"
    ))
}
