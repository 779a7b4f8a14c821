//! Compiles our own `.proto` files without needing a protobuf compiler on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files =
        ["ca.proto", "istio_alpn.proto", "istio_stats.proto", "udpa_typed_struct.proto", "xds_typed_struct.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
