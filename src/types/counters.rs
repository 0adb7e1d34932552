//! Numbers that count different things are different types.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            ///
            /// # Panics
            /// At 2⁶⁴, which counting does not reach.
            pub fn next(self) -> $name {
                $name(self.0.checked_add(1).expect("a 64-bit counter does not run out"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The number of a cluster map. Each change of the map is one step.
    Epoch
}
counter! {
    /// Which life of a node this is; grows at every start.
    Incarnation
}
counter! {
    /// The place of a mutation among those of one actor in one partition, from 1.
    Counter
}
counter! {
    /// The number of a group of mutations that one replica made durable together.
    CommitNumber
}

impl Counter {
    /// Whether somebody may have given it out: version vectors have no room for others.
    pub fn is_issued(self) -> bool {
        (1..=u64::MAX - 2).contains(&self.0)
    }
}
