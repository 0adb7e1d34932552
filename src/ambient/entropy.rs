//! Chance from the operating system, as seeds.

use rand::rngs::{OsRng, SmallRng};
use rand::{SeedableRng, TryRngCore};

/// Bytes that nobody can guess.
///
/// # Panics
/// If the operating system has no entropy to give: nothing here is safe then.
pub fn seed<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).expect("the operating system gives entropy");
    bytes
}

/// A fast generator with a seed from [`seed`], for choices that need not be secret.
pub fn seeded() -> SmallRng {
    SmallRng::from_seed(seed())
}
