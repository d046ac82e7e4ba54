//! Whose certificates outgoing requests trust.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Returns how TLS is spoken: HTTP/1.1, with servers that an authority of this file stands for, or of the system's.
///
/// # Errors
/// If there is no authority to be had.
pub fn config(file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let found = match file {
        Some(file) => {
            let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
            read().with_context(|| format!("cannot read the certificates in {}", file.display()))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    // A system has some that are broken or too old, as a rule.
    let (added, _) = roots.add_parsable_certificates(found);
    anyhow::ensure!(
        added > 0,
        "there is no certificate of an authority to trust: install the system's \
         (ca-certificates), or name a file by `certificates`"
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS has no version to speak")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
