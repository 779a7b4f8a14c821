//! The archive: an OCI image layout that is also what `docker load` has always read.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tar::{Builder, EntryType};

use super::VERSION;
use super::layer::{Layer, append, digest};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The same input gives the same bytes, whenever.
const EPOCH: &str = "1970-01-01T00:00:00Z";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What one image is started with.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) title: String,
    pub(crate) entrypoint: Vec<String>,
    /// `uid:gid`.
    pub(crate) user: &'static str,
}

/// Images of the same layers.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Content by digest.
    blobs: BTreeMap<String, Vec<u8>>,
    diff_ids: Vec<String>,
    /// Descriptors of the layers.
    layers: Vec<Value>,
    /// Entries of `index.json`.
    index: Vec<Value>,
    /// Entries of `manifest.json`.
    docker: Vec<Value>,
}

impl Archive {
    pub(crate) fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        let mut archive = Self {
            blobs: BTreeMap::new(),
            diff_ids: Vec::new(),
            layers: Vec::new(),
            index: Vec::new(),
            docker: Vec::new(),
        };
        for layer in layers {
            archive.diff_ids.push(layer.diff_id);
            let descriptor = archive.blob(LAYER, layer.compressed);
            archive.layers.push(descriptor);
        }
        archive
    }

    /// Adds an image under a name with a tag.
    pub(crate) fn add(&mut self, name: &str, image: &Image) -> anyhow::Result<()> {
        let labels = json!({
            "org.opencontainers.image.title": image.title,
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.licenses": "Apache-2.0",
        });
        // Some readers want to know of each layer when it was made.
        let step = json!({ "created": EPOCH, "created_by": "cargo xtask image" });
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": EPOCH,
            "config": {
                "User": image.user,
                "Env": ["PATH=/usr/local/bin"],
                "Entrypoint": image.entrypoint,
                "WorkingDir": "/",
                "Labels": labels,
            },
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
            "history": self.diff_ids.iter().map(|_| step.clone()).collect::<Value>(),
        });
        let config = self.blob(CONFIG, serde_json::to_vec(&config)?);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": self.layers });
        let mut entry = self.blob(MANIFEST, serde_json::to_vec(&manifest)?);
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
        entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        self.index.push(entry);
        let layers: Vec<String> = self.layers.iter().map(path).collect();
        self.docker.push(json!({ "Config": path(&config), "RepoTags": [name], "Layers": layers }));
        Ok(())
    }

    /// Keeps `bytes` and describes them.
    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.blobs.insert(digest, bytes);
        descriptor
    }

    pub(crate) fn to_tar(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        let mut file = |path: &str, bytes: &[u8]| append(&mut tar, path, 0o644, EntryType::Regular, bytes);
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": self.index });
        file("index.json", &serde_json::to_vec(&index)?)?;
        file("manifest.json", &serde_json::to_vec(&self.docker)?)?;
        for (digest, bytes) in &self.blobs {
            file(&blob_path(digest), bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn path(descriptor: &Value) -> String {
    blob_path(descriptor["digest"].as_str().unwrap_or_default())
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// This machine's architecture by its OCI name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
