//! How one setting is read from TOML or from the text of a variable or flag.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use crate::types::NodeId;

/// A type that a setting may have.
pub trait Setting: Sized {
    /// What is expected, as messages and the documentation say it.
    const EXPECTED: &'static str;

    /// The setting that a TOML value stands for; relative paths begin at `folder`.
    ///
    /// # Errors
    /// What is wrong with the value, if more can be said than that it is not [`Self::EXPECTED`].
    fn from_value(value: &Value, folder: &Path) -> Result<Self, Option<String>>;

    /// The TOML value that stands for this setting; none if it is left out.
    fn to_value(&self) -> Option<Value>;

    /// The TOML value that the text of a variable or flag stands for.
    fn value_of_text(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

fn number_of_text(text: &str) -> Value {
    text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
}

macro_rules! number_setting {
    ($type:ty, $expected:literal, $from:expr, $to:expr) => {
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value, _folder: &Path) -> Result<Self, Option<String>> {
                value.as_integer().and_then($from).ok_or(None)
            }

            fn to_value(&self) -> Option<Value> {
                Some(Value::Integer(i64::try_from($to(*self)).unwrap_or(i64::MAX)))
            }

            fn value_of_text(text: &str) -> Value {
                number_of_text(text)
            }
        }
    };
}

number_setting!(u64, "a whole number", |number: i64| u64::try_from(number).ok(), |number: u64| number);
number_setting!(
    NonZeroU64,
    "a whole number above zero",
    |number: i64| u64::try_from(number).ok().and_then(NonZeroU64::new),
    NonZeroU64::get
);
number_setting!(
    NonZeroU32,
    "a whole number above zero",
    |number: i64| u32::try_from(number).ok().and_then(NonZeroU32::new),
    NonZeroU32::get
);
number_setting!(
    Duration,
    "a whole number of milliseconds",
    |number: i64| u64::try_from(number).ok().map(Duration::from_millis),
    |duration: Duration| duration.as_millis()
);

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: &Value, _folder: &Path) -> Result<bool, Option<String>> {
        value.as_bool().ok_or(None)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }

    fn value_of_text(text: &str) -> Value {
        text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Boolean)
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path (relative ones begin at the folder of the configuration file)";

    fn from_value(value: &Value, folder: &Path) -> Result<PathBuf, Option<String>> {
        match value.as_str() {
            Some("") => Err(Some("the path is empty".into())),
            Some(text) => Ok(folder.join(text)),
            None => Err(None),
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::String(self.to_string_lossy().into_owned()))
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, as in \"127.0.0.1:7379\" or \"[::1]:7379\"";

    fn from_value(value: &Value, _folder: &Path) -> Result<SocketAddr, Option<String>> {
        value.as_str().and_then(|text| text.trim().parse().ok()).ok_or(None)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl Setting for NodeId {
    const EXPECTED: &'static str = "the name of a node, as in \"n1\"";

    fn from_value(value: &Value, _folder: &Path) -> Result<NodeId, Option<String>> {
        value.as_str().and_then(|text| text.trim().parse().ok()).ok_or(None)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "a text that is not empty";

    fn from_value(value: &Value, _folder: &Path) -> Result<Secret, Option<String>> {
        match value.as_str() {
            Some("") | None => Err(None),
            Some(text) => Ok(Secret(text.to_owned())),
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::String(self.0.clone()))
    }
}

/// What happens to a `MULTI … EXEC` that cannot be carried out as one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Transactions {
    /// `EXEC` answers `-EXECABORT …` and nothing has run.
    #[default]
    Refuse,
    /// The commands run one after another, as if they had been sent without `MULTI`.
    Pipeline,
}

impl Setting for Transactions {
    const EXPECTED: &'static str = "\"refuse\" or \"pipeline\"";

    fn from_value(value: &Value, _folder: &Path) -> Result<Transactions, Option<String>> {
        match value.as_str() {
            Some("refuse") => Ok(Transactions::Refuse),
            Some("pipeline") => Ok(Transactions::Pipeline),
            _ => Err(None),
        }
    }

    fn to_value(&self) -> Option<Value> {
        let text = match self {
            Transactions::Refuse => "refuse",
            Transactions::Pipeline => "pipeline",
        };
        Some(Value::String(text.into()))
    }
}

impl<T: Setting> Setting for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: &Value, folder: &Path) -> Result<Option<T>, Option<String>> {
        T::from_value(value, folder).map(Some)
    }

    fn to_value(&self) -> Option<Value> {
        self.as_ref().and_then(T::to_value)
    }

    fn value_of_text(text: &str) -> Value {
        T::value_of_text(text)
    }
}
