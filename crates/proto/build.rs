//! Compiles our own `.proto` files without needing a protobuf compiler on the machine, and the descriptions of all
//! messages to the table that `json` looks things up in.

#[path = "build/table.rs"]
mod table;

use std::path::PathBuf;

use protox::prost::Message;
use protox::prost_reflect::prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=descriptors");
    let files = [
        "ca.proto",
        "istio_alpn.proto",
        "istio_metadata_exchange.proto",
        "istio_nds.proto",
        "istio_peer_metadata.proto",
        "istio_stats.proto",
        "udpa_typed_struct.proto",
        "xds_typed_struct.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    // The same content has to be the same bytes.
    tonic_prost_build::configure().btree_map(".istio.networking.nds.v1").compile_fds(descriptors)?;

    let all = FileDescriptorSet::decode(std::fs::read("descriptors/envoy.bin")?.as_slice())?;
    let target = PathBuf::from(std::env::var("OUT_DIR")?).join("messages.bin");
    std::fs::write(target, table::build(&all)?)?;
    Ok(())
}
