//! The static program.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::steps::{self, Priority, cargo};

/// Builds the program so that it needs no library of the machine that runs it.
pub(crate) fn build(profile: &str, priority: Priority) -> anyhow::Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    // With a target named, the flag is not given to build scripts and macros, which cannot be static.
    let mut command = cargo(&["build", "--quiet", "--package", "mizzen", "--profile", profile, "--target", &target]);
    command.env(variable, "-C target-feature=+crt-static");
    let status = priority.of(command).status().context("cannot run cargo")?;
    ensure!(status.success(), "the program does not build");
    let profile = if profile == "dev" { "debug" } else { profile };
    Ok(steps::target().join(target).join(profile).join("mizzen"))
}

/// An ELF program that names no loader. The image has none.
pub(crate) fn check_static(program: &[u8]) -> anyhow::Result<()> {
    const INTERPRETER: u32 = 3;
    let short = || "it is cut off";
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is no 64-bit little-endian ELF program");
    }
    let table = usize::try_from(number(0x20, 8).with_context(short)?)?;
    let size = usize::try_from(number(0x36, 2).with_context(short)?)?;
    let count = usize::try_from(number(0x38, 2).with_context(short)?)?;
    for index in 0..count {
        let at = size.checked_mul(index).and_then(|offset| offset.checked_add(table)).with_context(short)?;
        let kind = number(at, 4).with_context(short)?;
        ensure!(
            kind != u64::from(INTERPRETER),
            "it wants a dynamic loader; link it with `-C target-feature=+crt-static`"
        );
    }
    Ok(())
}
