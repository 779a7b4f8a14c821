//! Layers: what lies where in the image's file system.

use std::io::Write;

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::CA_BUNDLE;

const PASSWD: &str = include_str!("../../../image/etc/passwd");
const GROUP: &str = include_str!("../../../image/etc/group");
/// Without it, glibc would ask services that are not in a static program.
const NSSWITCH: &str = include_str!("../../../image/etc/nsswitch.conf");

/// One layer, compressed, with the two names that it has: of its content, and of what is in the archive.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) compressed: Vec<u8>,
    /// Of the content before compression.
    pub(crate) diff_id: String,
}

/// Users, name resolution, certificates, and a place for temporary files.
pub(crate) fn base(ca: Option<&[u8]>) -> anyhow::Result<Layer> {
    let mut tar = Builder::new(Vec::new());
    folder(&mut tar, "etc/", 0o755)?;
    file(&mut tar, "etc/passwd", 0o644, PASSWD.as_bytes())?;
    file(&mut tar, "etc/group", 0o644, GROUP.as_bytes())?;
    file(&mut tar, "etc/nsswitch.conf", 0o644, NSSWITCH.as_bytes())?;
    if let Some(ca) = ca {
        folder(&mut tar, "etc/ssl/", 0o755)?;
        folder(&mut tar, "etc/ssl/certs/", 0o755)?;
        file(&mut tar, CA_BUNDLE.trim_start_matches('/'), 0o644, ca)?;
    }
    folder(&mut tar, "tmp/", 0o1777)?;
    finish(tar)
}

/// The program at `path`.
pub(crate) fn program(path: &str, bytes: &[u8]) -> anyhow::Result<Layer> {
    let mut tar = Builder::new(Vec::new());
    let path = path.trim_start_matches('/');
    for (at, _) in path.match_indices('/') {
        folder(&mut tar, &path[..=at], 0o755)?;
    }
    file(&mut tar, path, 0o755, bytes)?;
    finish(tar)
}

fn folder(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32) -> anyhow::Result<()> {
    append(tar, path, mode, EntryType::Directory, &[])
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    append(tar, path, mode, EntryType::Regular, bytes)
}

/// An entry that depends on nothing but its content: owner and time are zero.
pub(crate) fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    kind: EntryType,
    bytes: &[u8],
) -> anyhow::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

fn finish(tar: Builder<Vec<u8>>) -> anyhow::Result<Layer> {
    let content = tar.into_inner()?;
    let diff_id = digest(&content);
    let mut encoder: GzEncoder<Vec<u8>> = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
    encoder.write_all(&content)?;
    Ok(Layer { compressed: encoder.finish()?, diff_id })
}

/// `sha256:…`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
