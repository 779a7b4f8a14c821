//! Archives are complete, the same every time, and have the right entry points.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::{Options, archive, bookinfo_images, bookinfo_service, layer, program};

fn files(tar: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0), "{path}");
        (path, (entry.header().mode().unwrap(), bytes))
    });
    entries.collect()
}

fn built(tags: &[&str]) -> Vec<u8> {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    archive(b"program", Some(b"certificates"), &tags).unwrap().to_tar().unwrap()
}

fn json(files: &BTreeMap<String, (u32, Vec<u8>)>, path: &str) -> Value {
    serde_json::from_slice(&files[path].1).unwrap()
}

const OWN: &str = "docker.io/mizzen/mizzen:1";
const REVIEWS: &str = "registry.istio.io/release/examples-bookinfo-reviews-v3:1.20.3";

#[test]
fn everything_that_is_named_is_there() {
    let files = files(&built(&[OWN, REVIEWS]));
    let index = json(&files, "index.json");
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["annotations"]["io.containerd.image.name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [OWN, REVIEWS]);
    for entry in index["manifests"].as_array().unwrap() {
        let manifest: Value = serde_json::from_slice(blob(&files, entry)).unwrap();
        let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        for (descriptor, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
            let mut content = Vec::new();
            GzDecoder::new(blob(&files, descriptor)).read_to_end(&mut content).unwrap();
            assert_eq!(layer::digest(&content), *diff_id);
        }
    }
    // What `docker load` of any age reads.
    for image in json(&files, "manifest.json").as_array().unwrap() {
        assert!(files.contains_key(image["Config"].as_str().unwrap()));
        for layer in image["Layers"].as_array().unwrap() {
            assert!(files.contains_key(layer.as_str().unwrap()));
        }
    }
}

/// The content that a descriptor names, checked against it.
fn blob<'a>(files: &'a BTreeMap<String, (u32, Vec<u8>)>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))].1;
    assert_eq!(layer::digest(bytes), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(built(&[OWN, REVIEWS]), built(&[OWN, REVIEWS]));
}

#[test]
fn each_image_starts_what_its_name_says() {
    let files = files(&built(&[OWN, REVIEWS]));
    let configs: Vec<Value> = json(&files, "manifest.json")
        .as_array()
        .unwrap()
        .iter()
        .map(|image| json(&files, image["Config"].as_str().unwrap()))
        .collect();
    assert_eq!(configs[0]["config"]["Entrypoint"], serde_json::json!(["/usr/local/bin/mizzen"]));
    assert_eq!(configs[0]["config"]["User"], "1337:1337");
    let reviews =
        serde_json::json!(["/usr/local/bin/mizzen", "bookinfo", "reviews", "--service-version", "v3", "--linger", "3"]);
    assert_eq!(configs[1]["config"]["Entrypoint"], reviews);
}

#[test]
fn layers_hold_program_user_and_certificates() {
    let mut content = Vec::new();
    let base = layer::base(Some(b"certificates")).unwrap();
    GzDecoder::new(&base.compressed[..]).read_to_end(&mut content).unwrap();
    let base = files(&content);
    assert!(String::from_utf8_lossy(&base["etc/passwd"].1).contains("istio-proxy:x:1337:1337"));
    assert_eq!(base["etc/ssl/certs/ca-certificates.crt"].1, b"certificates");
    assert_eq!(base["tmp/"].0, 0o1777);
    content.clear();
    let own = layer::program("/usr/local/bin/mizzen", b"program").unwrap();
    GzDecoder::new(&own.compressed[..]).read_to_end(&mut content).unwrap();
    assert_eq!(files(&content)["usr/local/bin/mizzen"], (0o755, b"program".to_vec()));
}

#[test]
fn bookinfo_images_are_known_by_name() {
    assert_eq!(bookinfo_service(REVIEWS), Some(("reviews", "v3")));
    assert_eq!(bookinfo_service("localhost:5000/examples-bookinfo-details-v1"), Some(("details", "v1")));
    assert_eq!(bookinfo_service("x/examples-bookinfo-mongodb:1"), None);
    assert_eq!(bookinfo_service(OWN), None);
    let manifest =
        "containers:\n- image: \"a/examples-bookinfo-ratings-v1:1\"\n  image: b/examples-bookinfo-mysqldb:1\n";
    assert_eq!(bookinfo_images(manifest), ["a/examples-bookinfo-ratings-v1:1"]);
}

#[test]
fn options_are_read_and_mistakes_named() {
    let read = |words: &[&str]| Options::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let options = read(&["--tag", "b:1", "--tag", "a:1", "--tag", "b:1", "--binary", "/bin/x"]).unwrap();
    assert_eq!(options.tags, ["a:1", "b:1"]);
    assert!(read(&["--tagg", "x"]).unwrap_err().to_string().contains("--tagg"));
    assert!(read(&["--tag"]).unwrap_err().to_string().contains("wants a value"));
}

#[test]
fn a_program_that_needs_a_loader_is_refused() {
    // 64 bytes of head, and one program header that names the loader, or does not.
    let elf = |kind: u8| {
        let mut program = vec![0; 64 + 56];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[0x20] = 64;
        program[0x36] = 56;
        program[0x38] = 1;
        program[64] = kind;
        program
    };
    program::check_static(&elf(1)).unwrap();
    assert!(program::check_static(&elf(3)).unwrap_err().to_string().contains("crt-static"));
    program::check_static(b"#!/bin/sh").unwrap_err();
    program::check_static(&elf(1)[..100]).unwrap();
    program::check_static(&elf(1)[..60]).unwrap_err();
}
