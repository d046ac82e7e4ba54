//! A tree as a container's image: an archive in the layout of the Open Container Initiative (image-spec 1.1),
//! FROM scratch, one layer.
//!
//! ```text
//!   oci-layout, index.json -> manifest -> config, layer       each named by its SHA-256
//! ```

use std::io;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::bytes::hexadecimal;
use crate::tree::{Entry, Tree};

/// What a container does with an image.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The program and its arguments.
    pub entrypoint: &'a [&'a str],
    /// Ports that are worth publishing, as `8080/tcp`.
    pub ports: &'a [String],
    /// Name of the image.
    pub name: &'a str,
}

/// Returns the archive.
///
/// # Errors
/// A path that an archive does not take.
pub fn encode(tree: &Tree, start: Start<'_>) -> io::Result<Vec<u8>> {
    let layer = layer(tree)?;
    let layer_name = digest(&layer);
    let ports: serde_json::Map<_, _> =
        start.ports.iter().map(|port| (port.clone(), json!({}))).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": start.entrypoint, "ExposedPorts": ports, "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_name}")] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut described_manifest = described("application/vnd.oci.image.manifest.v1+json", &manifest);
    described_manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": start.name });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described_manifest],
    });
    let index = index.to_string().into_bytes();

    let mut archive = Builder::new(Vec::new());
    put(&mut archive, "oci-layout", &Entry::File(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()))?;
    put(&mut archive, "index.json", &Entry::File(index))?;
    for folder in ["blobs", "blobs/sha256"] {
        put(&mut archive, folder, &Entry::Folder)?;
    }
    let mut blobs = [manifest, config, layer].map(|blob| (digest(&blob), blob));
    blobs.sort();
    for (name, blob) in blobs {
        put(&mut archive, &format!("blobs/sha256/{name}"), &Entry::File(blob))?;
    }
    archive.into_inner()
}

/// Returns a tree as a plain archive. Devices are left out: a container has its own.
fn layer(tree: &Tree) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, entry) in tree.iter() {
        if !matches!(entry, Entry::Device { .. }) {
            put(&mut archive, path, entry)?;
        }
    }
    archive.into_inner()
}

fn put(archive: &mut Builder<Vec<u8>>, path: &str, entry: &Entry) -> io::Result<()> {
    let mut header = Header::new_ustar();
    let content = entry.content();
    let is_folder = *entry == Entry::Folder;
    header.set_entry_type(if is_folder { EntryType::Directory } else { EntryType::Regular });
    header.set_mode(entry.permissions());
    header.set_size(content.len() as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    // Long paths get an entry of their own in front.
    archive.append_data(&mut header, path, content)
}

fn described(kind: &str, content: &[u8]) -> serde_json::Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{}", digest(content)), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    hexadecimal(&Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use super::*;

    #[test]
    fn every_part_is_found_by_its_digest() {
        let mut tree = Tree::new();
        tree.add("midge", Entry::Program(b"program".to_vec())).unwrap();
        tree.add("dev/null", Entry::Device { major: 1, minor: 3 }).unwrap();
        tree.add(&format!("etc/{}", "long".repeat(60)), Entry::File(vec![1; 3000])).unwrap();
        let ports = ["80/tcp".to_owned()];
        let start = Start { entrypoint: &["/midge", "serve"], ports: &ports, name: "midge" };
        let archive = encode(&tree, start).unwrap();
        assert_eq!(archive, encode(&tree, start).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("image");
        std::fs::write(folder.path().join("a.tar"), &archive).unwrap();
        std::fs::create_dir(&root).unwrap();
        let mut command = Command::new("tar");
        command.arg("-xf").arg(folder.path().join("a.tar")).arg("-C").arg(&root);
        assert!(command.status().unwrap().success(), "tar reads it");

        let json = |bytes: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        let blob = |described: &serde_json::Value| {
            let name = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let content = std::fs::read(root.join("blobs/sha256").join(name)).unwrap();
            assert_eq!(digest(&content), name);
            assert_eq!(described["size"], content.len());
            content
        };
        let index = json(std::fs::read(root.join("index.json")).unwrap());
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"][1], "serve");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = blob(&manifest["layers"][0]);
        let mut layer = tar::Archive::new(layer.as_slice());
        let mut found = Vec::new();
        for entry in layer.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((entry.path().unwrap().display().to_string(), content.len()));
        }
        assert!(found.contains(&("midge".into(), 7)), "{found:?}");
        assert!(found.iter().all(|(path, _)| path != "dev/null"), "{found:?}");
        assert!(found.iter().any(|(path, size)| path.ends_with("longlong") && *size == 3000));
    }
}
