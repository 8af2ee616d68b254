//! Bytes as a bad disk, an older program or somebody's hand may leave them.

use crate::chance;

/// So many variants of these bytes, the same ones for the same seed: bits turned, lengths made extreme, parts cut, doubled, or put
/// elsewhere; and now and then bytes that have nothing to do with them.
pub fn mutants(seed: u64, sample: &[u8], count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut seed = seed;
    let sample = sample.to_vec();
    (0..count).map(move |_| {
        let mut below = |limit: usize| (chance(&mut seed) % limit.max(1) as u64) as usize;
        let mut bytes = sample.clone();
        if below(16) == 0 {
            return (0..below(200)).map(|_| below(256) as u8).collect();
        }
        for _ in 0..=below(3) {
            let at = below(bytes.len() + 1);
            match below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, below(256) as u8),
                2 => {
                    // A length or a number of any size, in either order of bytes.
                    let extreme = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, u64::MAX >> 1, u64::MAX];
                    let number = extreme.get(below(extreme.len())).copied().unwrap_or_default();
                    let number = if below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                    let skip = below(8);
                    bytes
                        .iter_mut()
                        .skip(at)
                        .zip(number.into_iter().skip(skip))
                        .for_each(|(to, from)| *to = from);
                }
                3 => {
                    let part: Vec<u8> =
                        bytes.iter().skip(below(bytes.len())).take(below(64)).copied().collect();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let bit = 1 << below(8);
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
                }
            }
        }
        bytes
    })
}
