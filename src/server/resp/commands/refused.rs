//! Commands that have a name here and nothing behind it (yet).

use super::super::reply::{ErrorReply, Writer};
use super::super::session::{Call, Handled};

/// The text for what must read and write in one step.
pub(super) fn not_offered(what: &str) -> ErrorReply {
    format!("ERR {what} is not offered yet: it needs SERIAL consistency").into()
}

pub fn serial(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    Err(not_offered(&call.spec.name.to_ascii_uppercase()))
}

pub fn not_atomic(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let name = call.spec.name.to_ascii_uppercase();
    Err(format!("ERR {name} is not atomic across partitions and is not offered").into())
}

pub fn scripting(_: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    Err("ERR scripting is not offered (see the RESP page of the documentation)".into())
}

pub fn pubsub(_: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    Err("ERR Pub/Sub is not offered".into())
}

pub fn debug(_: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    Err("ERR DEBUG command not allowed".into())
}
