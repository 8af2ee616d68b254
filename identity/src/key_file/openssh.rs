//! The OpenSSH private key format (PROTOCOL.key): a public key, and an encrypted or plain section with the private one.
//!
//! Deriving the key and decrypting is ssh-key's; judging what was decrypted is done here, with limits.

use ssh_key::{Cipher, Kdf};
use zeroize::Zeroizing;

use super::KeyError;
use super::rsa;
use crate::encoding::{Malformed, Reader, left_padded};
use crate::limits::BCRYPT_ROUNDS_MAX_COUNT;
use crate::private_key::{PrivateKey, signing};
use crate::public_key::{Curve, PublicKey, PublicKeyError};

/// What every file starts with, behind its base64.
pub(crate) const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A parsed file whose private section wasn't looked into yet.
pub(super) struct Container {
    public: PublicKey,
    encryption: Option<Encryption>,
    section: Zeroizing<Vec<u8>>,
}

struct Encryption {
    cipher: Cipher,
    kdf: Kdf,
    tag: Option<[u8; 16]>,
}

impl Container {
    pub(super) fn parse(content: &[u8]) -> Result<Self, KeyError> {
        let mut reader = Reader::new(content);
        if reader.bytes(MAGIC.len())? != MAGIC {
            return Err(Malformed::Unexpected("file version").into());
        }
        let cipher = reader.string()?;
        let kdf = reader.string()?;
        let kdf_options = reader.string()?;
        if reader.uint32()? != 1 {
            return Err(Malformed::Unexpected("number of keys").into());
        }
        let public = PublicKey::from_blob(reader.string()?)?;
        let section = Zeroizing::new(reader.string()?.to_vec());

        let encryption = if cipher == b"none" {
            if kdf != b"none" || !kdf_options.is_empty() {
                return Err(Malformed::Unexpected("key derivation").into());
            }
            None
        } else {
            let cipher = parse_cipher(cipher)?;
            let kdf = parse_kdf(kdf, kdf_options)?;
            if section.is_empty() || section.len() % cipher.block_size() != 0 {
                return Err(Malformed::Unexpected("length of the encrypted section").into());
            }
            // The tag of an AEAD stands behind the section's string (sshkey.c, sshkey_private_to_blob2).
            let tag = match cipher.has_tag() {
                true => Some(
                    reader.bytes(16)?.try_into().map_err(|_| KeyError::Malformed(Malformed::Truncated))?,
                ),
                false => None,
            };
            Some(Encryption { cipher, kdf, tag })
        };
        reader.finish()?;
        Ok(Container { public, encryption, section })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encryption.is_some()
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key of a file without encryption.
    pub(super) fn open(&self) -> Result<PrivateKey, KeyError> {
        self.private_key(&self.section, KeyError::Malformed(Malformed::Unexpected("check numbers")))
    }

    pub(super) fn decrypt(&self, passphrase: &[u8]) -> Result<PrivateKey, KeyError> {
        let Some(Encryption { cipher, kdf, tag }) = &self.encryption else { return self.open() };
        // bcrypt-pbkdf takes no empty passphrase, so nothing was ever encrypted with one.
        let (key, iv) = kdf.derive_key_and_iv(*cipher, passphrase).map_err(|_| KeyError::WrongPassphrase)?;
        let iv = Zeroizing::new(iv);
        let mut section = self.section.clone();
        cipher.decrypt(&key, &iv, &mut section, *tag).map_err(|_| KeyError::WrongPassphrase)?;
        self.private_key(&section, KeyError::WrongPassphrase)
    }

    /// Reads the decrypted section: two equal check numbers, the key, a comment, padding 1, 2, 3….
    fn private_key(&self, section: &[u8], check_failed: KeyError) -> Result<PrivateKey, KeyError> {
        let mut reader = Reader::new(section);
        if reader.uint32()? != reader.uint32()? {
            return Err(check_failed);
        }
        let key = read_key(&mut reader)?;
        let _comment = reader.string()?;
        let padding = reader.rest();
        if !padding.iter().zip(1u8..).all(|(byte, expected)| *byte == expected) || padding.len() > 255 {
            return Err(Malformed::Unexpected("padding").into());
        }
        if *key.public() != self.public {
            return Err(KeyError::Inconsistent);
        }
        Ok(key)
    }
}

fn read_key(reader: &mut Reader<'_>) -> Result<PrivateKey, KeyError> {
    let name = reader.string()?;
    if name == b"ssh-ed25519" {
        let public = reader.string()?;
        let both = reader.string()?;
        let (seed, copy) = both
            .split_first_chunk::<32>()
            .ok_or(Malformed::Unexpected("length of an Ed25519 private key"))?;
        let key = PrivateKey::from_ed25519_seed(seed)?;
        // from_seed derives the public half; both copies in the file must be that one.
        if copy != public || !key.public().blob().ends_with(public) || public.len() != 32 {
            return Err(KeyError::Inconsistent);
        }
        return Ok(key);
    }
    if let Some(curve) = Curve::by_key_type(name) {
        if reader.string()? != curve.identifier() {
            return Err(PublicKeyError::TypeMismatch.into());
        }
        let point = reader.string()?;
        let scalar = left_padded(reader.mpint()?, curve.width()).ok_or(KeyError::Rejected)?;
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_private_key_and_public_key(
            signing(curve),
            &scalar,
            point,
        )
        .map_err(|_| KeyError::Rejected)?;
        return PrivateKey::from_ecdsa(curve, pair);
    }
    if name == b"ssh-rsa" {
        // In this order: sshkey.c, ssh_rsa_serialize_private.
        let numbers = rsa::Numbers {
            modulus: reader.mpint()?,
            exponent: reader.mpint()?,
            private: reader.mpint()?,
            inverse_of_q: reader.mpint()?,
            p: reader.mpint()?,
            q: reader.mpint()?,
        };
        // Before the long division, whose time grows with the square: no number of a usable key is longer.
        let longest = crate::limits::RSA_USE_MAX_BITS as usize / 8;
        if [numbers.modulus, numbers.private, numbers.p, numbers.q].iter().any(|n| n.len() > longest) {
            return Err(KeyError::Rejected);
        }
        return PrivateKey::from_rsa_pkcs1(rsa::pkcs1(&numbers));
    }
    let name = String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned();
    Err(PublicKeyError::UnsupportedType { name }.into())
}

fn parse_cipher(name: &[u8]) -> Result<Cipher, KeyError> {
    let unsupported = || KeyError::UnsupportedCipher {
        name: String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned(),
    };
    let text = str::from_utf8(name).map_err(|_| unsupported())?;
    match Cipher::new(text) {
        // Triple DES is known to ssh-key by name, but not built in.
        Ok(Cipher::TDesCbc | Cipher::None) | Err(_) => Err(unsupported()),
        Ok(cipher) => Ok(cipher),
    }
}

fn parse_kdf(name: &[u8], options: &[u8]) -> Result<Kdf, KeyError> {
    if name != b"bcrypt" {
        let name = String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned();
        return Err(KeyError::UnsupportedCipher { name });
    }
    let mut reader = Reader::new(options);
    let salt = reader.string()?.to_vec();
    let rounds = reader.uint32()?;
    reader.finish()?;
    if salt.is_empty() || salt.len() > 64 || rounds == 0 {
        return Err(Malformed::Unexpected("key derivation").into());
    }
    if rounds > BCRYPT_ROUNDS_MAX_COUNT {
        return Err(KeyError::TooManyRounds { rounds });
    }
    Ok(Kdf::Bcrypt { salt, rounds })
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding as _};

    use super::*;
    use crate::encoding::put_string;

    fn content(key: &PrivateKey) -> Vec<u8> {
        let text = key.to_openssh("comment").unwrap();
        let base64: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        Base64::decode_vec(&base64).unwrap()
    }

    fn open(content: &[u8]) -> Result<PrivateKey, KeyError> {
        Container::parse(content)?.open()
    }

    /// Where the 32 bytes of the public half stand: in front, in the section, and behind the seed.
    fn places(content: &[u8], key: &PrivateKey) -> Vec<usize> {
        let point = &key.public().blob()[19..];
        content.windows(32).enumerate().filter(|(_, window)| *window == point).map(|(at, _)| at).collect()
    }

    #[test]
    fn a_public_half_of_another_key_is_noticed_wherever_it_stands() {
        let key = PrivateKey::generate_ed25519().unwrap();
        let other = PrivateKey::generate_ed25519().unwrap();
        let good = content(&key);
        open(&good).unwrap();
        let places = places(&good, &key);
        assert_eq!(places.len(), 3);
        for at in places {
            let mut swapped = good.clone();
            swapped[at..at + 32].copy_from_slice(&other.public().blob()[19..]);
            assert_eq!(open(&swapped).unwrap_err(), KeyError::Inconsistent, "at {at}");
        }
    }

    #[test]
    fn check_numbers_and_padding_must_fit() {
        let key = PrivateKey::generate_ed25519().unwrap();
        let good = content(&key);
        let section = places(&good, &key)[0] + 32 + 4;
        let mut check = good.clone();
        check[section] ^= 1;
        assert_eq!(open(&check).unwrap_err(), Malformed::Unexpected("check numbers").into());
        let mut padding = good.clone();
        *padding.last_mut().unwrap() ^= 1;
        assert_eq!(open(&padding).unwrap_err(), Malformed::Unexpected("padding").into());
    }

    #[test]
    fn a_hostile_number_of_rounds_is_refused_before_the_first() {
        // PITFALLS 29
        let key = PrivateKey::generate_ed25519().unwrap();
        for (rounds, expected) in [
            (BCRYPT_ROUNDS_MAX_COUNT, None),
            (
                BCRYPT_ROUNDS_MAX_COUNT + 1,
                Some(KeyError::TooManyRounds { rounds: BCRYPT_ROUNDS_MAX_COUNT + 1 }),
            ),
            (u32::MAX, Some(KeyError::TooManyRounds { rounds: u32::MAX })),
            (0, Some(Malformed::Unexpected("key derivation").into())),
        ] {
            let mut options = Vec::new();
            put_string(&mut options, &[1; 16]);
            options.extend_from_slice(&rounds.to_be_bytes());
            let mut file = MAGIC.to_vec();
            put_string(&mut file, b"aes256-ctr");
            put_string(&mut file, b"bcrypt");
            put_string(&mut file, &options);
            file.extend_from_slice(&1u32.to_be_bytes());
            put_string(&mut file, key.public().blob());
            put_string(&mut file, &[0; 160]);
            assert_eq!(Container::parse(&file).err(), expected);
        }
    }

    #[test]
    fn an_unknown_cipher_is_named_with_what_to_do() {
        for name in [&b"3des-cbc"[..], b"rot13\x1b[2J", b"none "] {
            let error = parse_cipher(name).unwrap_err();
            assert!(matches!(error, KeyError::UnsupportedCipher { .. }) && error.hint().is_some());
            assert!(!error.to_string().contains('\x1b'));
        }
    }
}
