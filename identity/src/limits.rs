//! Every limit of this crate, in bytes unless its name says otherwise. A length meets its limit before memory is asked for.

/// Longest public key blob. An RSA key of 16384 bits takes 2 KiB.
pub const PUBLIC_KEY_BLOB_MAX: usize = 8 * 1024;

/// Longest private key file.
pub const KEY_FILE_MAX: usize = 64 * 1024;

/// Longest SSHSIG: a key blob, an RSA signature of 2 KiB, and names.
pub const SSHSIG_MAX: usize = 16 * 1024;

/// Longest `authorized_keys` file.
pub const AUTHORIZED_KEYS_MAX: usize = 1024 * 1024;

/// Longest `known_hosts` file.
pub const KNOWN_HOSTS_MAX: usize = 16 * 1024 * 1024;

/// Longest line of either; a longer one is reported and skipped whole.
pub const LINE_MAX: usize = 16 * 1024;

/// How many line problems of one file are kept; further ones are only counted.
pub const LINE_PROBLEMS_MAX_COUNT: usize = 100;

/// Longest agent message without its length prefix, as OpenSSH has it (PITFALLS 12).
pub const AGENT_MESSAGE_MAX: usize = 256 * 1024;

/// Longest user name; Linux's useradd stops at 32, directory services go further.
pub const USER_NAME_MAX: usize = 64;

/// Shortest RSA modulus that is parsed at all, in bits. Shorter ones are no keys anywhere.
pub const RSA_PARSE_MIN_BITS: u32 = 1024;

/// Longest RSA modulus that is parsed, in bits, as OpenSSH has it (`OPENSSH_RSA_MAX_MODULUS_BITS`).
pub const RSA_PARSE_MAX_BITS: u32 = 16384;

/// Shortest RSA modulus that is used, in bits.
pub const RSA_USE_MIN_BITS: u32 = 2048;

/// Longest RSA modulus that is used, in bits: what a peer may make us compute before it is known (PITFALLS 18).
pub const RSA_USE_MAX_BITS: u32 = 8192;

/// Most rounds of bcrypt-pbkdf in a private key file. `ssh-keygen` writes 16 or 24; 65536 take minutes.
pub const BCRYPT_ROUNDS_MAX_COUNT: u32 = 65536;

/// Longest command in a statement, quoted; a longer one is told by its length and digest.
pub const STATEMENT_COMMAND_MAX: usize = 16 * 1024;

/// Longest other text in a statement, quoted, such as a directory.
pub const STATEMENT_TEXT_MAX: usize = 2 * 1024;

/// Longest statement: the command, six other texts, and numbers. With its signature it fits into a receipt's frame.
pub const STATEMENT_MAX: usize = 32 * 1024;

/// Longest file of a receipt: a statement, and a signature in base64.
pub const RECEIPT_FILE_MAX: usize = 64 * 1024;
