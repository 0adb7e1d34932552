//! The hash slot of a key in Redis Cluster, for CLUSTER KEYSLOT.

/// CRC16 (XMODEM) of the hashed part of a key, modulo 16,384.
pub(super) fn of(key: &[u8]) -> u16 {
    crc16(hashed_part(key)) % 16_384
}

/// What is between the first `{` and the next `}`, as on the ring.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        Some(length) if length > 0 => &rest[..length],
        _ => key,
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(of(b"foo"), 12_182);
        assert_eq!(of(b"{foo}bar"), 12_182);
        assert_eq!(of(b""), 0);
    }
}
