//! The last good resources on disk: one file per type, readable by their owner alone, replaced as a whole.
//!
//! Secrets are not here: keys stay in memory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mizzen_compile::{Resource, Update};
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource as Wire};
use mizzen_proto::google::protobuf::Any;
use mizzen_xds::ResourceType;
use prost::Message;

pub(super) struct Kept {
    folder: PathBuf,
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
        for kind in ResourceType::ALL.into_iter().filter(|kind| *kind != ResourceType::Secret) {
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

    pub(super) fn save(&self, all: impl Iterator<Item = (ResourceType, Vec<Resource>)>) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        for (kind, resources) in all {
            let resources = resources.into_iter().map(|resource| Wire {
                name: resource.name,
                version: resource.version,
                resource: Some(Any { type_url: kind.type_url().to_owned(), value: resource.body.to_vec() }),
                ..Wire::default()
            });
            let message = DeltaDiscoveryResponse { resources: resources.collect(), ..Default::default() };
            replace(&self.file(kind), &message.encode_to_vec())?;
        }
        Ok(())
    }
}

/// Writes beside the file and renames: a reader sees the old bytes or the new ones.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
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
        let resource = Resource { name: "a".to_owned(), version: "1".to_owned(), body: b"xyz".to_vec().into() };
        kept.save([(ResourceType::Cluster, vec![resource])].into_iter()).unwrap();
        let loaded = kept.load().unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!((loaded[0].resources[0].name.as_str(), &loaded[0].resources[0].body[..]), ("a", &b"xyz"[..]));
        let mode = fs::metadata(kept.file(ResourceType::Cluster)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(kept.file(ResourceType::Cluster), b"\xff\xff").unwrap();
        assert!(kept.load().is_err());
    }
}
