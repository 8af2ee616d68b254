//! Which machine this is, and since which boot.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

/// The host name as the kernel has it (uname(2)), not necessarily a name that resolves.
pub fn hostname() -> OsString {
    OsString::from_vec(rustix::system::uname().nodename().to_bytes().to_vec())
}

/// The boot id: 128 random bits the kernel draws at each boot (random(4), `/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// Where `/proc` isn't mounted, or what it holds isn't a boot id.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let mut digits = text.trim().chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    let mut id = [0; 16];
    for byte in &mut id {
        match (digits.next().flatten(), digits.next().flatten()) {
            (Some(high), Some(low)) => *byte = (high * 16 + low) as u8,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a boot id")),
        }
    }
    match digits.next() {
        None => Ok(id),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not a boot id")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_has_a_name_and_a_boot_id() {
        assert!(!super::hostname().is_empty());
        let id = super::boot_id().unwrap();
        assert_ne!(id, [0; 16]);
        assert_eq!(id, super::boot_id().unwrap());
    }
}
