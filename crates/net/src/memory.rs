//! Giving back memory that only the start of the process needed.
//!
//! Parsing flags, the bootstrap and certificates runs through most of the program once; afterwards a proxy lives in a
//! small part of it. The pages of the rest stay mapped, and are counted for the process, until somebody says that they
//! are not needed.

#![allow(unsafe_code)]

/// Unmaps the pages of this program's text; those that are needed come back from the page cache at the next call.
/// Returns how many bytes were given up for now.
pub fn release_program_text() -> usize {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return 0 };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return 0 };
    let own = maps.lines().filter_map(|line| constant_range(line, &program.to_string_lossy()));
    own.map(|(start, end)| if release(start, end) { end - start } else { 0 }).sum()
}

/// The range of a line of `/proc/self/maps`, if it is a private mapping of `program` that was never writable: its text,
/// or the constants that lie at the beginning of the file (those further on have been relocated).
fn constant_range(line: &str, program: &str) -> Option<(usize, usize)> {
    let (head, path) = line.split_at_checked(line.find('/')?)?;
    let mut fields = head.split_whitespace();
    let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let constants = permissions == "r--p" && usize::from_str_radix(offset, 16) == Ok(0);
    if path != program || !(permissions == "r-xp" || constants) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

fn release(start: usize, end: usize) -> bool {
    // SAFETY: the range is a mapping of the program file that neither is writable nor was made read-only after
    // relocation, so its pages are clean copies of the file: dropping them loses nothing, and the kernel reads them again when any thread needs them. The
    // mapping itself stays, so no address becomes invalid.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_DONTNEED) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_of_the_program_counts() {
        let line = |permissions: &str, path: &str| format!("55d0-55f0 {permissions} 006c8000 fe:00 6287805   {path}");
        let first = "55d0-55f0 r--p 00000000 fe:00 6287805   /bin/mizzen";
        assert_eq!(constant_range(first, "/bin/mizzen"), Some((0x55d0, 0x55f0)));
        assert_eq!(constant_range(&line("r-xp", "/bin/mizzen"), "/bin/mizzen"), Some((0x55d0, 0x55f0)));
        for (permissions, path) in [
            ("r--p", "/bin/mizzen"),
            ("rw-p", "/bin/mizzen"),
            ("rwxp", "/bin/mizzen"),
            ("r-xs", "/bin/mizzen"),
            ("r-xp", "/lib/libc.so.6"),
            ("r-xp", "/bin/mizzen (deleted)"),
        ] {
            assert_eq!(constant_range(&line(permissions, path), "/bin/mizzen"), None, "{permissions} {path}");
        }
        assert_eq!(constant_range("nonsense", "/bin/mizzen"), None);
    }

    #[test]
    fn the_program_runs_on() {
        assert!(release_program_text() > 0);
        let sum: u64 = (0..1000u64).map(std::hint::black_box).sum();
        assert_eq!(sum, 499_500);
    }
}
