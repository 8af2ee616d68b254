//! The RSA numbers an OpenSSH file leaves out: d mod (p-1) and d mod (q-1).
//!
//! Long division of one bit at a time: a few hundred thousand steps for a 4096-bit key, and every intermediate value is
//! zeroized, which no general big-number library promises.

use zeroize::Zeroizing;

use crate::der::{self, SEQUENCE};
use crate::encoding::without_leading_zeros;

/// The numbers of an RSA private key as OpenSSH stores them, big-endian.
pub(super) struct Numbers<'a> {
    pub(super) modulus: &'a [u8],
    pub(super) exponent: &'a [u8],
    pub(super) private: &'a [u8],
    pub(super) inverse_of_q: &'a [u8],
    pub(super) p: &'a [u8],
    pub(super) q: &'a [u8],
}

/// RSAPrivateKey (RFC 8017, appendix A.1.2). Whether the numbers fit together is judged by who reads it.
pub(super) fn pkcs1(numbers: &Numbers<'_>) -> Zeroizing<Vec<u8>> {
    der::element(
        SEQUENCE,
        &[
            &der::integer(&[]),
            &der::integer(numbers.modulus),
            &der::integer(numbers.exponent),
            &der::integer(numbers.private),
            &der::integer(numbers.p),
            &der::integer(numbers.q),
            &der::integer(&remainder_minus_one(numbers.private, numbers.p)),
            &der::integer(&remainder_minus_one(numbers.private, numbers.q)),
            &der::integer(numbers.inverse_of_q),
        ],
    )
}

/// `number mod (prime - 1)`, big-endian. A `prime` that is even or below 3 is none: the answer is 0 then.
fn remainder_minus_one(number: &[u8], prime: &[u8]) -> Zeroizing<Vec<u8>> {
    let prime = without_leading_zeros(prime);
    let Some((last, _)) = prime.split_last() else { return Zeroizing::default() };
    if last & 1 == 0 || prime == [1] {
        return Zeroizing::default();
    }
    // Little-endian limbs; an odd number minus one only loses its last bit.
    let mut modulus = limbs(prime);
    if let Some(lowest) = modulus.first_mut() {
        *lowest &= !1;
    }
    // One limb more than the modulus: the remainder is doubled before it is reduced.
    modulus.push(0);
    let mut rest = Zeroizing::new(vec![0u32; modulus.len()]);
    for byte in number {
        for bit in (0..8).rev() {
            let mut carry = u32::from(byte >> bit & 1);
            for limb in rest.iter_mut() {
                let next = *limb >> 31;
                *limb = *limb << 1 | carry;
                carry = next;
            }
            if rest.iter().rev().ge(modulus.iter().rev()) {
                let mut borrow = false;
                for (limb, subtrahend) in rest.iter_mut().zip(modulus.iter()) {
                    let (value, first) = limb.overflowing_sub(*subtrahend);
                    let (value, second) = value.overflowing_sub(u32::from(borrow));
                    *limb = value;
                    borrow = first || second;
                }
            }
        }
    }
    Zeroizing::new(rest.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect())
}

fn limbs(number: &[u8]) -> Zeroizing<Vec<u32>> {
    let mut limbs = Zeroizing::new(Vec::with_capacity(number.len() / 4 + 2));
    for chunk in number.rchunks(4) {
        limbs.push(chunk.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
    }
    limbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_ordinary_arithmetic() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        };
        for _ in 0..500 {
            let number = u128::from(next()) << 64 | u128::from(next());
            let prime = u128::from(next() >> (next() % 60)) | 3;
            let expected = number % (prime - 1);
            let got = remainder_minus_one(&number.to_be_bytes(), &prime.to_be_bytes());
            let got = got.iter().fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
            assert_eq!(got, expected, "{number} mod ({prime} - 1)");
        }
    }

    #[test]
    fn what_is_no_prime_does_not_loop_or_panic() {
        for prime in [&[][..], &[0], &[1], &[2], &[0, 0, 4]] {
            assert!(remainder_minus_one(&[0xff; 16], prime).iter().all(|byte| *byte == 0));
        }
    }
}
