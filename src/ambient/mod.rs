//! The only doors to this machine's clocks and chance.
//!
//! Everything else is given time and seeds as arguments; `clippy.toml` forbids the
//! ways around. The layers that a simulation runs (`types`, `wire`, `protocol`, `sim`)
//! must not name this one.

mod clock;
mod entropy;

pub use clock::{Clock, moment, now, wall};
pub use entropy::{seed, seeded};
