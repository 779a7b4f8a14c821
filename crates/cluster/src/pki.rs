//! Certificates for steps: authorities, and a server's.

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority that can sign.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// One that signs itself.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn root(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority_params(name)?;
        let certificate = params.self_signed(&key)?.pem();
        let pem = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, key: pem })
    }

    /// One below this one.
    ///
    /// # Errors
    ///
    /// As [`Authority::root`].
    pub fn intermediate(&self, name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority_params(name)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let pem = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, key: pem })
    }

    /// A server's certificate and key.
    ///
    /// # Errors
    ///
    /// As [`Authority::root`].
    pub fn server(&self, host: &str) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![host.to_owned()]).context("not a host name")?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

fn authority_params(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "mizzen test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// `text` as the block of a YAML literal (`|`), indented by `depth`.
pub fn literal(text: &str, depth: usize) -> String {
    let margin = " ".repeat(depth);
    text.lines().map(|line| format!("{margin}{line}\n")).collect()
}
