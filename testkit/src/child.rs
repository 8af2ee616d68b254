//! Where the odd child is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `remora-odd-child`, built if it is missing or older than its source. `remora-odd-child help` lists its
/// modes.
///
/// # Panics
/// Where it can't be found or built.
pub fn odd_child() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(find).clone()
}

fn find() -> PathBuf {
    // Tests run as target/PROFILE/deps/NAME-HASH, programs lie in target/PROFILE.
    let test = std::env::current_exe().unwrap_or_default();
    let mut folder = test.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    let path = folder.join("remora-odd-child");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/odd-child.rs");
    if !is_fresh(&path, &source) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "remora-testkit", "--bin", "remora-odd-child"]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        if let Some(target) = folder.parent() {
            cargo.arg("--target-dir").arg(target);
        }
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().is_ok_and(|status| status.success()), "remora-odd-child can't be built");
    }
    assert!(path.is_file(), "no remora-odd-child at {}", path.display());
    path
}

fn is_fresh(program: &Path, source: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    match (modified(program), modified(source)) {
        (Ok(program), Ok(source)) => program >= source,
        (program, _) => program.is_ok(),
    }
}
