//! MULTI and what belongs to it.
//!
//! MULTI is never answered with an error: clients send MULTI, commands and EXEC in one
//! go, and would take the replies of the commands for those of others (CLIENTS.md). So
//! if anything is refused, it is EXEC, and then nothing has run.

use super::super::options::Transactions;
use super::super::reply::Writer;
use super::super::session::{Begun, Call, Handled, Transaction};

pub fn multi(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    if call.session.transaction.is_some() {
        return Err("ERR MULTI calls can not be nested".into());
    }
    call.session.transaction = Some(Transaction::default());
    call.session.show();
    writer.ok();
    Ok(Begun::Replied)
}

pub fn exec(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    let transaction = call.session.transaction.take().ok_or("ERR EXEC without MULTI")?;
    call.session.show();
    if transaction.broken {
        return Err("EXECABORT Transaction discarded because of previous errors.".into());
    }
    if transaction.queued > 0 && call.shared.options.transactions == Transactions::Refuse {
        return Err("EXECABORT Transaction discarded: atomic transactions are not offered yet. Send the commands \
                    without MULTI, or set transactions = \"pipeline\" to run them in order, each for itself."
            .into());
    }
    // The replies of the queued commands follow as items of this array.
    writer.array(transaction.queued);
    call.session.replay = transaction.commands;
    Ok(Begun::Replied)
}

pub fn discard(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    call.session.transaction.take().ok_or("ERR DISCARD without MULTI")?;
    call.session.show();
    writer.ok();
    Ok(Begun::Replied)
}

pub fn watch(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    if call.session.transaction.is_some() {
        return Err("ERR WATCH inside MULTI is not allowed".into());
    }
    Err("ERR WATCH needs SERIAL consistency, which is not offered yet".into())
}

pub fn unwatch(_: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    writer.ok();
    Ok(Begun::Replied)
}
