//! Lists and maps that are read from outside with a bound on their number.
//!
//! Problem: serde takes whatever fits the input, and a list of empty lists is fifty
//! times larger in memory than in its encoding. Invariant: one item above the bound is
//! an error, and no room is made for more than the bound.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A list of at most `MOST` items.
pub(super) struct BoundedVec<T, const MOST: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for BoundedVec<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MOST}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let announced = items.size_hint().unwrap_or(0);
                if announced > MOST {
                    return Err(A::Error::invalid_length(announced, &self));
                }
                let mut list = Vec::with_capacity(announced.min(64));
                while let Some(item) = items.next_element()? {
                    if list.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    list.push(item);
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Items::<T, MOST>(PhantomData)).map(BoundedVec)
    }
}

/// A list of at most `MOST` items; for `serde(deserialize_with)`.
///
/// # Errors
/// The deserializer's, or one that says that there are more.
pub fn bounded_list<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    BoundedVec::<T, MOST>::deserialize(deserializer).map(|list| list.0)
}

/// A map of at most `MOST` entries; for `serde(deserialize_with)`.
pub(super) fn map<'de, D, K, V, const MOST: usize>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    struct Entries<K, V, const MOST: usize>(PhantomData<(K, V)>);

    impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, const MOST: usize> Visitor<'de> for Entries<K, V, MOST> {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a map of at most {MOST}")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<BTreeMap<K, V>, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = entries.next_entry()? {
                map.insert(key, value);
                if map.len() > MOST {
                    return Err(A::Error::invalid_length(map.len(), &self));
                }
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Entries::<K, V, MOST>(PhantomData))
}
