//! The last good resources on disk: one file per type, readable by their owner alone, replaced as a whole.
//!
//! Secrets are not here: keys stay in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mizzen_compile::{Packed, Resource, Update};
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource as Wire};
use mizzen_proto::google::protobuf::Any;
use mizzen_xds::ResourceType;
use prost::{Message, encoding};

pub(super) struct Kept {
    folder: PathBuf,
}

/// Keys are not written down, and names that are old are worse than none.
pub(super) fn is_kept(kind: ResourceType) -> bool {
    !matches!(kind, ResourceType::Secret | ResourceType::NameTable)
}

impl Kept {
    pub(super) fn new(state_dir: PathBuf) -> Self {
        Self { folder: state_dir.join("xds") }
    }

    fn file(&self, kind: ResourceType) -> PathBuf {
        self.folder.join(format!("{}.pb", kind.short_name()))
    }

    /// What was kept, in the order in which it is to be applied. A missing file is nothing.
    pub(super) fn load(&self) -> io::Result<Vec<Update>> {
        let mut updates = Vec::new();
        for kind in ResourceType::ALL.into_iter().filter(|kind| is_kept(*kind)) {
            let bytes = match fs::read(self.file(kind)) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let message = DeltaDiscoveryResponse::decode(bytes.as_slice())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let resources = message.resources.into_iter().map(|wire| Resource {
                name: wire.name,
                version: wire.version,
                body: wire.resource.unwrap_or_default().value.into(),
            });
            updates.push(Update {
                type_url: kind.type_url().to_owned(),
                resources: resources.collect(),
                removed: Vec::new(),
                full: false,
            });
        }
        Ok(updates)
    }

    pub(super) fn save<'a>(
        &self,
        all: impl Iterator<Item = (ResourceType, Vec<(&'a str, &'a Packed)>)>,
    ) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        for (kind, resources) in all {
            replace(&self.file(kind), |file| {
                resources.iter().try_for_each(|(name, packed)| file.write_all(&field(kind, name, packed)))
            })?;
        }
        Ok(())
    }
}

/// One resource as a field of a [`DeltaDiscoveryResponse`]. Written one by one, because all together are large.
fn field(kind: ResourceType, name: &str, packed: &Packed) -> Vec<u8> {
    const RESOURCES: u32 = 2;
    let resource = Wire {
        name: name.to_owned(),
        version: packed.version().to_owned(),
        resource: Some(Any { type_url: kind.type_url().to_owned(), value: packed.unpack().to_vec() }),
        ..Wire::default()
    };
    let mut bytes = Vec::with_capacity(resource.encoded_len() + 16);
    encoding::message::encode(RESOURCES, &resource, &mut bytes);
    bytes
}

/// Writes beside the file and renames: a reader sees the old bytes or the new ones.
fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut file = BufWriter::new(file);
    write(&mut file)?;
    file.flush()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().to_path_buf());
        assert!(kept.load().unwrap().is_empty());
        let resources =
            [("a", "1", b"xyz"), ("b", "2", b"uvw")].map(|(name, version, body)| (name, Packed::alone(version, body)));
        let all = resources.iter().map(|(name, packed)| (*name, packed)).collect();
        kept.save([(ResourceType::Cluster, all)].into_iter()).unwrap();
        let loaded = kept.load().unwrap();
        assert_eq!(loaded.len(), 1);
        let read = |at: usize| {
            let Resource { name, version, body } = &loaded[0].resources[at];
            (name.as_str(), version.as_str(), &body[..])
        };
        assert_eq!((read(0), read(1)), (("a", "1", &b"xyz"[..]), ("b", "2", &b"uvw"[..])));
        let mode = fs::metadata(kept.file(ResourceType::Cluster)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(kept.file(ResourceType::Cluster), b"\xff\xff").unwrap();
        assert!(kept.load().is_err());
    }
}
