//! Throw-away certificates for the pair that speaks mTLS.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

/// PEM files of one workload and the root that signed it.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) root: PathBuf,
}

/// Makes a root and one workload certificate with a SPIFFE name, ECDSA P-256, in `folder`.
pub(crate) fn make(folder: &Path) -> anyhow::Result<Files> {
    let mut root = CertificateParams::default();
    // Distinct names: a leaf named as its issuer passes for self-signed.
    root.distinguished_name.push(DnType::CommonName, "bench root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "bench workload");
    leaf.subject_alt_names = vec![SanType::URI("spiffe://cluster.local/ns/bench/sa/bench".try_into()?)];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &root)?;
    let files = Files {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        root: folder.join("root.pem"),
    };
    fs::write(&files.certificate, leaf.pem())?;
    fs::write(&files.key, key.serialize_pem())?;
    fs::write(&files.root, root.as_ref().pem())?;
    Ok(files)
}
