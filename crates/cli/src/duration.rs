//! Lengths of time as `kubectl` writes ages.

use std::time::Duration;

/// `7s`, `3m`, `2h`, `5d`: the largest unit alone.
pub fn age(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
