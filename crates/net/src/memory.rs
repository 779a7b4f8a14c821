//! Giving back memory that only a moment needed.
//!
//! Parsing flags, the bootstrap, certificates and a configuration runs through most of the program once; afterwards a
//! proxy lives in a small part of it. The pages of the rest stay mapped, and are counted for the process, until somebody
//! says that they are not needed. So does the heap that a configuration took while it was on its way.

#![allow(unsafe_code)]

/// A block of this size, such as a message from the control plane, comes from the system and goes back to it when it is
/// freed. Far above the buffers of requests.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// To be called once, before threads are started: tells the allocator to keep no large blocks.
pub fn keep_no_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both calls only set numbers of the allocator. Setting the first keeps it from raising the limit to the
    // largest block that was ever freed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// Gives the heap's free pages back to the system, wherever they lie. Takes about a millisecond for each 10 MiB of heap, so
/// it is for times when something large has just ended.
pub fn release_free_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers; blocks that are in use stay.
    unsafe {
        libc::malloc_trim(0);
    }
}

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
        keep_no_large_blocks();
        let blocks: Vec<Vec<u8>> = (0..64).map(|number| vec![number; 100_000]).collect();
        let kept: Vec<_> = blocks.into_iter().step_by(2).collect();
        release_free_heap();
        assert!(kept.iter().enumerate().all(|(index, block)| block[99_999] == (index * 2) as u8));
        assert!(release_program_text() > 0);
        let sum: u64 = (0..1000u64).map(std::hint::black_box).sum();
        assert_eq!(sum, 499_500);
    }
}
