//! Updates of a machine image: signed by who has the key, handed over by the server that receives one, and installed
//! by the first process (`boot/update.rs`).
//!
//! ```text
//!   midge image update --PUT /update--> admin listener --socket--> process 1: signature, release, room
//!                                                      <-- "200 .." or why not
//! ```
//!
//! A signature is Ed25519's (RFC 8032) over the whole image, so that OpenSSL makes and verifies the same. Keys are PEM
//! files as OpenSSL writes them (RFC 8410).
//!
//! Invariant: whoever hands an image over need not be trusted; nothing of it is used before its signature is right.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use midge_abi::problem::Hex;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// Where the admin listener takes an update.
pub const PATH: &str = "/update";
/// The field with the signature, in hexadecimal.
pub const SIGNATURE_FIELD: &str = "midge-signature";
/// Largest image, what a kernel and [`crate::image::IMAGE_BYTES_MAX`] come to at the most.
pub const BYTES_MAX: u64 = 1 << 30;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Longest answer of the first process.
pub const ANSWER_BYTES_MAX: usize = 1024;

/// Bytes of a public key.
const KEY_BYTES: usize = 32;
/// What stands before them in a file: an algorithm without parameters, and a string of bits (RFC 8410, section 4).
const KEY_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Who may update a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public([u8; KEY_BYTES]);

/// Signs.
#[derive(Debug)]
pub struct Private(Ed25519KeyPair);

/// A signature.
pub type Signature = [u8; SIGNATURE_BYTES];

impl Public {
    /// Reads a PEM file's content.
    #[must_use]
    pub fn parse(pem: &[u8]) -> Option<Self> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
        let bytes = key.as_ref().strip_prefix(&KEY_HEAD)?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or holds another key.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let pem = fs::read(path).with_context(|| format!("cannot read the key `{shown}`"))?;
        Self::parse(&pem).with_context(|| {
            format!(
                "`{shown}` is no public key of Ed25519: `openssl pkey -in KEY -pubout` writes one"
            )
        })
    }

    /// Returns it as an image holds it ([`places::UPDATE_KEY`](crate::boot::places::UPDATE_KEY)).
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}\n", Hex(&self.0))
    }

    /// Reads what [`Public::line`] returned.
    #[must_use]
    pub fn parse_line(text: &str) -> Option<Self> {
        parse_hexadecimal(text.trim_end()).map(Self)
    }

    /// Returns true for a signature of this key's owner over this image.
    #[must_use]
    pub fn has_signed(&self, image: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(image, signature).is_ok()
    }
}

impl Private {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or holds another key.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let pem = fs::read(path).with_context(|| format!("cannot read the key `{shown}`"))?;
        let refused = || {
            format!(
                "`{shown}` is no private key of Ed25519: `openssl genpkey -algorithm ed25519 -out FILE` makes one"
            )
        };
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).ok().with_context(refused)?;
        // OpenSSL's files do not hold the public half, which `ring` would compare.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
        Ok(Self(pair.ok().with_context(refused)?))
    }

    /// Returns the other half.
    ///
    /// # Panics
    /// Never: keys have [`KEY_BYTES`].
    #[must_use]
    pub fn public(&self) -> Public {
        Public(self.0.public_key().as_ref().try_into().expect("32 bytes"))
    }

    /// Signs an image.
    ///
    /// # Panics
    /// Never: signatures have [`SIGNATURE_BYTES`].
    #[must_use]
    pub fn sign(&self, image: &[u8]) -> Signature {
        self.0.sign(image).as_ref().try_into().expect("64 bytes")
    }
}

/// Reads so many bytes in hexadecimal digits.
#[must_use]
pub fn parse_hexadecimal<const COUNT: usize>(text: &str) -> Option<[u8; COUNT]> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 2 * COUNT { bytes.try_into().ok() } else { None }
}

/// What stands before an image on its way to the first process.
#[must_use]
pub fn head(signature: &Signature, bytes: u64) -> Vec<u8> {
    [&signature[..], &bytes.to_le_bytes()].concat()
}

/// Reads what [`head`] made.
///
/// # Errors
/// Those of the source.
pub fn read_head(mut source: impl Read) -> io::Result<(Signature, u64)> {
    let (mut signature, mut bytes) = ([0; SIGNATURE_BYTES], [0; 8]);
    source.read_exact(&mut signature)?;
    source.read_exact(&mut bytes)?;
    Ok((signature, u64::from_le_bytes(bytes)))
}

/// What became of an update: an HTTP status, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 if it is installed.
    pub status: u16,
    /// For people.
    pub text: String,
}

impl Answer {
    /// Makes one.
    #[must_use]
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// Reads what [`Answer::write`] wrote.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (status, text) = line.trim_end().split_once(' ')?;
        let status = status.parse().ok().filter(|status| (200..600).contains(status))?;
        Some(Self::new(status, text))
    }

    /// Writes it as one line.
    ///
    /// # Errors
    /// Those of the target.
    pub fn write(&self, mut target: impl Write) -> io::Result<()> {
        target.write_all(format!("{} {}\n", self.status, self.text).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn openssl_makes_the_keys_and_verifies_what_was_signed() {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &[&str]| {
            let command =
                Command::new("openssl").args(arguments).current_dir(folder.path()).output();
            command.is_ok_and(|output| output.status.success())
        };
        if !openssl(&["genpkey", "-algorithm", "ed25519", "-out", "key"]) {
            return;
        }
        assert!(openssl(&["pkey", "-in", "key", "-pubout", "-out", "pub"]));
        let private = Private::read(&folder.path().join("key")).unwrap();
        let public = Public::read(&folder.path().join("pub")).unwrap();
        assert_eq!(public, private.public());
        assert_eq!(Public::parse_line(&public.line()), Some(public));
        let signature = private.sign(b"image");
        assert!(public.has_signed(b"image", &signature));
        assert!(!public.has_signed(b"imagf", &signature));
        fs::write(folder.path().join("image"), "image").unwrap();
        fs::write(folder.path().join("signature"), signature).unwrap();
        let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", "image"];
        assert!(openssl(&[&verify[..], &["-sigfile", "signature"]].concat()));
        assert!(Private::read(&folder.path().join("pub")).is_err());
        assert!(Public::read(&folder.path().join("key")).is_err());
    }

    proptest! {
        #[test]
        fn signatures_and_heads_are_read_as_they_were_written(
            signature in prop::array::uniform32(any::<[u8; 2]>()),
            bytes: u64,
        ) {
            let signature: Signature = signature.concat().try_into().unwrap();
            prop_assert_eq!(parse_hexadecimal(&Hex(&signature).to_string()), Some(signature));
            prop_assert_eq!(read_head(&head(&signature, bytes)[..]).unwrap(), (signature, bytes));
        }

        #[test]
        fn no_text_is_too_odd(text in ".{0,200}") {
            let _line = Public::parse_line(&text);
            let _key = Public::parse(text.as_bytes());
            let _answer = Answer::parse(&text);
        }
    }
}
