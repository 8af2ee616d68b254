//! Bytes that tell where in a stream they belong.

/// Fills a buffer with the pattern's bytes from a stream's absolute offset on. Its period is far above any buffer's
/// size, so that bytes lost, doubled or moved show.
pub fn fill_pattern(offset: u64, buffer: &mut [u8]) {
    for (at, byte) in (offset..).zip(buffer) {
        *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37) as u8;
    }
}

/// The first `length` bytes of the pattern.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fill_pattern(0, &mut bytes);
    bytes
}
