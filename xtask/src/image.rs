//! `cargo xtask image`: writes container images as an archive, without a container engine.
//!
//! One static program, a user, a certificate bundle, and nothing else: no shell, no libc. The program is linked statically
//! against glibc, not musl: the proxy's speed rests on its allocator. glibc (2.34 and later) has its name resolution built in.
//! The same input gives the same bytes.

mod archive;
mod layer;
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::steps::{Priority, repository};
use archive::{Archive, Image};

pub(crate) const HELP: &str = "\
cargo xtask image [OPTIONS]   write target/image/mizzen-VERSION.tar, for `docker load`, `ctr images import`, `k3s ctr images import`

  --tag NAME        name of an image in the archive, as often as wanted [default: docker.io/mizzen/mizzen:VERSION]; a name that
                    ends in examples-bookinfo-SERVICE-vN is an image of that Bookinfo service
  --bookinfo FILE   the Bookinfo images that this manifest names, such as the samples' bookinfo.yaml
  --binary FILE     this static program; without it, one is built
  --profile NAME    profile to build with [default: release]
  --ca FILE         certificate bundle [default: that of this machine]
  --output FILE     where the archive goes
";

/// Where the program is in the image; charts and manifests name it.
const PROGRAM: &str = "/usr/local/bin/mizzen";
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    tags: Vec<String>,
    binary: Option<PathBuf>,
    profile: Option<String>,
    ca: Option<PathBuf>,
    output: Option<PathBuf>,
}

impl Options {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().cloned().with_context(|| format!("{flag} wants a value"));
            match flag.as_str() {
                "--tag" => options.tags.push(value()?),
                "--bookinfo" => {
                    let file = value()?;
                    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
                    let found = bookinfo_images(&text);
                    if found.is_empty() {
                        bail!("{file} names no Bookinfo image");
                    }
                    options.tags.extend(found);
                }
                "--binary" => options.binary = Some(value()?.into()),
                "--profile" => options.profile = Some(value()?),
                "--ca" => options.ca = Some(value()?.into()),
                "--output" => options.output = Some(value()?.into()),
                other => bail!("there is no option {other:?}\n\n{HELP}"),
            }
        }
        options.tags.sort();
        options.tags.dedup();
        Ok(options)
    }
}

/// Writes the archive and prints its path.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<bool> {
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return Ok(true);
    }
    let options = Options::read(arguments)?;
    let binary = match options.binary {
        Some(file) => file,
        None => build(options.profile.as_deref().unwrap_or("release"), Priority::Usual)?,
    };
    let tags = if options.tags.is_empty() { vec![format!("docker.io/mizzen/mizzen:{VERSION}")] } else { options.tags };
    let output = write(&binary, &tags, options.ca.as_deref(), options.output)?;
    println!("{}", output.display());
    Ok(true)
}

/// The static program, built.
pub(crate) fn build(profile: &str, priority: Priority) -> anyhow::Result<PathBuf> {
    program::build(profile, priority)
}

/// Writes the archive of a static program under the names `tags`; its path.
pub(crate) fn write(
    binary: &Path,
    tags: &[String],
    ca: Option<&Path>,
    output: Option<PathBuf>,
) -> anyhow::Result<PathBuf> {
    let program = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    program::check_static(&program).with_context(|| format!("{} cannot be used", binary.display()))?;
    let ca = ca_bundle(ca)?;
    let archive = archive(&program, ca.as_deref(), tags)?;

    let output = output.unwrap_or_else(|| repository().join(format!("target/image/mizzen-{VERSION}.tar")));
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder)?;
    }
    let bytes = archive.to_tar()?;
    fs::write(&output, &bytes).with_context(|| format!("cannot write {}", output.display()))?;
    for tag in tags {
        eprintln!("image {tag}");
    }
    eprintln!("{:.1} MiB, the program {:.1} MiB", mebibytes(bytes.len()), mebibytes(program.len()));
    Ok(output)
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// The images that `tags` name, all of the same layers.
fn archive(program: &[u8], ca: Option<&[u8]>, tags: &[String]) -> anyhow::Result<Archive> {
    let layers = [layer::base(ca)?, layer::program(PROGRAM, program)?];
    let mut archive = Archive::new(layers);
    for tag in tags {
        let image = match bookinfo_service(tag) {
            Some((service, version)) => Image {
                title: format!("Bookinfo {service} {version}, the demo application"),
                // Callers in the cluster hear a moment later than the application that it ends.
                entrypoint: [PROGRAM, "bookinfo", service, "--service-version", version, "--linger", "3"]
                    .map(str::to_owned)
                    .to_vec(),
                user: "1000:1000",
            },
            None => Image {
                title: "mizzen, a service mesh".to_owned(),
                entrypoint: vec![PROGRAM.to_owned()],
                user: "1337:1337",
            },
        };
        archive.add(tag, &image)?;
    }
    Ok(archive)
}

fn ca_bundle(asked: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(file) = asked {
        return fs::read(file).map(Some).with_context(|| format!("cannot read {}", file.display()));
    }
    let found = fs::read(CA_BUNDLE).ok();
    if found.is_none() {
        eprintln!("this machine has no {CA_BUNDLE}: the image gets no certificates of public authorities (see --ca)");
    }
    Ok(found)
}

/// Service and version of a Bookinfo image by its name: `…/examples-bookinfo-reviews-v3:1.20.3`.
fn bookinfo_service(name: &str) -> Option<(&str, &str)> {
    let last = name.rsplit('/').next()?;
    let last = last.split(['@', ':']).next()?;
    let (service, number) = last.strip_prefix("examples-bookinfo-")?.rsplit_once("-v")?;
    let known = ["productpage", "details", "reviews", "ratings"].contains(&service);
    let version = &last[last.len() - number.len() - 1..];
    (known && !number.is_empty()).then_some((service, version))
}

/// The Bookinfo images that a manifest names.
pub(crate) fn bookinfo_images(manifest: &str) -> Vec<String> {
    let names = manifest.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("image:"));
    let names = names.map(|name| name.trim().trim_matches(['"', '\'']).to_owned());
    names.filter(|name| bookinfo_service(name).is_some()).collect()
}

#[cfg(test)]
mod tests;
