//! CPU time of processes, from `/proc` (Linux).

use std::io;

/// Ticks a second in `/proc/<pid>/stat`: fixed in the kernel's interface (`USER_HZ`) on all
/// architectures that this runs on, whatever the kernel's own timer does.
const TICK_MICROS: u64 = 10_000;

/// User and system time of a process with all its threads, in microseconds.
///
/// # Errors
/// There is no such process, or no `/proc`.
pub(super) fn cpu_micros(pid: &str) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected format of /proc/<pid>/stat"))
}

/// The name, which may hold anything, is the second field and ends at the last parenthesis.
fn parse(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // Fields 14 and 15 by proc(5); the name was field 2.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)?.checked_mul(TICK_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 150 50 7 8 20 0 1 0";
        assert_eq!(parse(&format!("42 (redis-server) {fields}")), Some(2_000_000));
        assert_eq!(parse(&format!("42 (a) b (c)) {fields}")), Some(2_000_000));
        assert_eq!(parse("42 (x) S 1 2"), None);
        assert_eq!(parse(""), None);
        assert!(cpu_micros("self").is_ok());
        assert!(cpu_micros("0").is_err());
    }
}
